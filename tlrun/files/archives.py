"""Packed files from anybody: zip, npz, tar, gz, bz2, mat, .pt, pickles. No code runs, none explode.

Nothing is unpacked to the disk, so no name in an archive can lead out of a folder, and no link is
followed. What would unpack to far more than a data set of that size holds is refused before it is
unpacked. Every fault is a DataError of one sentence that names the file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import pickle
import re
import tarfile
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tlrun.errors import DataError

LARGE = 2**28  # bytes that any file may unpack to
RATIO = 200  # beyond that, so many times its size: zlib packs nothing but zeros a thousandfold


@contextmanager
def described(path: Path) -> Iterator[None]:
    """Whatever a damaged file raises (zlib, numpy, scipy, PIL: a dozen kinds), in one sentence."""
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"'{path}' holds more than the memory of this machine.") from error
    except Exception as error:
        why = (str(error).splitlines() or [""])[0].rstrip(". ") or type(error).__name__
        if "allow_pickle" in why:  # numpy's advice would run code
            why = "it holds Python objects, and only numbers and texts are read"
        raise DataError(f"'{path}' is damaged ({why}); replace it.") from error


def refuse_bomb(path: Path, unpacked: int) -> None:
    """Raise DataError if a file would unpack to implausibly many bytes."""
    size = path.stat().st_size
    if unpacked > max(LARGE, RATIO * size):
        raise DataError(
            f"'{path}' ({size:,} bytes) would unpack to more than {max(LARGE, RATIO * size):,} "
            "bytes: it is damaged or made to fill the memory; replace it."
        )


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip whose members are of plausible size; reading more than one declares is an error."""
    with described(path), zipfile.ZipFile(path) as archive:
        refuse_bomb(path, sum(member.file_size for member in archive.infolist()))
        yield archive


@contextmanager
def open_tar(path: Path) -> Iterator[tuple[tarfile.TarFile, list[tarfile.TarInfo]]]:
    """A tar and its plain files; links, devices and folders are left out."""
    with described(path), tarfile.open(path) as archive:
        members, total = [], 0
        for member in archive:  # each is passed over by reading: so the sum is checked on the way
            total += member.size
            refuse_bomb(path, total)
            if member.isfile():
                members.append(member)
        yield archive, members


def unpack(path: Path) -> bytes:
    """The content of a .gz or .bz2, or of a file that is not packed."""
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}
    parts, total = [], 0
    with described(path), openers.get(path.suffix, open)(path, "rb") as stream:
        while block := stream.read(1 << 20):
            total += len(block)
            refuse_bomb(path, total)
            parts.append(block)
    return b"".join(parts)


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz; none of Python objects."""
    with open_zip(path), np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def load_mat(path: Path, names: list[str] | None = None) -> dict[str, Any]:
    """The variables of a MATLAB file (all, or those named)."""
    from scipy.io import loadmat

    with described(path):
        refuse_bomb(path, _unpacked_mat(path))
        variables = loadmat(path, variable_names=names)
        return {key: value for key, value in variables.items() if not key.startswith("__")}


def _unpacked_mat(path: Path) -> int:
    """Bytes of the variables as a MATLAB 5 file declares them; its own size for other versions.

    After a header of 128 bytes each variable has a tag (type, bytes); type 15 is a zlib stream that
    begins with the tag of what it holds (MAT-File Format, MathWorks).
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        mark = file.read(128)[126:128]
        if mark not in (b"IM", b"MI"):
            return total
        order: Any = "little" if mark == b"IM" else "big"
        while len(tag := file.read(8)) == 8:
            kind, size = int.from_bytes(tag[:4], order), int.from_bytes(tag[4:], order)
            at = file.tell()
            if kind == 15:
                inner = zlib.decompressobj().decompress(file.read(min(size, 256)), 8)
                total += int.from_bytes(inner[4:8], order)
            file.seek(at + size)
    return total


def load_pickle(path: Path) -> Any:
    """Arrays, lists, dicts, texts and numbers of a pickle, Python 2's included; no code runs.

    A pickle that names anything else is a DataError: nothing of it is imported or called.
    """
    with described(path), path.open("rb") as stream:
        return _PlainUnpickler(stream, encoding="latin1").load()


def _latin1(text: str, encoding: str) -> bytes:
    """As Python 2 wrote bytes: `_codecs.encode`, of which only this use is needed."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"it encodes a text as {encoding}")
    return text.encode("latin1")


# what numpy's arrays and numbers name in a pickle, whatever version of numpy wrote it
_ARRAY, _BUFFER = np.empty(0).__reduce__()[0], np.empty(1).__reduce_ex__(5)[0]
_PICKLED = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _ARRAY for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _BUFFER for core in ("core", "_core")},
    **{
        (f"numpy.{core}.multiarray", "scalar"): np.float64(0).__reduce__()[0]
        for core in ("core", "_core")
    },
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    ("collections", "OrderedDict"): OrderedDict,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLED:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, and only arrays, lists, texts and numbers are read"
            )
        return _PICKLED[module, name]


def load_tensors(data: bytes) -> Any:
    """What `torch.save` wrote: tensors and plain values, on the CPU; no pickle runs code.

    Raises ValueError with a reason of ours: torch's own advises to load the file without that care.
    """
    import torch

    try:
        with warnings.catch_warnings():  # of pickles that are newer than torch's own
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        if named := re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error)):
            reason = f"it names {named[1]}, and only tensors and plain values are read"
        else:
            reason = "it is cut off, or no file of torch.save"
        raise ValueError(reason) from None
