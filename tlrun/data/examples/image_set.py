"""`ImageSet`: examples with their labels and names, as a view on a store of pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tlrun.data.examples.pixels import Pixels, TensorPixels
from tlrun.errors import DataError


class ImageSet:
    """A view on `pixels`: the examples `rows`, with labels, names and columns of their own.

    pixels: a store, or the tensor of one: uint8 images (N, C, H, W) or float32 features (N, D).
    rows: (n,) int64, None for all of them in order (subsets copy nothing). labels: (n,) int64 or
    None for a set whose labels nobody may see. paths: a name per example for predictions, or None.
    columns: what else is known of each example, by name, such as "box": (n, 4) float32; under lock
    where labels are. Raises DataError if the counts do not agree.
    """

    def __init__(
        self,
        name: str,
        pixels: Tensor | Pixels,
        labels: Tensor | None = None,
        classes: Sequence[str] | None = None,
        paths: Sequence[str] | None = None,
        rows: Tensor | None = None,
        columns: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.name = name
        self.pixels = TensorPixels(pixels) if isinstance(pixels, Tensor) else pixels
        self.columns = dict(columns or {})
        self.rows = rows
        self.labels = labels
        self.classes = None if classes is None else tuple(classes)
        self.paths = None if paths is None else list(paths)
        n = len(self)
        for what, values in (("labels", labels), ("paths", paths), *self.columns.items()):
            if values is not None and len(values) != n:
                raise DataError(
                    f"{name}: {len(values)} {what} for {n} examples; make the counts agree."
                )
        if labels is not None and n and classes is not None:
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= len(classes):
                raise DataError(
                    f"{name}: labels run from {low} to {high} but there are {len(classes)} classes."
                )

    def __len__(self) -> int:
        return len(self.pixels) if self.rows is None else len(self.rows)

    @property
    def in_memory(self) -> bool:
        return self.pixels.in_memory

    @property
    def data(self) -> Tensor:
        """The tensor that a set in memory is a view on: all of its rows."""
        assert isinstance(self.pixels, TensorPixels)
        return self.pixels.data

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) or (D,) of one raw example."""
        return self.pixels.shape

    @property
    def nbytes(self) -> int:
        """Bytes that the examples themselves take in memory."""
        return len(self) * self.pixels.bytes_each

    def read(self, index: Tensor) -> Tensor:
        """index: (B,) int64 -> raw examples: uint8 (B, C, H, W) or float32 (B, D)."""
        return self.pixels.read(index if self.rows is None else self.rows[index])

    def _like(self, **changes: Any) -> ImageSet:
        """The same set with other arguments."""
        fields = ("name", "pixels", "labels", "classes", "paths", "rows", "columns")
        return ImageSet(**{**{key: getattr(self, key) for key in fields}, **changes})

    def subset(self, index: Tensor) -> ImageSet:
        """A view of the examples `index` (m,), in that order."""
        index = index.to(torch.int64)
        return self._like(
            rows=index if self.rows is None else self.rows[index],
            labels=None if self.labels is None else self.labels[index],
            paths=None if self.paths is None else [self.paths[i] for i in index.tolist()],
            columns={name: values[index] for name, values in self.columns.items()},
        )

    def without_labels(self) -> ImageSet:
        """The same examples without labels, class names or paths (which may tell the class)."""
        return ImageSet(self.name, self.pixels, rows=self.rows)

    def with_labels(self, labels: Tensor, classes: Sequence[str]) -> ImageSet:
        """The same examples under other labels (n,) of other classes."""
        return self._like(labels=labels, classes=classes)

    def with_column(self, name: str, values: Tensor) -> ImageSet:
        """The same examples with a further column (n, ...)."""
        return self._like(columns={**self.columns, name: values})

    def with_pixels(self, pixels: Tensor) -> ImageSet:
        """The same examples in another tensor with the same rows."""
        return self._like(pixels=pixels)

    def with_own_rows(self, pixels: Pixels, rows: Tensor) -> ImageSet:
        """The same examples in another store, at these rows (n,) of it."""
        return self._like(pixels=pixels, rows=rows)

    def to(self, device: torch.device | str) -> ImageSet:
        """A copy of just these examples on `device`; a set that stays in files as it is."""
        if not self.in_memory:
            return self
        return self._like(
            pixels=self.pixels.to(device, self.rows),
            rows=None,
            labels=None if self.labels is None else self.labels.to(device),
            columns={name: values.to(device) for name, values in self.columns.items()},
        )

    @cached_property
    def checksum(self) -> str:
        """sha256 of shape and pixels in order. Labels are left out: they may be under lock."""
        every = torch.arange(len(self.pixels)) if self.rows is None else self.rows
        return self.pixels.checksum(every)

    @property
    def label_checksum(self) -> str | None:
        """sha256 of the labels in order, None for a set without."""
        if self.labels is None:
            return None
        return hashlib.sha256(self.labels.cpu().numpy().astype("<i8").tobytes()).hexdigest()

    def class_counts(self) -> dict[str, int] | None:
        """Class name -> number of examples, None for a set without labels."""
        if self.labels is None or self.classes is None:
            return None
        counts = torch.bincount(self.labels.cpu(), minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counts, strict=True))
