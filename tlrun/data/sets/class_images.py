"""A benchmark set of classes by its name: `data=pets`, `data=cifar10` (`tlrun list data`).

Published splits stay as they are, copies among them included: figures are then those of other
papers' test images. Where a set has no validation images they are cut off its training set, and
where it has no splits at all (EuroSAT, Caltech-101) its protocol is drawn by seed.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch

from tlrun.config.ranges import Count, Interpolation, NotNegative, Pixels, Range
from tlrun.data.examples.decode import GreyRange
from tlrun.data.examples.download import cached_images, data_roots, missing
from tlrun.data.examples.fit import BILINEAR, check_fit, fit_arrays
from tlrun.data.examples.image_files import text_of
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.pixels import ResizedPixels
from tlrun.data.examples.splits import Card, Splits, carve, draw_per_class
from tlrun.data.sets import listed_sets, torchvision_sets
from tlrun.data.sets.folder import Reader, add_note, contents
from tlrun.data.sets.listing import Listing
from tlrun.data.sets.published import Items, PublishedSet
from tlrun.errors import ConfigError, DataError, did_you_mean

log = logging.getLogger("tlrun")

SETS: dict[str, PublishedSet] = {**torchvision_sets.SETS, **listed_sets.SETS}


def class_images(
    *,
    set: str,  # the key that users type
    seed: int = 0,
    size: Pixels | None = 224,
    download: bool = True,
    name: str = "target",
    root: str | None = None,
    channels: Literal[1, 3] = 3,
    fit: str = "crop",
    interpolation: Interpolation = "auto",
    trainval: bool = False,
    partition: Annotated[int, Range(1, 10)] | None = None,
    level: Literal["variant", "family", "manufacturer"] | None = None,
    fold: Annotated[int, Range(0, 9)] | None = None,
    per_class: Count | None = None,
    stratify: bool = False,
    memory_gb: NotNegative = 2.0,
) -> Splits:
    """set: a row of the tables. root: its folder, or one that holds it; None looks into the data
    folders. name: the domain, for messages. trainval: train on the published training and
    validation images, as papers on fine-tuning do. partition: of DTD's ten. level:
    of FGVC-Aircraft's classes. fold: of STL-10's ten, 1,000 training images each. per_class:
    training images of each class of Caltech-101 (30), the others are tested on. stratify: what is
    cut by seed keeps the shares of the classes.

    Raises ConfigError, or DataError that says which files to put where.
    """
    row = SETS.get(set)
    if row is None:
        raise ConfigError(f"data.{name}.set={set}: {did_you_mean(set, SETS)}")
    check_fit(fit)
    given = {"partition": partition, "level": level, "fold": fold, "per_class": per_class}
    options = _options(row, set, f"data.{name}", given)
    folder = locate(row, root, f"data.{name}.root", download)
    items = {split: row.read(folder, split, options) for split in row.splits}
    card = Card(set, row.citation, row.licence, row.url, str(folder))
    for note in count_notes(row, items, options):
        add_note(card, f"data.{name}", note)
    if trainval:
        items = _with_val_in_train(items, f"data.{name}", row)
    reader = Reader(f"data.{name}", size, channels, fit, None, memory_gb, interpolation)
    parts = replace(_splits(set, items, card, reader), stratify=stratify)
    if row.protocol == "fractions":
        return _cut(parts, seed)
    if row.protocol == "per_class":
        return _draw(parts, per_class or 30, seed, f"data.{name}.per_class")
    return parts


def _options(row: PublishedSet, name: str, key: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the user chose. ConfigError where the set does not let it be chosen."""
    chosen = {option: value for option, value in given.items() if value is not None}
    if wrong := next((option for option in chosen if option not in row.options), None):
        raise ConfigError(f"{key}.{wrong}: {name} has no such choice; leave it out.")
    return chosen


# ---- where the files lie ----------------------------------------------------------------------


def locate(row: PublishedSet, root: str | None, key: str, download: bool) -> Path:
    """The folder of a set, downloaded if it must and may be. Raises one DataError otherwise."""
    roots = [Path(root).expanduser()] if root else data_roots()
    candidates = [place / name for place in roots for name in row.places]
    if root:
        candidates.insert(0, roots[0])
    incomplete = ""
    for folder in candidates:
        lacking = [need for need in row.needs if not (folder / need).exists()]
        if not lacking:
            return folder
        if len(lacking) < len(row.needs):
            incomplete = incomplete or (
                f"'{text_of(folder)}' is not all of {row.title}: it lacks {lacking[0]}; add it "
                f"({row.url})."
            )
    needs = [f"{row.places[0]}/{need}" for need in row.needs]
    if root:
        raise DataError(
            incomplete
            or f"{key}={root} does not hold {row.title}: {', '.join(row.needs)} should lie there, "
            f"or in a folder {row.places[0]} ({row.url})."
        )
    tried = []
    if download and row.loader and row.probe:
        try:
            return torchvision_sets.download(row)
        except (OSError, ValueError) as error:
            tried.append(f"{row.probe} ({getattr(error, 'reason', None) or error})")
    if incomplete:
        raise DataError(incomplete)
    note = f" (they come from {row.url})"
    raise missing(row.title, row.places, tried, needs=needs, note=note)


# ---- what was read ----------------------------------------------------------------------------


def count_notes(
    row: PublishedSet, items: Mapping[str, Items], options: Mapping[str, Any]
) -> list[str]:
    """A line per split whose number of images is not the published one, and one of the classes."""
    published = dict(row.counts)
    for option in options:
        published.update(row.options[option])
    notes = [
        f"{len(found):,} {split} images, not the published {published[split]:,}"
        for split, found in items.items()
        if len(found) != published[split]
    ]
    classes = {len(found.classes) for found in items.values()}
    if "level" not in options and classes != {row.classes}:
        notes.append(f"{max(classes):,} classes, not the published {row.classes:,}")
    return notes


def _with_val_in_train(items: Mapping[str, Items], key: str, row: PublishedSet) -> dict[str, Items]:
    if "val" not in items:
        raise ConfigError(f"{key}.trainval: {row.title} has no validation images; leave it out.")
    train, val = items["train"], items["val"]
    joined = Items([*train.images, *val.images], [*train.labels, *val.labels], train.classes)
    return {"train": joined, "test": items["test"]}


def _splits(name: str, items: Mapping[str, Items], card: Card, reader: Reader) -> Splits:
    sets, grey, content = image_sets(name, items, card, reader)
    train, val, test = sets["train"], sets.get("val"), sets.get("test")
    return Splits(train, val, test, card, reader.fit, grey, content)


def image_sets(
    name: str, items: Mapping[str, Items], card: Card, reader: Reader
) -> tuple[dict[str, ImageSet], GreyRange, dict[str, str]]:
    """The sets of all splits, the rule for deep grey, and path -> hash of the content of files.

    Arrays are brought to size and kept in the cache, above memory_gb when they are read; files go
    through the reader of `folder`.
    """
    first = items["train"].images
    if isinstance(first, np.ndarray):
        count = sum(len(found) for found in items.values())
        in_memory = _fits(count, first.shape[1:], card, reader)
        sets = {s: _array_set(name, s, found, reader, in_memory) for s, found in items.items()}
        return sets, {}, {}
    listings = {split: _listing(found).with_prints() for split, found in items.items()}
    for note in copy_notes(listings):
        add_note(card, reader.key, note, quietly=True)
    classes = {split: found.classes for split, found in items.items()}
    sets, grey = reader.sets(name, listings, classes, card)
    return sets, grey, contents(listings.values())


def _cut(whole: Splits, seed: int) -> Splits:
    """60, 20 and 20 % of a set without splits, by seed, and by label only to stratify."""
    n = len(whole.train)
    rest, test = carve(whole.train, n // 5, seed, "test", whole.content, whole.stratify)
    train, val = carve(rest, n // 5, seed, "val", whole.content, whole.stratify)
    return replace(whole, train=train, val=val, test=test)


def _draw(whole: Splits, k: int, seed: int, key: str) -> Splits:
    """k training images of each class by seed; all others are the test."""
    chosen = draw_per_class(whole.train, k, seed, key)
    others = torch.ones(len(whole.train), dtype=torch.bool)
    others[chosen] = False
    test = whole.train.subset(others.nonzero().flatten())
    return replace(whole, train=whole.train.subset(chosen), test=test)


def _listing(items: Items) -> Listing:
    return Listing([Path(f) for f in items.images], [items.classes[i] for i in items.labels])


def _fits(count: int, shape: Sequence[int], card: Card, reader: Reader) -> bool:
    """Whether `count` images (C, H, W) may be brought to size all at once; a note says if not."""
    size = reader.size or shape[-1]
    if size == shape[-1] or count * shape[0] * size * size <= reader.memory_gb * 1e9:
        return True
    note = (
        f"{count:,} images of {size} pixels exceed memory_gb={reader.memory_gb:g}: they stay as "
        "small as they are and are brought to size each time they are seen"
    )
    add_note(card, reader.key, note, quietly=True)
    return False


def _array_set(name: str, split: str, items: Items, reader: Reader, in_memory: bool) -> ImageSet:
    pixels = np.ascontiguousarray(items.images)
    size = reader.size or pixels.shape[-1]
    fit, how = reader.fit, reader.interpolation
    if not in_memory:
        small = ResizedPixels(pixels, size, fit, how)
        return ImageSet(name, small, torch.tensor(items.labels), items.classes)
    rule = () if how == BILINEAR else (how,)
    recipe = (hashlib.sha256(pixels.data).hexdigest(), size, fit, *rule)
    images = cached_images(f"{name}-{split}", recipe, lambda: fit_arrays(pixels, size, fit, how))
    return ImageSet(name, images, torch.tensor(items.labels), items.classes)


def copy_notes(listings: Mapping[str, Listing]) -> list[str]:
    """How many files of equal content the published splits share; they are kept."""
    contents = {s: {p.content for p in listing.prints} for s, listing in listings.items()}
    shared = len(contents["train"] & contents.get("test", frozenset()))
    return [f"{shared:,} test images are training images too, as published"] if shared else []
