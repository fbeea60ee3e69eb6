"""Images and features for zero-shot learning: all bundled digits, and a synthetic world of animals.

The strokes of digits (`digit_strokes.csv`: seven segments, loops, straight or curved lines, bars,
openings, ends) were written down by hand before anything was trained with them.
"""

from __future__ import annotations

import numpy as np
import torch

from tlrun.config.ranges import Count, NotNegative, Pixels, Seed, Width
from tlrun.data.examples.attribute_table import PUBLISHED, find, read_table
from tlrun.data.examples.fit import fit_arrays
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Card, Splits
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.sets.digits import CITATION, CLASSES, LICENCE, SIDE, URL, enlarged
from tlrun.errors import ConfigError

TEST = 600


def all_digits(*, seed: int = 0, size: Pixels | None = SIDE, download: bool = True) -> Splits:
    """scikit-learn's 1,797 digits: 1,197 train, 600 test, by a fixed permutation."""
    images, labels = enlarged()
    pixels = torch.from_numpy(fit_arrays(images, size or SIDE, "squash"))
    everything = ImageSet("digits", pixels, torch.from_numpy(labels), CLASSES)
    order = permutation(len(labels), "digits_attributes")
    card = Card("digits", CITATION, LICENCE, URL, "scikit-learn")
    return Splits(everything.subset(order[TEST:]), None, everything.subset(order[:TEST]), card)


def awa2_world(
    *,
    seed: int = 0,
    size: Pixels | None = None,
    download: bool = True,
    per_class: Count = 60,
    dimensions: Width = 128,
    variation: NotNegative = 0.5,
    noise: NotNegative = 0.5,
    world: Seed = 0,
) -> Splits:
    """Synthetic features with the real attributes of AwA2's 50 animals: no image is needed.

    An animal's attributes are its class's row (per attribute to mean 0 and variance 1) plus
    individual variation; features = tanh(attributes times a random matrix) + noise: x (n, D)
    float32. world: seeds the map and the animals, `seed` plays no part. Half of each class is test.
    """
    if per_class < 2:
        raise ConfigError(f"data.images.per_class={per_class}: at least 2 are needed.")
    table = read_table(bundled="awa2")
    known = np.where(np.isnan(table.values), np.nanmean(table.values, 0), table.values)
    rows = (known - known.mean(0)) / known.std(0).clip(1e-9)
    draws = np.random.default_rng(world)
    label = np.repeat(np.arange(len(rows)), per_class)
    animals = rows[label] + variation * draws.standard_normal((len(label), rows.shape[1]))
    directions = draws.standard_normal((rows.shape[1], dimensions)) / np.sqrt(rows.shape[1])
    x = np.tanh(animals @ directions) + noise * draws.standard_normal((len(label), dimensions))
    everything = ImageSet(
        "awa2_world", torch.from_numpy(x.astype(np.float32)), torch.from_numpy(label), table.classes
    )
    tested = torch.from_numpy(np.arange(len(label)) % per_class < per_class // 2)
    card = Card(
        "awa2_world",
        "attributes: Xian et al., TPAMI 2018; Lampert et al., TPAMI 2014; features: synthetic",
        "free for research (attributes)",
        "",
        str(find(PUBLISHED["awa2"])),
    )
    train, test = (everything.subset(torch.nonzero(m).flatten()) for m in (~tested, tested))
    return Splits(train, None, test, card)
