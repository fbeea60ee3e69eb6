"""Kept activations on the disk: the runs of a sweep on one frozen net compute them once.

A file bears the hash of all that its numbers follow from: net, images, preprocessing, size of the
batches, number format. It is written whole or not at all; the files used longest ago are removed
where all of them exceed the limit. Whatever is wrong with a file or the folder: it is computed.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlrun.data.examples.download import cache_root
from tlrun.files.least_used import make_room

log = logging.getLogger(__name__)


class ActivationFiles:
    """net: a hash of the frozen part and of what it makes of some input. limit: bytes in all."""

    def __init__(self, net: str, limit: float) -> None:
        self.net, self.limit = net, limit
        self.folder = cache_root() / "activations"

    def path(self, *about: Any) -> Path:
        """Of a set. about: what else its activations follow from."""
        tag = hashlib.sha256(repr((self.net, *about)).encode()).hexdigest()
        return self.folder / f"{tag[:24]}.pt"

    def read(self, path: Path, count: int) -> tuple[Tensor, bool] | None:
        """The activations of `count` images and whether their maps lie channels last."""
        if not path.is_file():
            return None
        try:
            found = torch.load(path, mmap=True, weights_only=True)
            data, last = found["data"], bool(found["channels_last"])
            if len(data) != count:
                return None
            os.utime(path)
        except Exception as error:  # damaged in any way
            log.debug("%s: %s", path, error)
            return None
        return data, last

    def write(self, path: Path, data: Tensor, channels_last: bool) -> None:
        """Keep what fits; a disk that refuses is no fault of the run."""
        if data.numel() * data.element_size() > self.limit:
            return
        part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save({"data": data, "channels_last": channels_last}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            make_room(path, path.stat().st_size, self.limit)
        except (OSError, RuntimeError) as error:
            log.debug("%s: %s", path, error)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def digest(*values: Tensor | str) -> str:
    """sha256 of tensors (shape, type and bytes) and words, in order."""
    told = hashlib.sha256()
    for value in values:
        if isinstance(value, str):
            told.update(value.encode())
            continue
        told.update(repr((tuple(value.shape), value.dtype)).encode())
        told.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return told.hexdigest()
