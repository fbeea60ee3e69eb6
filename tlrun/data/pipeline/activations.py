"""What the frozen part of a net makes of images, computed once for each and kept in memory.

    kept = Activations(forward, preprocess, device, batch_size, limit)
    kept.admit({"source": examples})      # at the start of a phase: what there is memory for
    kept.of(examples)                     # the same set with activations for images, or None

A set is run when it is first asked for, in order and in batches of a fixed size, so that its
activations depend on nothing but the net and the set: a resumed run finds the same ones.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from tqdm import tqdm

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.pixels import Pixels
from tlrun.data.pipeline.activation_files import ActivationFiles
from tlrun.data.pipeline.streams import batches

as_given = nn.Identity()  # the preprocessing of activations
WORTH_A_FILE = 1.0  # seconds that a pass over a set takes
Precision = torch.dtype | None  # of autocast; None outside of it


class ActivationRows(Pixels):
    """data: (N, ...), maps (N, H, W, C) where `channels_last` says that they are read as (C, H, W)
    in that memory format, as the net puts them out."""

    def __init__(self, data: Tensor, channels_last: bool = False) -> None:
        self.data, self.channels_last = data, channels_last

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._seen(self.data[:0]).shape[1:])

    @property
    def bytes_each(self) -> int:
        return super().bytes_each * self.data.element_size()

    def read(self, rows: Tensor) -> Tensor:
        return self._seen(self.data.index_select(0, rows.to(self.data.device)))

    def to(self, device: torch.device | str, rows: Tensor | None = None) -> Any:
        data = self.data if rows is None else self.data.index_select(0, rows)
        return ActivationRows(data.to(device), self.channels_last)

    def _seen(self, data: Tensor) -> Tensor:
        return data.permute(0, 3, 1, 2) if self.channels_last else data


@dataclass
class Admitted:
    """A set that there is memory for. slots: row of its pixels -> its place, −1 = not in it."""

    examples: ImageSet
    slots: Tensor
    stored: dict[Precision, ActivationRows] = field(default_factory=dict)

    @classmethod
    def of(cls, examples: ImageSet) -> Admitted:
        slots = torch.full((len(examples.pixels),), -1)
        slots[_rows(examples)] = torch.arange(len(examples))
        return cls(examples, slots)

    def places(self, examples: ImageSet) -> Tensor | None:
        """Where the images of `examples` (n,) stand in this set; None if one of them does not."""
        if examples.pixels is not self.examples.pixels:
            return None
        places = self.slots[_rows(examples)]
        return None if bool((places < 0).any()) else places


class Activations:
    """forward: preprocessed images (B, ...) on the device -> activations (B, ...), without
    gradients. batch_size: of that pass. bytes_each: of one image's. limit: bytes in all. files:
    where other runs find them too; None = nowhere.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        preprocess: Callable[[Tensor], Tensor],
        device: torch.device,
        *,
        batch_size: int,
        bytes_each: int,
        limit: float,
        shows_bar: bool = False,
        files: ActivationFiles | None = None,
    ) -> None:
        self.forward, self.preprocess, self.device = forward, preprocess, device
        self.batch_size, self.bytes_each, self.limit = batch_size, bytes_each, limit
        self.shows_bar = shows_bar and sys.stderr.isatty()
        self.files = files
        self.admitted: list[Admitted] = []
        self._seen: WeakKeyDictionary[ImageSet, tuple[Admitted, Tensor] | None] = (
            WeakKeyDictionary()
        )

    @property
    def nbytes(self) -> int:
        """Of all admitted sets."""
        return self.bytes_each * sum(len(one.examples) for one in self.admitted)

    def admit(self, sets: Mapping[str, ImageSet]) -> list[str]:
        """Take in what fits into the limit, in this order; the names of what does not fit."""
        left_out = []
        for name, examples in sets.items():
            if self._place(examples) is not None:
                continue
            if self.nbytes + self.bytes_each * len(examples) > self.limit:
                left_out.append(name)
                continue
            self.admitted.append(Admitted.of(examples))
            self._seen.clear()
        return left_out

    def of(self, examples: ImageSet) -> ImageSet | None:
        """The set with activations for pixels; None where its images are not admitted."""
        found = self._place(examples)
        if found is None:
            return None
        admitted, places = found
        return examples.with_own_rows(self._stored(admitted), places)

    def _place(self, examples: ImageSet) -> tuple[Admitted, Tensor] | None:
        if examples not in self._seen:
            hits = ((one, one.places(examples)) for one in self.admitted)
            found = next(((one, places) for one, places in hits if places is not None), None)
            self._seen[examples] = found
        return self._seen[examples]

    def _stored(self, admitted: Admitted) -> ActivationRows:
        """Computed when first asked for, for each precision of autocast apart."""
        kind = self.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        if precision not in admitted.stored:
            admitted.stored[precision] = self._found(admitted.examples, precision)
        return admitted.stored[precision]

    def _found(self, examples: ImageSet, precision: Precision) -> ActivationRows:
        """From the disk, or computed, and written where that took its time."""
        if self.files is None:
            return self._computed(examples)
        path = self.files.path(examples.checksum, precision, self.batch_size)
        found = self.files.read(path, len(examples))
        if found is not None:
            return ActivationRows(*found)
        began = time.perf_counter()
        made = self._computed(examples)
        if time.perf_counter() - began > WORTH_A_FILE:
            self.files.write(path, made.data, made.channels_last)
        return made

    @torch.no_grad()
    def _computed(self, examples: ImageSet) -> ActivationRows:
        out: Tensor | None = None
        last = False
        for x, _, index in self._passed(examples):
            made = self.forward(x)
            if out is None:
                last = _is_channels_last(made)
                shape = _stored_as(made[:0], last).shape[1:]
                out = torch.empty((len(examples), *shape), dtype=made.dtype)
            out[int(index[0]) : int(index[-1]) + 1] = _stored_as(made, last).cpu()
        return ActivationRows(torch.empty(0) if out is None else out, last)

    def _passed(self, examples: ImageSet) -> Iterable[tuple[Tensor, Tensor | None, Tensor]]:
        passed = batches(examples, self.preprocess, self.device, self.batch_size)
        return tqdm(
            passed,
            desc=f"frozen stages, {len(examples):,} images",
            total=-(-len(examples) // self.batch_size),
            leave=False,
            disable=not self.shows_bar,
        )


def _rows(examples: ImageSet) -> Tensor:
    return torch.arange(len(examples.pixels)) if examples.rows is None else examples.rows.cpu()


def _is_channels_last(x: Tensor) -> bool:
    form = torch.channels_last
    return x.ndim == 4 and x.is_contiguous(memory_format=form) and not x.is_contiguous()


def _stored_as(x: Tensor, channels_last: bool) -> Tensor:
    return x.permute(0, 2, 3, 1) if channels_last else x
