"""Several labelled sources and one target: the `Data` of domain generalisation and its relatives.

    sources:                               # an ordered mapping of data sets, at least two
      mnist: {_target_: tlrun.data.sets.mnist.mnist}
      usps: {_target_: tlrun.data.sets.usps.usps}
    target: {_target_: tlrun.data.sets.mnistm.mnistm}

Every source is a domain under its own name, hence a stream; `Data.sources` lists them. "source" is
all of them, one after the other, so that what knows of one source only works as ever: a method that
draws from "source" sees each in proportion to its size. Classes are matched by name with those of
the first source, and the target stands behind the label firewall of `pair.py`. Without target
images (`target_images=none`) only its test set exists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from tlrun.config.ranges import Interpolation, Normalize, Number, Pixels, Positive
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.match import match_classes, match_columns
from tlrun.data.examples.pixels import JoinedPixels
from tlrun.data.examples.splits import Card, Splits, common_grey, warn_of_shared_images, with_val
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.problems.class_checks import check_source, check_target
from tlrun.data.problems.label_space import SourceFacts, Task
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import (
    Data,
    Domain,
    augmentations,
    load_splits,
    preprocess_of,
    stored_side,
    target_domain,
)
from tlrun.errors import ConfigError, DataError


def joined(sets: Sequence[ImageSet | None]) -> ImageSet | None:
    """Sets with labels of the same classes as one; None if any is lacking."""
    present = [examples for examples in sets if examples is not None]
    if len(present) < len(sets):
        return None
    labels = [examples.labels for examples in present if examples.labels is not None]
    if len(labels) < len(present):
        return ImageSet("source", JoinedPixels(present))
    return ImageSet("source", JoinedPixels(present), torch.cat(labels), present[0].classes)


def multi_source(
    *,
    options: Options,
    name: str = "multi_source",
    sources: Mapping[str, Mapping[str, Any]] | None = None,
    target: Mapping[str, Any] | None = None,
    size: Pixels | None = None,
    resize: Pixels | None = None,
    channels: Literal[1, 3] = 3,
    normalize: Normalize = "none",
    interpolation: Interpolation = "auto",
    mean: Sequence[Number] | None = None,
    std: Sequence[Positive] | None = None,
    augment: Mapping[str, Any] | None = None,
) -> Data:
    """sources, target: data sets, as in the module's example. augment: of `source` (all of them)
    and `target`. The rest: as of other data. Raises ConfigError or DataError.
    """
    if not sources or len(sources) < 2:
        raise ConfigError(
            "which sources? Give at least two, data.sources.<name> (a data set each); "
            "conf/data/digits_styles_digitsm.yaml is an example."
        )
    withheld = options.withholds_target
    for key in sources:
        if not re.fullmatch(r"[A-Za-z]\w*", key) or key in ("source", "target"):
            raise ConfigError(f"data.sources.{key}: name it in other words (letters, digits, _).")
    conf: dict[str, Any] = {
        "channels": channels,
        "normalize": normalize,
        "interpolation": interpolation,
        "mean": mean,
        "std": std,
    }
    conf |= {"size": size, "resize": resize, "augment": augment}
    stored = stored_side(conf)
    sources_read = load_sources(sources, options, stored, interpolation)
    leading = next(iter(sources_read.values()))
    first = leading.train
    kept = {"target": target, "size": stored, "interpolation": interpolation}
    held = load_splits(kept, "target", options)
    held = with_val(held, "target", options.seed)
    held = match_columns(held, leading)
    held = match_classes(held, first.classes or (), first.name, lacking=withheld)
    everyone = {**sources_read, "target": held}
    warn_of_shared_images(everyone)
    for splits in sources_read.values():
        check_source(splits)
    check_target(held, has_own_classes=False)
    unseen, labels_seen = target_domain(held, options)
    domains = {key: Domain.of(splits) for key, splits in sources_read.items()}
    domains |= {"source": all_sources(sources_read), "target": unseen}
    everything = domains["source"].train
    assert everything is not None
    note = "; all sources share that of `source`"
    shared = augmentations(augment, ("source", "target"), note)
    mixed = everything.subset(permutation(len(everything), "statistics"))  # of every source
    return Data(
        name=name,
        domains=domains,
        tasks={"class": Task("class", "class", first.classes or ())},
        preprocess=preprocess_of(conf, mixed, held.fit, common_grey(everyone)),
        augment={**shared, **dict.fromkeys(sources_read, shared["source"])},
        target_labels_seen=labels_seen,
        facts=SourceFacts(list(sources_read)),
        feature_names=leading.feature_names,
    )


def all_sources(sources: Mapping[str, Splits]) -> Domain:
    """The domain of all sources together."""
    return Domain(
        "source",
        joined([splits.train for splits in sources.values()]),
        joined([splits.val for splits in sources.values()]),
        joined([splits.test for splits in sources.values()]),
        joint_card(sources),
    )


def load_sources(
    sources: Mapping[str, Mapping[str, Any]],
    options: Options,
    size: int | None,
    interpolation: str | None = None,
) -> dict[str, Splits]:
    """Each source with a validation set, its classes in the order of the first one's."""
    splits_of: dict[str, Splits] = {}
    for key, block in sources.items():
        key_of_source = f"sources.{key}"
        kept = {key_of_source: block, "size": size, "interpolation": interpolation}
        splits = load_splits(kept, key_of_source, options)
        splits = with_val(splits, "source", options.seed)
        if splits.train.labels is None or splits.train.classes is None:
            raise DataError(
                f"the source '{splits.train.name}' has no labels; every source needs them."
            )
        first = next(iter(splits_of.values()), splits)
        classes = first.train.classes or ()
        splits = match_classes(splits, classes, first.train.name, "all sources")
        splits_of[key] = match_columns(splits, first)
    return splits_of


def joint_card(sources: Mapping[str, Splits]) -> Card:
    """Citations and licences of all sources, each once."""
    cards = [splits.card for splits in sources.values()]

    def each(values: Sequence[str]) -> str:
        return "; ".join(dict.fromkeys(value for value in values if value))

    return Card(
        " + ".join(sources),
        each([card.citation for card in cards]),
        each([card.licence for card in cards]),
        root=each([card.root for card in cards]),
    )
