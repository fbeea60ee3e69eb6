"""Batches with as many images of every class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.pipeline.streams import Stream
from tlrun.errors import DataError


class BalancedStream(Stream):
    """For `Phase.sampling`: the classes take turns, each through endless permutations of its own.

    Position p of the endless row is image p // K of class p mod K, so a batch holds ⌊B / K⌋ or
    ⌈B / K⌉ of each, as does each process's share of it, and a rare class comes round more often.
    Images without a label are left out. Raises DataError where none has one.
    """

    def __init__(self, name: str, examples: ImageSet, **settings: Any) -> None:
        super().__init__(name, examples, **settings)
        labels = torch.empty(0) if examples.labels is None else examples.labels.cpu()
        self.members = [torch.nonzero(labels == c)[:, 0] for c in labels[labels >= 0].unique()]
        if not self.members:
            raise DataError(f"stream '{name}' has no labels to balance its classes by")
        self._orders: dict[int, tuple[int, Tensor]] = {}  # class -> its latest epoch and order

    def positions(self, step: int) -> tuple[Tensor, Tensor]:
        """(epoch, index), each (B / world,) int64 on the CPU; the epoch is that of the class."""
        position = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        classes = len(self.members)
        # dealt out class by class, so that each process has its share of every class
        by_class = position[torch.argsort(position % classes, stable=True)]
        position = by_class[self.rank :: self.world].sort().values
        turns = [(p % classes, p // classes) for p in position.tolist()]
        epochs = [turn // len(self.members[c]) for c, turn in turns]
        index = [
            self.members[c][self._class_order(c, e)[turn % len(self.members[c])]]
            for (c, turn), e in zip(turns, epochs, strict=True)
        ]
        return torch.tensor(epochs), torch.stack(index)

    def _class_order(self, c: int, epoch: int) -> Tensor:
        drawn = self._orders.get(c)
        if drawn is None or drawn[0] != epoch:
            parts = ("order", self.seed, self.name, c, epoch)
            drawn = self._orders[c] = (epoch, permutation(len(self.members[c]), *parts))
        return drawn[1]
