"""Where data files come from: $TLRUN_DATA, then the cache, then a verified download into the cache.

Downloads are checked by MD5 before they get their name, written beside it and moved in one step,
and locked against a second process; one that broke off starts again. Archives are never unpacked to
disk: members are read by name from the archive, so no path can escape.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlrun.errors import DataError
from tlrun.files.locks import file_lock

log = logging.getLogger("tlrun")

BUNDLED = "tlrun data=digits_digitsm"
CONNECT_SECONDS = 2.0
STALL_SECONDS = 20.0


@dataclass(frozen=True)
class Remote:
    """A file of a data set.

    places: relative paths where it may lie under a data root; a download goes to the first.
    needs: all the files of the set, for the message when it is not here.
    """

    places: tuple[str, ...]
    md5: str
    urls: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return Path(self.places[0]).name


def cache_root() -> Path:
    """$TLRUN_CACHE, else ~/.cache/tlrun."""
    return Path(os.environ.get("TLRUN_CACHE") or Path.home() / ".cache" / "tlrun").expanduser()


def data_roots() -> list[Path]:
    """Folders that may hold data files, in the order in which they are searched."""
    given = os.environ.get("TLRUN_DATA")
    return [*([Path(given).expanduser()] if given else []), cache_root() / "data"]


def find(*places: str) -> Path | None:
    """The first file that exists among relative `places` (may hold *), over the data roots."""
    for root in data_roots():
        for candidate in places:
            for path in sorted(root.glob(candidate)) if "*" in candidate else [root / candidate]:
                if path.exists():
                    return path
    return None


def file_md5(path: Path) -> str:
    """MD5 of a file's content, as published for the data sets."""
    return file_hash(path, "md5")


def file_hash(path: Path, algorithm: str) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def missing(
    dataset: str,
    places: Sequence[str],
    tried: Sequence[str] = (),
    *,
    needs: Sequence[str] = (),
    note: str = "",
) -> DataError:
    """The one message for a set that is not here: what was looked for where, and what to do."""
    roots = " and ".join(f"'{root}'" for root in data_roots())
    given = os.environ.get("TLRUN_DATA")
    unset = "" if given else " (TLRUN_DATA is not set)"
    if given and not data_roots()[0].is_dir():
        unset = f" (TLRUN_DATA={given} is no folder)"
    failures = f" Downloads failed: {'; '.join(tried)}." if tried else ""
    files = ", ".join(needs or places[:1])
    return DataError(
        f"{dataset} is not on this machine: looked for {' or '.join(places)} in {roots}{unset}."
        f"{failures} Put {files} into a folder{note} and set TLRUN_DATA to it, "
        f"or run on the bundled data now: {BUNDLED}"
    )


def fetch(dataset: str, remote: Remote, *, download: bool = True) -> Path:
    """The path of a file, downloaded if it must and may be. Raises one DataError otherwise.

    A file that the user put in place is trusted, with a warning if it is not the published one.
    """
    path = find(*remote.places)
    if path is None and download and remote.urls:
        path = _download(dataset, remote)
    if path is None:
        raise missing(dataset, remote.places, needs=remote.needs)
    return path


def _download(dataset: str, remote: Remote) -> Path:
    path = cache_root() / "data" / remote.places[0]
    with locked(path):
        if path.exists():  # another process was faster
            return path
        tried = []
        part = path.with_name(path.name + ".part")
        for url in remote.urls:
            try:
                log.info("downloading %s from %s", remote.name, url)
                _fetch_url(url, part, remote.md5)
            except (OSError, ValueError) as error:
                part.unlink(missing_ok=True)
                tried.append(f"{url} ({getattr(error, 'reason', None) or error})")
                continue
            os.replace(part, path)
            return path
        raise missing(dataset, remote.places, tried, needs=remote.needs)


def _fetch_url(url: str, part: Path, md5: str) -> None:
    """url -> part, checked. Raises OSError or ValueError; a silent mirror has 2 seconds."""
    digest = hashlib.md5(usedforsecurity=False)
    with _open_url(url) as response, open(part, "wb") as out:
        while block := response.read(1 << 20):
            digest.update(block)
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != md5:
        raise ValueError(f"checksum {digest.hexdigest()} instead of {md5}")


def _open_url(url: str) -> Any:
    """urlopen with its whole set-up bounded, also name resolution, which no timeout reaches."""
    box: dict[str, Any] = {}

    def connect() -> None:
        try:
            box["response"] = urllib.request.urlopen(url, timeout=STALL_SECONDS)
        except Exception as error:
            box["error"] = error

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:g} s")
    if "error" in box:
        error = box["error"]
        raise error if isinstance(error, OSError | ValueError) else OSError(str(error))
    return box["response"]


def check_reachable(url: str) -> None:
    """Raise OSError or ValueError if nobody answers at `url`, within seconds."""
    _open_url(url).close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an inter-process lock for `path`; its folder is made. DataError if it cannot be."""
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(file_lock(f"{path}.lock"))
        except OSError as error:
            raise DataError(
                f"cannot write to the cache folder '{path.parent}' ({error.strerror or error}); "
                "set TLRUN_CACHE to a folder that can be written."
            ) from error
        yield


def cached_images(name: str, source: object, build: Callable[[], np.ndarray]) -> Tensor:
    """The array that `build` makes, from the cache, memory-mapped: jobs of a sweep share its pages.

    name: readable part of the cache file's name. source: anything that changes when the result
    would (checksums of the input files, size, recipe). Labels must not enter: they are read where
    they are.
    """
    tag = hashlib.sha256(repr(source).encode()).hexdigest()[:16]
    path = cache_root() / "decoded" / f"{name}-{tag}.npy"
    if not path.exists():
        with locked(path):
            if not path.exists():
                array = np.ascontiguousarray(build())
                part = path.with_name(path.name + ".part")
                try:
                    with open(part, "wb") as out:
                        np.save(out, array, allow_pickle=False)
                        out.flush()
                        os.fsync(out.fileno())
                    os.replace(part, path)
                except OSError as error:
                    part.unlink(missing_ok=True)
                    raise DataError(
                        f"cannot write the cache file '{path}' ({error.strerror or error})."
                    ) from error
    try:
        # copy-on-write: torch wants writable memory, the file stays as it is
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DataError(f"the cache file '{path}' is damaged ({error}); remove it.") from error


def fingerprint(path: Path, published: str | None = None) -> str:
    """MD5 of a data file, with a warning if it is not the `published` one."""
    md5 = file_md5(path)
    if published and md5 != published:
        log.warning(
            "%s is not the published file (md5 %s, not %s); used as it is", path, md5, published
        )
    return md5
