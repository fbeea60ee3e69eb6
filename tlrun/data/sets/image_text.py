"""Features of images near text vectors, in one space: a stand-in for CLIP's, without any download.

    centre_k = mean_p t_kp + gap · ε_k,      x = centre_k + variation · ε,      ε standard normal

t_kp: three made-up text vectors of each of six classes (`texts/image_text.csv`, 32 numbers each, in
which a text's own deviation outweighs what the texts of its class share). They stay; `world` draws
the centres and the images.
"""

from __future__ import annotations

import numpy as np
import torch

from tlrun.config.ranges import Count, NotNegative, Pixels, Seed
from tlrun.data.examples.class_vectors import packaged
from tlrun.data.examples.feature_file import read_features
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Card, Splits, cut
from tlrun.errors import ConfigError

NAME = "image_text"


def image_text(
    *,
    seed: int = 0,
    size: Pixels | None = None,
    download: bool = True,
    per_class: Count = 200,
    gap: NotNegative = 0.8,
    variation: NotNegative = 2.0,
    world: Seed = 0,
) -> Splits:
    """x (6 · per_class, 32) float32; a fifth is test, by `seed`. world: seeds the images.

    gap: of a class's images from its texts. variation: of an image about its class.
    """
    if per_class < 10:
        raise ConfigError(f"data.target.per_class={per_class}: at least 10 are needed.")
    file = read_features(packaged(NAME))
    names = np.asarray(file.labels)
    classes = tuple(dict.fromkeys(names.tolist()))
    means = np.stack([file.x[names == name].mean(0) for name in classes])
    draws = np.random.default_rng(world)
    label = np.arange(per_class * len(classes)) % len(classes)
    centres = means + gap * draws.standard_normal(means.shape)
    x = centres[label] + variation * draws.standard_normal((len(label), means.shape[1]))
    everything = ImageSet(
        NAME, torch.from_numpy(x.astype(np.float32)), torch.from_numpy(label), classes
    )
    return cut(everything, Card(NAME, "synthetic", "MIT", "", "the package"), seed)
