"""Small sets of images in memory, and the configurations of problems that are made of them."""

from __future__ import annotations

from typing import Any

import torch

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Card, Splits
from tlrun.data.pipeline.preprocess import Preprocess

SET = "helpers.toy_sets.toy"
COUNT = 23  # images of `tiny_set`: no batch size divides it
PRE = Preprocess((1, 8, 8), "half")


def tiny_set(labels: bool = True) -> ImageSet:
    """`COUNT` grey images of 8 × 8, of four classes in turn."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (COUNT, 1, 8, 8), dtype=torch.uint8, generator=generator)
    if not labels:
        return ImageSet("toy", pixels, None, None)
    return ImageSet("toy", pixels, torch.arange(COUNT) % 4, "abcd")


def toy(
    *, seed=0, size=None, download=True, n=60, classes="abc", permute=None, shape=(1, 8, 8), **_
) -> Splits:
    """A set with `n` training and 30 test images; `permute` mixes the labels of one split."""
    generator = torch.Generator().manual_seed(n)
    sets = {}
    for split, count in (("train", n), ("test", 30)):
        pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
        labels = torch.arange(count) % len(classes)
        if permute == split:
            labels = labels[torch.randperm(count, generator=torch.Generator().manual_seed(3))]
        sets[split] = ImageSet(f"toy{classes}", pixels, labels, tuple(classes))
    return Splits(sets["train"], None, sets["test"], Card("toy", "none", "none"))


def pair_conf(**target: Any) -> dict[str, Any]:
    """A toy source and a toy target; `target` are arguments of the target."""
    return {
        "name": "toy",
        "source": {"_target_": SET, "n": 80},
        "target": {"_target_": SET, **target},
        "channels": 3,
        "normalize": "half",
    }


def sources_conf(target: dict[str, Any] | None = None, **sources: dict[str, Any]) -> dict[str, Any]:
    """Several toy sources, by default `a` and `b`, and a toy target."""
    sources = sources or {"a": {"n": 80}, "b": {"n": 40, "classes": "cab"}}
    return {
        "_target_": "tlrun.data.problems.multi_source.multi_source",
        "name": "toys",
        "sources": {name: {"_target_": SET, **block} for name, block in sources.items()},
        "target": {"_target_": SET, **(target or {})},
        "normalize": "half",
    }
