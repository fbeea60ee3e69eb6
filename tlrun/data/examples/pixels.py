"""Where the examples of a set lie: in one tensor, in image files, or in other sets.

An `ImageSet` is a view on such a store: row numbers, labels and names of its own. So a store says
only how to read rows; subsets, labels and columns are the same for all of them.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tlrun.data.examples.decode import REPAIR, GreyRange, read_image
from tlrun.data.examples.decoded_file import DecodedFile
from tlrun.data.examples.fit import BILINEAR, fit_arrays
from tlrun.data.examples.image_files import text_of

if TYPE_CHECKING:
    from tlrun.data.examples.image_set import ImageSet

CHECKSUM_ROWS = 4096  # read at a time


class Pixels(ABC):
    """Raw examples by row number."""

    in_memory = True

    @abstractmethod
    def __len__(self) -> int:
        """How many rows there are."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) or (D,) of one raw example."""

    @property
    def bytes_each(self) -> int:
        """Bytes that one example takes in memory."""
        return int(np.prod(self.shape))

    @abstractmethod
    def read(self, rows: Tensor) -> Tensor:
        """rows: (B,) int64 -> raw examples: uint8 (B, C, H, W) or float32 (B, D)."""

    def to(self, device: torch.device | str, rows: Tensor | None = None) -> TensorPixels:
        """Just these rows (None = all) in one tensor on `device`."""
        return TensorPixels(self.read(torch.arange(len(self)) if rows is None else rows).to(device))

    def checksum(self, rows: Tensor) -> str:
        """sha256 of shape and pixels of the rows in order."""
        digest = hashlib.sha256(repr(self.shape).encode())
        for block in rows.split(CHECKSUM_ROWS):
            digest.update(np.ascontiguousarray(self.read(block).cpu().numpy()).data)
        return digest.hexdigest()


class TensorPixels(Pixels):
    """data: uint8 images (N, C, H, W) or float32 features (N, D), read in one gather."""

    def __init__(self, data: Tensor) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape[1:])

    @property
    def bytes_each(self) -> int:
        return super().bytes_each * self.data.element_size()

    def read(self, rows: Tensor) -> Tensor:
        return self.data.index_select(0, rows.to(self.data.device, non_blocking=True))

    def to(self, device: torch.device | str, rows: Tensor | None = None) -> TensorPixels:
        return TensorPixels(self.data.to(device)) if rows is None else super().to(device, rows)


class FilePixels(Pixels):
    """Images that stay in their files, decoded when read (by a Stream's threads, ahead).

    files: one path per image. content: one hash per image; checksums are made of them. fit,
    interpolation, grey: how an image is brought to `shape`, and how deep grey becomes 8 bits. kept:
    where its pixels are found once it was decoded; None = nowhere.
    """

    in_memory = False

    def __init__(
        self,
        files: Sequence[Path],
        content: Sequence[str],
        shape: tuple[int, int, int],
        fit: str,
        grey: GreyRange | None = None,
        interpolation: str = BILINEAR,
        kept: DecodedFile | None = None,
        advice: str = REPAIR,
    ) -> None:
        self.advice = advice
        self.files, self.content, self.fit, self._shape = list(files), list(content), fit, shape
        self.kept = kept
        self.grey, self.interpolation = dict(grey or {}), interpolation

    @property
    def paths(self) -> list[str]:
        """The files as text, to name the examples by."""
        return [text_of(file) for file in self.files]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def read(self, rows: Tensor) -> Tensor:
        if self.kept is not None:
            return torch.from_numpy(self.kept.read(rows.tolist(), self._decode))
        return torch.from_numpy(np.stack([self._decode(i) for i in rows.tolist()]))

    def _decode(self, row: int) -> np.ndarray:
        channels, size, _ = self._shape
        rules = (self.fit, self.advice, self.grey, self.interpolation)
        return read_image(self.files[row], size, channels, *rules)

    def checksum(self, rows: Tensor) -> str:
        rule = [repr(sorted(self.grey.items()))] if self.grey else []
        rule += [] if self.interpolation == BILINEAR else [self.interpolation]
        content = [self.content[i] for i in rows.tolist()]
        return hashlib.sha256(
            "\n".join([repr(self._shape), self.fit, *rule, *content]).encode()
        ).hexdigest()


class ResizedPixels(Pixels):
    """An array of small images that are brought to size each time they are read, ahead of their
    step as files are.

    images: uint8 (N, C, H, W). size: the side that they are brought to, by fit and interpolation.
    """

    in_memory = False

    def __init__(
        self, images: np.ndarray, size: int, fit: str, interpolation: str = BILINEAR
    ) -> None:
        self.images, self.rules = images, (size, fit, interpolation)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.images.shape[1], self.rules[0], self.rules[0])

    def read(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(fit_arrays(self.images[rows.cpu().numpy()], *self.rules))

    def checksum(self, rows: Tensor) -> str:
        digest = hashlib.sha256(repr((self.images.shape[1:], *self.rules)).encode())
        for block in rows.split(CHECKSUM_ROWS):
            digest.update(np.ascontiguousarray(self.images[block.cpu().numpy()]).data)
        return digest.hexdigest()


class JoinedPixels(Pixels):
    """Sets one after the other, read where they lie: nothing is copied.

    Grey images beside colour ones are repeated over the channels.
    """

    def __init__(self, parts: Sequence[ImageSet]) -> None:
        self.parts = list(parts)
        self.in_memory = all(part.in_memory for part in parts)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the part with most channels."""
        return max((part.shape for part in self.parts), key=lambda shape: shape[0])

    @property
    def bytes_each(self) -> int:
        """As a plain set of this shape would take."""
        return max((part.pixels.bytes_each for part in self.parts if len(part)), default=0)

    def read(self, rows: Tensor) -> Tensor:
        rows = rows.cpu()
        out: Tensor | None = None
        start = 0
        for part in self.parts:
            here = torch.nonzero((rows >= start) & (rows < start + len(part))).flatten()
            if len(here):
                images = part.read(rows[here] - start)
                if out is None:
                    out = torch.empty((len(rows), *self.shape), dtype=images.dtype)
                out[here] = images  # a single channel fills them all
            start += len(part)
        return torch.empty((0, *self.shape)) if out is None else out
