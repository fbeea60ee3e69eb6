"""The classes of one domain to learn from, those of another to be learned in a glance: episodes.

    data=pacs_episodes       base: the classes of photo; validation: of cartoon; novel: of sketch

The things are the same, so a class of another domain is new by its style alone; it is named after
both ("sketch dog"), and no method is told that "photo dog" is the same thing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch

from tlrun.config.ranges import Interpolation, NotNegative, Number, Pixels
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.pixels import JoinedPixels
from tlrun.data.problems.episodes import ClassSplits
from tlrun.data.sets.domain_images import domain_images
from tlrun.data.sets.domain_table import domain_set
from tlrun.errors import ConfigError, did_you_mean


def domain_classes(
    *,
    seed: int = 0,
    size: Pixels = 224,
    download: bool = True,
    set: str | None = None,  # the key that users type
    base: Sequence[str] = (),
    val: Sequence[str] = (),
    novel: Sequence[str] = (),
    root: str | None = None,
    channels: Literal[1, 3] = 3,
    fit: str = "crop",
    interpolation: Interpolation = "auto",
    grey_values: list[Number] | None = None,
    memory_gb: NotNegative = 2.0,
) -> ClassSplits:
    """base, val, novel: domains, each class of each with all its images. The rest: as of
    `domain_images`. Raises ConfigError unless the groups are disjoint, DataError as there."""
    groups = {"base": list(base), "val": list(val), "novel": list(novel)}
    named = [domain for group in groups.values() for domain in group]
    if len({*named}) < len(named) or not all(groups.values()):
        raise ConfigError(
            "data.classes: base, val and novel must name domains, none of them twice: "
            "data.classes.base=[photo] data.classes.val=[cartoon] data.classes.novel=[sketch]"
        )
    known: Collection[str] = named if set is None else domain_set(set).counts
    for domain in named:
        if domain not in known:
            meant = did_you_mean(domain, known)
            raise ConfigError(f"data.classes: {set} has no domain {domain}: {meant}")
    parts = {
        domain: domain_images(
            seed=seed,
            size=size,
            download=download,
            set=set,
            domains=[domain],
            root=root,
            channels=channels,
            fit=fit,
            interpolation=interpolation,
            grey_values=grey_values,
            val_fraction=0.0,
            transductive=True,
            memory_gb=memory_gb,
        )
        for domain in named
    }
    joined = {name: _joined(name, {d: parts[d].train for d in groups[name]}) for name in groups}
    first = parts[named[0]]
    notes = [note for domain in named for note in parts[domain].card.notes]
    name = f"{set or 'domains'} {', '.join(named)}"
    card = replace(first.card, name=name, notes=list(dict.fromkeys(notes)))
    return ClassSplits(
        joined["base"], joined["val"], joined["novel"], card, first.fit, grey=first.grey
    )


def _joined(name: str, domains: Mapping[str, ImageSet]) -> ImageSet:
    """The domains one after the other; a class of each is a class of its own."""
    labels, classes = [], list[str]()
    for domain, examples in domains.items():
        assert examples.labels is not None
        labels.append(examples.labels + len(classes))
        classes += [f"{domain} {label}" for label in examples.classes or ()]
    paths = [path for examples in domains.values() for path in examples.paths or ()]
    pixels = JoinedPixels(list(domains.values()))
    return ImageSet(name, pixels, torch.cat(labels), classes, paths or None)
