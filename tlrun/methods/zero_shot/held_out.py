"""Seen classes as if they were unseen: a few at a time are held out, in turn.

What a method would say of images of a class that it had not learned is known only of classes for
which that was tried. Penalties and the calibration γ of generalized zero-shot learning are chosen
on such groups (Xian et al., TPAMI 2018, section 4.2: on validation classes, disjoint from the
others), so that no image of an unseen class plays a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from random import Random

import torch
from torch import Tensor

TURNS = 8  # groups at most: each costs a fit per setting
TRAINED = 4  # groups at most where each costs the training of a head
SETS = 100  # of classes that are unseen in turn, at most


@dataclass(frozen=True)
class Scored:
    """Scores (n, C) over all classes and the labels (n,) of images."""

    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, classes: Sequence[int]) -> Scored:
        """Those of the images of these classes."""
        keep = torch.isin(self.labels, torch.tensor(list(classes), device=self.labels.device))
        return Scored(self.scores[keep], self.labels[keep])


@dataclass(frozen=True)
class HeldOut:
    """A group of classes that the scores do without.

    held, others: positions of the classes. seen: images of the others; unseen: of the held ones.
    """

    held: tuple[int, ...]
    others: tuple[int, ...]
    seen: Scored
    unseen: Scored


@dataclass(frozen=True)
class LeftOut:
    """One set of unseen classes, with the test images, and what was chosen without these classes.

    test: the set. turns: groups of the other classes, held out in turn with the chosen setting.
    """

    test: HeldOut
    turns: list[HeldOut]


def group_size(classes: int, unseen: int) -> int:
    """How many of `classes` to hold out at a time for so many unseen ones; 0 = they are too few."""
    return 0 if classes < 4 else max(2, min(unseen, classes // 2))


def groups_in_turn(classes: Sequence[int], size: int, turns: int = TURNS) -> list[tuple[int, ...]]:
    """Groups of `size` classes along a shuffled ring, so that each is held out about as often."""
    ring = list(classes)
    Random(len(ring)).shuffle(ring)
    count = min(turns, len(ring))
    starts = [k * len(ring) // count for k in range(count)]
    return [tuple(ring[(s + j) % len(ring)] for j in range(size)) for s in starts]


def sets_in_turn(classes: int, size: int) -> list[tuple[int, ...]]:
    """Every set of `size` of the classes; where these are more than SETS, so many, always the same.

    Each in ascending order.
    """
    if comb(classes, size) <= SETS:
        return list(combinations(range(classes), size))
    draws, chosen = Random(0), set[tuple[int, ...]]()
    while len(chosen) < SETS:
        chosen.add(tuple(sorted(draws.sample(range(classes), size))))
    return sorted(chosen)
