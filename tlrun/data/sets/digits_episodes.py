"""scikit-learn's digits for episodes: some digits to learn from, others to be learned in a glance.

The 1,797 bundled digits (see `digits.py`), upright and turned by 90 degrees, which are classes of
their own. The default groups keep 6 and 9 together, since one turned by 180 degrees is the other,
and a class and its turn apart: 8 base, 6 validation and 6 novel classes of about 180 images each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch

from tlrun.config.ranges import Pixels, Range
from tlrun.data.examples.fit import fit_arrays
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Card
from tlrun.data.problems.episodes import ClassSplits, rotated, split_classes
from tlrun.data.sets.digits import CLASSES, LICENCE, URL, enlarged
from tlrun.errors import ConfigError

CITATION = "Alpaydin and Kaynak, UCI Optical Recognition of Handwritten Digits, 1998"


Digit = Annotated[int, Range(0, 9)]


def digits(
    *,
    seed: int = 0,
    size: Pixels = 28,
    base: Sequence[Digit] = (0, 1, 5, 8),
    val: Sequence[Digit] = (2, 6, 9),
    novel: Sequence[Digit] = (3, 4, 7),
    rotations: Annotated[int, Range(1, 4)] = 2,
) -> ClassSplits:
    """Independent of `seed`. Raises ConfigError unless the groups are disjoint digits."""
    groups = [list(base), list(val), list(novel)]
    named = [digit for group in groups for digit in group]
    if len(set(named)) < len(named) or not all(groups):
        raise ConfigError(
            "data.classes: base, val and novel must name digits 0 to 9, none of them twice"
        )
    images, labels = enlarged()
    pixels = torch.from_numpy(fit_arrays(images, size, "squash"))
    examples = ImageSet("digits", pixels, torch.from_numpy(labels), CLASSES)
    sets = [rotated(part, rotations) for part in split_classes(examples, groups)]
    card = Card("digits", CITATION, LICENCE.partition(" (")[0], URL, "scikit-learn")
    return ClassSplits(sets[0], sets[1], sets[2], card)
