"""What is published of a set with a name: its card, its splits with their counts, its files.

A `PublishedSet` is a row of the tables in `torchvision_sets.py` and `listed_sets.py`, which
`class_images.py` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np


@dataclass
class Items:
    """The examples of one split, undecoded: image files, or one array of pixels.

    images: paths, or uint8 (N, C, H, W). labels: a number of `classes` each, which stand in the
    published order.
    """

    images: Sequence[Path] | np.ndarray
    labels: Sequence[int]
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class PublishedSet:
    """A row.

    read: (folder of the set, split, options) -> its `Items`. counts: split (train, val, test) ->
    published number of images; of a set without splits "train" is all of it, and `protocol` says
    how it is divided: by seeded fractions of 60, 20 and 20 %, or into a number of training images
    of each class and the others. classes: their published number. places: names of its folder below
    a data root, the first as published. needs: what must lie in that folder. options: what can be
    chosen -> the counts that hold where something is. loader: of torchvision.datasets, which can
    download it; `probe` is an address of its server. md5: of the archive at `probe`, where
    torchvision knows none.
    """

    title: str
    citation: str
    licence: str
    url: str
    classes: int
    counts: Mapping[str, int]
    places: tuple[str, ...]
    needs: tuple[str, ...]
    read: Callable[[Path, str, Mapping[str, Any]], Items]
    protocol: Literal["published", "fractions", "per_class"] = "published"
    options: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    loader: str = ""
    probe: str = ""
    md5: str = ""

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.counts)
