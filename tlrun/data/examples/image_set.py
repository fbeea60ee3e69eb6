"""`ImageSet`: examples in memory, read by index in one gather. `FileImageSet`: image files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tlrun.data.examples.decode import SKIP, GreyRange, read_image
from tlrun.data.examples.image_files import text_of
from tlrun.errors import DataError


class ImageSet:
    """Examples that live in one tensor: uint8 images (N, C, H, W) or float32 features (N, D).

    `rows` makes a view on `data` (subsets copy nothing). labels: (n,) int64 or None for a set whose
    labels nobody may see. paths: a name per example for predictions, or None. columns: what else is
    known of each example, by name, such as "box": (n, 4) float32; under lock where labels are.
    """

    in_memory = True

    def __init__(
        self,
        name: str,
        data: Tensor,
        labels: Tensor | None = None,
        classes: Sequence[str] | None = None,
        paths: Sequence[str] | None = None,
        rows: Tensor | None = None,
        columns: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.name = name
        self.data = data
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
        return len(self.data) if self.rows is None else len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) or (D,) of one raw example."""
        return tuple(self.data.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes that the examples themselves take."""
        return len(self) * int(np.prod(self.shape)) * self.data.element_size()

    def read(self, index: Tensor) -> Tensor:
        """index: (B,) int64 -> raw examples: uint8 (B, C, H, W) or float32 (B, D)."""
        if self.rows is not None:
            index = self.rows[index]
        return self.data.index_select(0, index.to(self.data.device, non_blocking=True))

    def subset(self, index: Tensor) -> ImageSet:
        """A view of the examples `index` (m,), in that order."""
        index = index.to(torch.int64)
        rows = index if self.rows is None else self.rows[index]
        labels = None if self.labels is None else self.labels[index]
        paths = None if self.paths is None else [self.paths[i] for i in index.tolist()]
        columns = {name: values[index] for name, values in self.columns.items()}
        return ImageSet(self.name, self.data, labels, self.classes, paths, rows, columns)

    def without_labels(self) -> ImageSet:
        """The same examples without labels, class names or paths (which may tell the class)."""
        return ImageSet(self.name, self.data, rows=self.rows)

    def with_labels(self, labels: Tensor, classes: Sequence[str]) -> ImageSet:
        """The same examples under other labels (n,) of other classes."""
        return ImageSet(self.name, self.data, labels, classes, self.paths, self.rows, self.columns)

    def with_column(self, name: str, values: Tensor) -> ImageSet:
        """The same examples with a further column (n, ...)."""
        columns = {**self.columns, name: values}
        return ImageSet(
            self.name, self.data, self.labels, self.classes, self.paths, self.rows, columns
        )

    def to(self, device: torch.device | str) -> ImageSet:
        """A copy of just these examples on `device`."""
        data = self.data if self.rows is None else self.data.index_select(0, self.rows)
        labels = None if self.labels is None else self.labels.to(device)
        columns = {name: values.to(device) for name, values in self.columns.items()}
        return ImageSet(
            self.name, data.to(device), labels, self.classes, self.paths, columns=columns
        )

    @cached_property
    def checksum(self) -> str:
        """sha256 of shape and pixels in order. Labels are left out: they may be under lock."""
        digest = hashlib.sha256(repr(self.shape).encode())
        for start in range(0, len(self), 4096):
            block = self.read(torch.arange(start, min(start + 4096, len(self))))
            digest.update(np.ascontiguousarray(block.cpu().numpy()).data)
        return digest.hexdigest()

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


class FileImageSet(ImageSet):
    """Images that stay in their files, decoded when read (by the workers of a Stream).

    files: one path per image. content: one hash per image; the set's checksum is made of them.
    grey: how deep grey becomes 8 bits.
    """

    in_memory = False

    def __init__(
        self,
        name: str,
        files: Sequence[Path],
        content: Sequence[str],
        shape: tuple[int, int, int],
        fit: str,
        labels: Tensor | None = None,
        classes: Sequence[str] | None = None,
        columns: Mapping[str, Tensor] | None = None,
        grey: GreyRange | None = None,
    ) -> None:
        self.files, self.content, self.fit, self._shape = list(files), list(content), fit, shape
        self.grey = dict(grey or {})
        paths = [text_of(f) for f in files]
        super().__init__(name, torch.empty(0), labels, classes, paths, columns=columns)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def nbytes(self) -> int:
        return len(self) * int(np.prod(self._shape))

    def read(self, index: Tensor) -> Tensor:
        channels, size, _ = self._shape
        images = [
            read_image(self.files[i], size, channels, self.fit, SKIP, self.grey)
            for i in index.tolist()
        ]
        return torch.from_numpy(np.stack(images))

    def _like(
        self,
        order: list[int],
        labels: Tensor | None,
        classes: Sequence[str] | None,
        columns: Mapping[str, Tensor] | None = None,
    ) -> FileImageSet:
        files, content = [self.files[i] for i in order], [self.content[i] for i in order]
        shape = (self._shape[0], self._shape[1], self._shape[2])
        new = FileImageSet(
            self.name, files, content, shape, self.fit, labels, classes, columns, self.grey
        )
        new.paths = None if self.paths is None else new.paths
        return new

    def subset(self, index: Tensor) -> FileImageSet:
        labels = None if self.labels is None else self.labels[index]
        columns = {name: values[index] for name, values in self.columns.items()}
        return self._like(index.tolist(), labels, self.classes, columns)

    def without_labels(self) -> FileImageSet:
        new = self._like(list(range(len(self))), None, None)
        new.paths = None
        return new

    def with_labels(self, labels: Tensor, classes: Sequence[str]) -> FileImageSet:
        return self._like(list(range(len(self))), labels, classes, self.columns)

    def with_column(self, name: str, values: Tensor) -> FileImageSet:
        columns = {**self.columns, name: values}
        return self._like(list(range(len(self))), self.labels, self.classes, columns)

    def to(self, device: torch.device | str) -> FileImageSet:
        return self

    @cached_property
    def checksum(self) -> str:
        rule = [repr(sorted(self.grey.items()))] if self.grey else []
        return hashlib.sha256(
            "\n".join([repr(self._shape), self.fit, *rule, *self.content]).encode()
        ).hexdigest()
