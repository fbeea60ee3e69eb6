"""The bundled digits in three styles: several sources to generalise from, without a download.

The source's digits of `digits.py` (none of them is among the target's) are dealt out in turn, so
that the styles share no digit: 200 train, 32 or 33 val, 66 or 67 test of each. The recipe was fixed
before any training with it:

* plain: white on black, as they are.
* inverted: 255 - v.
* coloured: paper + (ink - paper) · v / 255 per channel; ink and paper are hashed bytes (0..255) of
  each image and channel.

Nothing depends on the seed of a run.
"""

from __future__ import annotations

import numpy as np
import torch

from tlrun.config.ranges import Pixels
from tlrun.data.examples.fit import fit_arrays
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Card, Splits
from tlrun.data.pipeline.hashing import integers
from tlrun.data.sets.digits import CITATION, CLASSES, LICENCE, SIDE, URL, enlarged, part
from tlrun.errors import ConfigError, did_you_mean

STYLES = ("plain", "inverted", "coloured")
KEY = "digit_styles"


def styled(
    *, style: str, seed: int = 0, size: Pixels | None = SIDE, download: bool = True
) -> Splits:
    """A third of the source's digits in a style. Raises ConfigError for an unknown one."""
    if style not in STYLES:
        raise ConfigError(f"style={style}: {did_you_mean(style, STYLES)}")
    images, labels = enlarged()
    sets = {}
    for split in ("train", "val", "test"):
        index = part("source", split)[STYLES.index(style) :: len(STYLES)]
        pixels = fit_arrays(paint(images[index], style, split), size or SIDE, "squash")
        sets[split] = ImageSet(
            f"digits_{style}", torch.from_numpy(pixels), torch.from_numpy(labels[index]), CLASSES
        )
    card = Card(
        f"digits_{style}",
        CITATION.partition(";")[0],
        LICENCE.partition(" (")[0],
        URL,
        "scikit-learn",
    )
    return Splits(sets["train"], sets["val"], sets["test"], card)


def paint(digits: np.ndarray, style: str, split: str) -> np.ndarray:
    """uint8 (n, 1, H, W) -> uint8 (n, 1 or 3, H, W)."""
    if style == "plain":
        return digits
    if style == "inverted":
        return 255 - digits
    ink, paper = (
        integers(3 * len(digits), 256, KEY, split, what).numpy().reshape(-1, 3, 1, 1)
        for what in ("ink", "paper")
    )
    return np.rint(paper + (ink - paper) * (digits / 255)).astype(np.uint8)
