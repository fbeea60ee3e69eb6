"""A folder per class, for episodes: FOLDER/{train,val,test}/<class>/*.jpg are base, validation and
novel classes; without such folders FOLDER/<class>/*.jpg are divided by seed, whole classes at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from tlrun.config.ranges import InsideZeroToOne, Interpolation, Number, Pixels, Range
from tlrun.data.examples.image_files import LeftOut
from tlrun.data.examples.splits import Card, class_order
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.problems.episodes import ClassSplits, rotated, split_classes
from tlrun.data.sets.folder import Reader, add_note
from tlrun.data.sets.listing import (
    SPLITS,
    Listing,
    open_folder,
    refuse_two_labels,
    scan,
    split_folders,
    unwrapped,
    without_copies,
)
from tlrun.errors import ConfigError, DataError

KEY = "data.classes"


def class_folder(
    *,
    seed: int = 0,
    size: Pixels = 84,
    root: str | None = None,
    channels: Literal[1, 3] = 3,
    fit: str = "crop",
    interpolation: Interpolation = "auto",
    grey_values: list[Number] | None = None,
    val: InsideZeroToOne = 0.2,
    novel: InsideZeroToOne = 0.2,
    rotations: Annotated[int, Range(1, 4)] = 1,
) -> ClassSplits:
    """val, novel: shares of the classes, where the folder is not divided. grey_values: as of
    `folder`. Raises ConfigError or DataError."""
    if root is None:
        raise ConfigError("where are the images? Set data.classes.root=FOLDER, a folder per class.")
    reader = Reader(KEY, size, channels, fit, grey_values, 2.0, interpolation)
    card = Card("classes", "your own images", "yours", "", str(root))
    left_out = LeftOut()
    place = unwrapped(open_folder(root, f"{KEY}.root"), left_out, stop_at_splits=True)
    folders = split_folders(place, left_out)
    if folders and (lacking := set(SPLITS) - set(folders)):
        raise DataError(
            f"'{place}' is divided but has no {sorted(lacking)[0]}/: give train/, val/ and test/, "
            "with other classes in each, or one folder per class."
        )
    folders = folders or {"train": place}
    listings = {split: scan(path, left_out) for split, path in folders.items()}
    add_note(card, KEY, f"left out: {left_out}" if left_out.reasons else "", left_out.only_hidden)
    names = _names(folders, listings, place)
    listings = {split: found.with_prints() for split, found in listings.items()}
    refuse_two_labels(listings, KEY)
    listings, notes = without_copies(listings, KEY, once=tuple(listings))
    for note in notes:
        add_note(card, KEY, note)
    sets, grey = reader.sets("classes", listings, names, card)
    if len(sets) == 1:
        groups = _groups(len(sets["train"].classes or ()), val, novel, seed)
        sets = dict(zip(SPLITS, split_classes(sets["train"], groups), strict=True))
    base, held, new = (rotated(sets[split], rotations) for split in SPLITS)
    return ClassSplits(base, held, new, card, fit, grey=grey)


def _names(
    folders: Mapping[str, Path], listings: Mapping[str, Listing], place: Path
) -> dict[str, list[str]]:
    """The classes of each split. DataError for a folder without classes or a class in two."""
    for split, listing in listings.items():
        if listing.labels is None:
            raise DataError(
                f"'{folders[split]}' is a flat folder of images: episodes need one per class."
            )
    names = {split: class_order(listing.labels or ()) for split, listing in listings.items()}
    every = [name for split_names in names.values() for name in split_names]
    if shared := sorted({name for name in every if every.count(name) > 1}):
        raise DataError(
            f"class '{shared[0]}' is in two of train, val and test of '{place}': "
            "episodes need new classes in each; give it one place."
        )
    return names


def _groups(count: int, val: float, novel: float, seed: int) -> list[list[int]]:
    """The class numbers of base, validation and novel classes, drawn by seed. ConfigError."""
    sizes = [max(1, round(count * share)) for share in (val, novel)]
    if sum(sizes) >= count:
        raise ConfigError(
            f"data.classes.val={val}, novel={novel}: shares of the {count} classes that leave some "
            "to learn from"
        )
    order = permutation(count, "classes", seed).tolist()
    groups = [order[sum(sizes) :], order[: sizes[0]], order[sizes[0] : sum(sizes)]]
    return [sorted(group) for group in groups]
