"""Endless training batches whose content is a pure function of (seed, stream name, step)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import torch
from torch import Tensor

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.augment import Augment
from tlrun.data.pipeline.hashing import Draws, permutation
from tlrun.data.pipeline.mixing import mixed
from tlrun.data.pipeline.prefetch import Prefetch, auto_workers
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.errors import ConfigError, DataError

USUAL_VALUES = 3 * 64 * 64  # of an image, for which evaluate.batch_size is meant


@dataclass
class Batch:
    """x: (B, ...) float32, preprocessed; y: (B,) int64 or None; index: (B,) int64 in the set.

    y is (B, K) float32, rows sum to 1, where images are mixed (`pipeline/mixing.py`).

    columns: what else the set knows of each example, by name, each (B, ...). views: the same images
    seen otherwise, by name, each as x (`Phase.views`).
    """

    x: Tensor
    y: Tensor | None
    index: Tensor
    columns: dict[str, Tensor] = field(default_factory=dict, kw_only=True)
    views: dict[str, Tensor] = field(default_factory=dict, kw_only=True)


class Stream:
    """The training batches of one domain.

    Batch k holds positions [k B, (k + 1) B) of the endless concatenation of the epochs'
    permutations, so no example is dropped, and rank r of `world` processes takes positions
    r, r + world, ... of it. Nothing is remembered between calls but caches: to resume, ask for
    the step. batch_size is global. Small sets are copied to a GPU once; what stays in files is
    decoded ahead by `workers` threads (0 = when it is asked for).

    views: further views of each image, name -> augmentation (None: none at all), with draws of
    their own. backdrops: images that the operations BLENDS of `augment` lay behind these.
    """

    def __init__(
        self,
        name: str,
        examples: ImageSet,
        *,
        batch_size: int,
        seed: int,
        preprocess: Callable[[Tensor], Tensor],
        augment: Augment | None = None,
        views: Mapping[str, Augment | None] | None = None,
        backdrops: ImageSet | None = None,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        if len(examples) == 0:
            raise DataError(f"stream '{name}' has no examples; check data.{name}.")
        if batch_size < 1 or batch_size % world:
            raise ConfigError(
                f"trainer.batch_size={batch_size} must be positive and divide by {world} processes."
            )
        self.name, self.batch_size, self.seed = name, batch_size, seed
        self.device = torch.device(device)
        self.preprocess, self.augment = preprocess, augment or None
        self.views, self.backdrops = dict(views or {}), backdrops
        self.rank, self.world = rank, world
        self.examples = examples
        if self.device.type == "cuda" and examples.in_memory:
            free, _ = torch.cuda.mem_get_info(self.device)
            if examples.nbytes < free // 4:
                self.examples = examples.to(self.device)
        self._permutations: dict[int, Tensor] = {}
        self._prefetch: Prefetch | None = None
        if workers and not examples.in_memory:
            self._prefetch = Prefetch(examples, lambda step: self.positions(step)[1], workers)

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every example has been seen at least once."""
        return -(-len(self.examples) // self.batch_size)

    def positions(self, step: int) -> tuple[Tensor, Tensor]:
        """(epoch, index), each (B / world,) int64 on the CPU, of batch `step` on this rank."""
        n = len(self.examples)
        position = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        position = position[self.rank :: self.world]
        epoch, offset = position // n, position % n
        index = torch.empty_like(offset)
        for e in epoch.unique().tolist():
            chosen = epoch == e
            index[chosen] = self._permutation(e)[offset[chosen]]
        return epoch, index

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._permutations:
            while len(self._permutations) > 3:  # a batch rarely spans more than two epochs
                self._permutations.pop(next(iter(self._permutations)))
            self._permutations[epoch] = permutation(
                len(self.examples), "order", self.seed, self.name, epoch
            )
        return self._permutations[epoch]

    def batch(self, step: int) -> Batch:
        """Batch number `step` (from 0). A pure function: steps may come in any order."""
        epoch, index = self.positions(step)
        raw = self._read(step, index).to(self.device, non_blocking=True)
        labels = self.examples.labels
        y = (
            None
            if labels is None
            else labels[index.to(labels.device)].to(self.device, non_blocking=True)
        )
        columns = {
            name: values[index.to(values.device)].to(self.device, non_blocking=True)
            for name, values in self.examples.columns.items()
        }
        index, epoch = index.to(self.device), epoch.to(self.device)
        with torch.no_grad():
            x, views = self._seen(raw, epoch, index)
            if self.augment is not None and self.augment.mixing and y is not None:
                count = len(self.examples.classes or ())
                draws = Draws(self.seed, self.name, epoch, index)
                x, y = mixed(x, y, count, draws, self.augment.mixing)
        return Batch(x, y, index, columns=columns, views=views)

    def _seen(self, raw: Tensor, epoch: Tensor, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the net is given of raw examples: augmented, and in every further view."""
        draws = Draws(self.seed, self.name, epoch, index)
        clean = cache(partial(self.preprocess, raw))  # once, however many views begin with it
        stored = raw if self.augment is None else self.augment.of_stored(raw, self.backdrops, draws)
        first = clean if stored is raw else partial(self.preprocess, stored)
        x = self._augmented(stored, first, self.augment, draws)
        views = {}
        for view, augment in self.views.items():
            others = Draws(self.seed, f"{self.name}/{view}", epoch, index)
            views[view] = self._augmented(raw, clean, augment, others)
        return x, views

    def _augmented(
        self, raw: Tensor, clean: Callable[[], Tensor], augment: Augment | None, draws: Draws
    ) -> Tensor:
        """clean: gives `raw` preprocessed."""
        if augment is None:
            return clean()
        if isinstance(self.preprocess, Preprocess) and augment.reads_raw(self.preprocess):
            return augment.of_raw(raw, self.preprocess, draws)
        return augment(clean(), draws)

    def _read(self, step: int, index: Tensor) -> Tensor:
        return self._prefetch.read(step) if self._prefetch else self.examples.read(index)

    def close(self) -> None:
        """Let go of what is decoded ahead, if anything."""
        if self._prefetch:
            self._prefetch.close()


def images_per_pass(asked: int, shape: Sequence[int]) -> int:
    """Images, or maps, of `shape` (C, H, W) or (D,) in a forward pass without gradients: as many as
    asked for up to 3x64x64, of larger ones as many as have as many values, but at least 32.

    A thousand photographs at once take gigabytes for the maps of their first layers.
    """
    if len(shape) != 3:
        return asked
    values = max(3, shape[0]) * shape[1] * shape[2]
    return min(asked, max(32, asked * USUAL_VALUES // values))


def batches(
    examples: ImageSet,
    preprocess: Callable[[Tensor], Tensor],
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
    workers: int | None = None,
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """One pass in order, for evaluation: x (B, ...), y (B,) or None, index (B,), on the device.

    batch_size: None = `images_per_pass` of a thousand. workers: threads that decode what stays in
    files; None = as many as the machine has cores.
    """
    device = torch.device(device)
    size = images_per_pass(1000, examples.shape) if batch_size is None else batch_size
    parts = torch.arange(len(examples)).split(size) if len(examples) else ()
    workers = auto_workers() if workers is None else workers
    ahead = None
    if workers and not examples.in_memory:
        ahead = Prefetch(examples, lambda k: parts[k] if k < len(parts) else None, workers)
    try:
        for k, index in enumerate(parts):
            raw = ahead.read(k) if ahead else examples.read(index)
            y = None if examples.labels is None else examples.labels[index].to(device)
            with torch.no_grad():
                x = preprocess(raw.to(device, non_blocking=True))
            yield x, y, index.to(device)
    finally:
        if ahead:
            ahead.close()
