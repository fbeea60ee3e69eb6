"""Packed files that are cut off, wrong or made to harm: one sentence, nothing written, no bomb."""

from __future__ import annotations

import bz2
import gzip
import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from tlrun.data.examples.attribute_table import read_table
from tlrun.data.sets import features, mnist, mnistm, omniglot, svhn, usps
from tlrun.engine import checkpoint
from tlrun.errors import DataError, RunError, TlrunError
from tlrun.files import archives
from tlrun.report.figures.embedding import read_features
from tlrun.report.read.entries import Missing

ZEROS = bytes(3_000_000)  # packs to 3,000


class Evil:
    """Unpickled it would leave a file."""

    def __reduce__(self):
        return open, ("ran", "w")


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch, in_tmp: Path) -> None:
    monkeypatch.setattr(archives, "LARGE", 1_000_000)


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def link(kind: bytes, name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member, b""


def npz(path: Path, data: bytes, name: str = "features.npy") -> Path:
    return zipped(path, {name: data})


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def mat_bomb(path: Path) -> Path:
    """A MATLAB 5 file whose one variable declares 3 MB of zeros, packed."""
    content = struct.pack("<II", 14, len(ZEROS)) + ZEROS
    packed = zlib.compress(content)
    header = b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    path.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    return path


def idx(shape: tuple[int, ...], data: bytes) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def real_mat(path: Path) -> Path:
    savemat(path, {"X": np.random.default_rng(0).random((99, 9)), "y": np.arange(99)})
    return path


def released(content: object) -> Path:
    out = io.BytesIO()
    torch.save(content, out)
    return tarred(Path("r.pt.tar.gz"), (tarfile.TarInfo("a/r.pt"), out.getvalue()))


def read_release(path: Path) -> object:
    return mnistm.read_release(path, "r.pt")


CASES: dict[str, tuple[Callable[[Path], object], Callable[[], Path], str]] = {
    "zip bomb": (
        mnistm._png_names, lambda: zipped(Path("a.zip"), {"x.png": ZEROS}), "would unpack to"
    ),
    "zip of many small bombs": (
        lambda path: omniglot._drawings(path, "images_background"),
        lambda: zipped(Path("a.zip"), {f"{n}.png": ZEROS[:100_000] for n in range(30)}),
        "would unpack to",
    ),
    "zip cut off": (
        mnistm._png_names, lambda: cut(zipped(Path("a.zip"), {"x.png": b"1" * 99})), "is damaged"
    ),
    "zip of no picture": (
        lambda path: mnistm._decode(path, ["x.png"]),
        lambda: zipped(Path("a.zip"), {"x.png": b"no picture"}),
        "cannot read 'x.png'",
    ),
    "npz bomb": (
        features.read_features, lambda: npz(Path("a.npz"), npy(np.zeros(400_000))), "would unpack"
    ),
    "npz cut off": (
        features.read_features, lambda: cut(npz(Path("a.npz"), npy(np.eye(50)))), "is damaged"
    ),
    "npz of objects": (
        features.read_features,
        lambda: npz(Path("a.npz"), npy(np.array([Evil()], dtype=object))),
        "holds Python objects",
    ),
    "mat bomb": (features.read_features, lambda: mat_bomb(Path("a.mat")), "would unpack to"),
    "mat bomb of attributes": (read_table, lambda: mat_bomb(Path("a.mat")), "would unpack to"),
    "mat bomb of svhn": (
        lambda path: svhn.read_mat(path, "X"), lambda: mat_bomb(Path("a.mat")), "would unpack to"
    ),
    "mat cut off": (
        lambda path: svhn.read_mat(path, "X"), lambda: cut(real_mat(Path("a.mat"))), "is damaged"
    ),
    "mat without the variable": (
        lambda path: svhn.read_mat(path, "Z"), lambda: real_mat(Path("a.mat")), "no variable Z"
    ),
    "gz bomb": (mnist.read_idx, lambda: packed("a.gz", gzip.compress(ZEROS)), "would unpack to"),
    "gz cut off": (
        mnist.read_idx, lambda: cut(packed("a.gz", gzip.compress(idx((9,), b"1" * 9)))), "damaged"
    ),
    "gz that declares more than it holds": (
        mnist.read_idx, lambda: packed("a.gz", gzip.compress(idx((2**31, 2**31), b""))), "damaged"
    ),
    "bz2 bomb": (usps.read_libsvm, lambda: packed("a.bz2", bz2.compress(ZEROS)), "would unpack"),
    "bz2 cut off": (
        usps.read_libsvm, lambda: cut(packed("a.bz2", bz2.compress(b"1 1:0.5\n" * 99))), "damaged"
    ),
    "tar bomb": (
        read_release,
        lambda: tarred(Path("a.tar.gz"), (tarfile.TarInfo("x"), ZEROS)),
        "would unpack to",
    ),
    "tar cut off": (
        read_release, lambda: cut(tarred(Path("a.tar.gz"), (tarfile.TarInfo("r.pt"), b"1" * 9))),
        "damaged",
    ),
    "tar with a symbolic link": (
        read_release,
        lambda: tarred(Path("a.tar.gz"), link(tarfile.SYMTYPE, "r.pt", "/etc/passwd")),
        "does not hold r.pt",
    ),
    "tar with a hard link": (
        read_release,
        lambda: tarred(Path("a.tar.gz"), link(tarfile.LNKTYPE, "r.pt", "../secret")),
        "does not hold r.pt",
    ),
    "tar with a device": (
        lambda path: mnistm.bsds_photos(path, "train"),
        lambda: tarred(Path("a.tar.gz"), link(tarfile.FIFOTYPE, "images/train/x.jpg", "")),
        "holds no BSDS500",
    ),
    "pickle in a tar": (read_release, lambda: released([Evil(), 1]), "only tensors"),
}  # fmt: skip


def packed(name: str, data: bytes) -> Path:
    path = Path(name)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", CASES)
def test_it_is_one_sentence(name: str) -> None:
    read, make, why = CASES[name]
    path = make()
    before = sorted(Path.cwd().parent.rglob("*"))
    with pytest.raises(TlrunError, match=why) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert "allow_pickle" not in str(caught.value)
    assert sorted(Path.cwd().parent.rglob("*")) == before


def test_a_name_that_leads_out_of_the_folder_is_only_a_name() -> None:
    picture = io.BytesIO()
    from PIL import Image

    Image.new("RGB", (32, 32)).save(picture, "png")
    path = zipped(Path("a.zip"), {"../../escaped.png": picture.getvalue()})
    assert mnistm._decode(path, mnistm._png_names(path)).shape == (1, 3, 32, 32)
    path = released([torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2)])
    assert mnistm.read_release(path, "r.pt")[0].shape == (2, 3, 4, 4)
    assert not list(Path.cwd().parent.rglob("escaped.png"))


def test_what_packs_well_is_no_bomb() -> None:
    np.savez_compressed("a.npz", features=np.zeros((100, 1000)))
    assert features.read_features(Path("a.npz")).x.shape == (100, 1000)
    assert real_mat(Path("b.mat")).is_file()
    assert svhn.read_mat(Path("b.mat"), "X").shape == (99, 9)
    savemat("c.mat", {"X": np.random.default_rng(0).random((400, 99))}, do_compression=True)
    assert archives._unpacked_mat(Path("c.mat")) > 400 * 99 * 8
    assert svhn.read_mat(Path("c.mat"), "X").shape == (400, 99)


def test_the_features_of_a_received_run() -> None:
    npz(Path("features.npz"), npy(np.array([Evil()], dtype=object)))
    with pytest.raises(Missing, match="no readable features"):
        read_features(Path("features.npz"))


# ---- checkpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (pickle.dumps(Evil()), "is damaged"),
        (b"", "it is cut off"),
        (b"PK\x03\x04", "it is cut off"),
        ("torch", "only tensors and plain values"),
        ("list", "no state of a run"),
        ("half", "it is cut off"),
    ],
)
def test_a_checkpoint(data: bytes | str, why: str) -> None:
    path = Path("x.pt")
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        torch.save(
            {"torch": {"parts": Evil()}, "list": [1], "half": {"a": torch.ones(9)}}[data], path
        )
        if data == "half":
            cut(path)
    with pytest.raises(RunError, match=why) as caught:
        checkpoint.load(path)
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None  # with --debug, too
    assert not Path("ran").exists()


def test_errors_of_data_are_of_one_kind() -> None:
    with pytest.raises(DataError, match="memory of this machine"), archives.described(Path("x")):
        raise MemoryError
