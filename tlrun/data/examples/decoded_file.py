"""Decoded images on the disk, for sets that exceed memory: each is decoded once, by whatever run
reads it first, and read back as bytes from then on.

A file bears the hash of all that its pixels follow from. It has a place for every image and a
checksum for every place, and is filled as images are read: nothing waits for a whole set to be
decoded, processes may fill it together, and what was written by half is decoded again. Whatever is
wrong with the file or the disk: images are decoded as if it were not there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from tlrun.data.examples.download import cache_root
from tlrun.errors import ConfigError
from tlrun.files.least_used import make_room

log = logging.getLogger(__name__)

LIMIT = "TLRUN_CACHE_GB"
USUAL_GB = 20.0
SPARE = 0.9  # share of a disk's free space that may be filled
SUM_BYTES = 4


def limit_gb() -> float:
    """$TLRUN_CACHE_GB: gigabytes of such files, all together. Raises ConfigError."""
    given = os.environ.get(LIMIT) or str(USUAL_GB)
    try:
        limit = float(given)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise ConfigError(
            f"{LIMIT}={given}: give the gigabytes of decoded images that the cache may keep; "
            "0 keeps none"
        )
    return limit


def why_not(nbytes: int) -> str:
    """Why so many bytes of decoded images are not kept; empty if they are."""
    limit = limit_gb()
    if nbytes > limit * 1e9:
        return f"{nbytes / 1e9:.1f} GB of pixels exceed {LIMIT}={limit:g}"
    place = next(p for p in (cache_root(), *cache_root().absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if nbytes > SPARE * free:
        return f"{nbytes / 1e9:.1f} GB of pixels do not fit on the disk of the cache"
    return ""


class DecodedFile:
    """Places for `count` images of `shape` (C, H, W), uint8.

    name: readable part of the file's name. source: anything that changes when a pixel would.
    """

    def __init__(self, name: str, source: object, count: int, shape: tuple[int, ...]) -> None:
        tag = hashlib.sha256(repr((source, count, shape)).encode()).hexdigest()[:24]
        self.path = cache_root() / "decoded" / f"{name}-{tag}.u8"
        self.count, self.shape = count, shape
        self.bytes_each = int(np.prod(shape))
        self.checked = np.zeros(count, bool)  # places whose checksum this process has seen right
        self._lock = threading.Lock()
        self._number: int | None = None  # of the open file
        self._refused = False

    @property
    def nbytes(self) -> int:
        """Of the file once it is full."""
        return self.count * (self.bytes_each + SUM_BYTES)

    def read(self, rows: Sequence[int], decode: Callable[[int], np.ndarray]) -> np.ndarray:
        """uint8 (len(rows), C, H, W). decode: the pixels of a row that is not there yet."""
        out = np.empty((len(rows), *self.shape), np.uint8)
        number = self._opened()
        for place, row in zip(out, rows, strict=True):
            if number is None or not self._found(number, row, place):
                place[...] = decode(row)
                if number is not None:
                    self._keep(number, row, place)
        return out

    def _found(self, number: int, row: int, place: np.ndarray) -> bool:
        try:
            if os.preadv(number, [place.data], row * self.bytes_each) != self.bytes_each:
                return False
            if not self.checked[row]:
                told = os.pread(number, SUM_BYTES, self._sum_at(row))
                self.checked[row] = told == checksum(place)
        except OSError as error:
            log.debug("%s: %s", self.path, error)
            return False
        return bool(self.checked[row])

    def _keep(self, number: int, row: int, place: np.ndarray) -> None:
        if self._refused:
            return
        try:
            os.pwrite(number, place.data, row * self.bytes_each)
            os.pwrite(number, checksum(place), self._sum_at(row))
            self.checked[row] = True
        except OSError as error:  # a full disk is no fault of the run
            self._refused = True
            log.warning("decoded images are kept no longer in '%s' (%s)", self.path, error.strerror)

    def _sum_at(self, row: int) -> int:
        return self.count * self.bytes_each + row * SUM_BYTES

    def _opened(self) -> int | None:
        if self._number is None and not self._refused:
            with self._lock:
                if self._number is None and not self._refused:
                    self._number = self._open()
                    self._refused = self._number is None
        return self._number

    def _open(self) -> int | None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # a run that still reads a removed file keeps it until it ends
            make_room(self.path, self.nbytes, limit_gb() * 1e9)
            number = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            if os.fstat(number).st_size != self.nbytes:
                os.ftruncate(number, self.nbytes)  # places take room when they are written
            os.utime(self.path)
        except OSError as error:
            log.debug("%s: %s", self.path, error)
            return None
        return number

    def __getstate__(self) -> dict[str, object]:
        """For other processes, which open the file themselves."""
        kept = ("path", "count", "shape", "bytes_each")
        return {key: getattr(self, key) for key in kept}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.checked = np.zeros(self.count, bool)
        self._lock = threading.Lock()
        self._number, self._refused = None, False

    def __del__(self) -> None:
        if getattr(self, "_number", None) is not None:
            with suppress(OSError):
                os.close(self._number)  # type: ignore[arg-type]


def checksum(image: np.ndarray) -> bytes:
    """CRC-32 in four bytes; never zeros, which stand where nothing was written."""
    return max(1, zlib.crc32(image.data)).to_bytes(SUM_BYTES, "little")
