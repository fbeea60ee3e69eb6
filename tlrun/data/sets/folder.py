"""Your own images: a folder per class, a list of `path label`, or images without any label.

    root/dog/1.jpg root/cat/2.png                  labels are the names of the class folders
    root/train/dog/1.jpg root/test/dog/2.jpg       own splits (train, val, test)
    list.txt with lines `path label` or `path`     paths relative to root, else to the list
    root/1.jpg root/2.jpg                          no labels: for a target

Images are ordered by their content, never by path: path order would tell the class. Below
`memory_gb` they are decoded once to a cache; above it they stay files, each of which is decoded
when it is first seen, ahead of its step (`trainer.workers`), and kept in a file of the cache.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tlrun.config.ranges import BelowOne, Interpolation, NotNegative, Number, Pixels
from tlrun.data.examples.decode import FULL, REPAIR, GreyRange, grey_range, read_image
from tlrun.data.examples.decoded_file import DecodedFile, why_not
from tlrun.data.examples.download import cached_images
from tlrun.data.examples.fit import BILINEAR, check_fit, check_interpolation
from tlrun.data.examples.image_files import LeftOut, text_of
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.pixels import FilePixels
from tlrun.data.examples.splits import Card, Splits, class_order, cut
from tlrun.data.sets.listing import (
    Listing,
    open_folder,
    read_list,
    refuse_two_labels,
    scan,
    split_folders,
    unwrapped,
    without_copies,
)
from tlrun.errors import ConfigError, DataError

log = logging.getLogger("tlrun")

Place = Literal["memory", "disk", "files"]  # where decoded pixels lie; with files: nowhere
DECODING = 2  # raised when the same file becomes other pixels: older caches are not used then


def folder(
    *,
    seed: int = 0,
    size: Pixels | None = 64,
    download: bool = True,
    name: str = "folder",
    root: str | None = None,
    list: str | None = None,  # the key that users type
    test: Mapping[str, Any] | None = None,
    channels: Literal[1, 3] = 3,
    fit: str = "crop",
    interpolation: Interpolation = "auto",
    grey_values: list[Number] | None = None,
    val_fraction: BelowOne = 0.1,
    test_fraction: BelowOne = 0.2,
    transductive: bool = False,
    stratify: bool = False,
    skip_unreadable: bool = False,
    memory_gb: NotNegative = 2.0,
    tested_alone: bool = False,
) -> Splits:
    """See the module. name: the domain, for messages (data.<name>.root=...).

    test: {root, list} of the test set, if it lies elsewhere. grey_values: black and white of grey
    images of more than 8 bits; null = from all of them (`decode.grey_range`). Without own splits,
    seeded fractions are cut, never by label but with stratify=true, which keeps the shares of the
    classes; transductive=true trains and tests on all images instead. A set without labels is
    predicted whole. tested_alone: a class may have test images alone. Raises ConfigError or
    DataError that names the file or class.
    """
    key = f"data.{name}"
    reader = Reader(key, size, channels, fit, grey_values, memory_gb, interpolation, True)
    card = Card(name, "your own images", "yours", "", str(root or list))
    left_out = LeftOut(skip_unreadable, key=key)
    listings = folder_listings(name, root, list, test, left_out)
    add_note(card, key, f"left out: {left_out}" if left_out.reasons else "", left_out.only_hidden)
    listings = fingerprinted(listings, key, skip_unreadable)
    listings = own_images(listings, key, card, transductive)
    classes = _classes(listings, name, tested_alone)
    return reader.splits(
        name,
        listings,
        classes,
        card,
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        transductive=transductive,
        stratify=stratify,
    )


def fingerprinted(
    listings: Mapping[str, Listing], key: str, skip_unreadable: bool
) -> dict[str, Listing]:
    """The listings with a hash of each file, those left out that cannot be read if so asked."""
    if skip_unreadable:
        listings = {split: readable(listing, key) for split, listing in listings.items()}
    return {split: listing.with_prints() for split, listing in listings.items()}


def own_images(
    listings: Mapping[str, Listing], key: str, card: Card, transductive: bool
) -> dict[str, Listing]:
    """Images that nobody has published: one label for each, and none in two of the splits."""
    refuse_two_labels(listings, key)
    if transductive:
        return dict(listings)
    apart, notes = without_copies(listings, key)
    for note in notes:
        add_note(card, key, note)
    return apart


def contents(listings: Iterable[Listing]) -> dict[str, str]:
    """path -> hash of the content of every file."""
    return {
        text_of(file): fingerprint.content
        for listing in listings
        for file, fingerprint in zip(listing.files, listing.prints, strict=True)
    }


def add_note(card: Card, key: str, note: str, quietly: bool = False) -> None:
    """What a reader of the card and of the log should know of a set; nothing if empty."""
    if note:
        card.notes.append(note)
        log.log(logging.INFO if quietly else logging.WARNING, "%s: %s", key, note)


@dataclass
class Reader:
    """How listed files become sets. key: of the configuration, for messages. grey_values: black and
    white of deep grey, None = from the images. memory_gb: above it they stay files. may_skip:
    whether the set has the key `skip_unreadable`."""

    key: str
    size: int | None
    channels: int
    fit: str
    grey_values: Sequence[float] | None
    memory_gb: float
    interpolation: str = BILINEAR
    may_skip: bool = False

    @property
    def advice(self) -> str:
        """What to do about a file that cannot be decoded."""
        skip = f", or leave such files out: {self.key}.skip_unreadable=true"
        return REPAIR + skip * self.may_skip

    def __post_init__(self) -> None:
        check_fit(self.fit)
        self.interpolation = check_interpolation(self.interpolation)
        if self.size is None or self.size < 1:
            raise ConfigError(
                f"data.size={self.size}: give the side in pixels to which images are brought."
            )
        given = self.grey_values
        if given is not None and (len(given) != 2 or not given[0] < given[1]):
            raise ConfigError(
                f"{self.key}.grey_values={[*given]}: give two numbers, those of black and of a "
                "larger one of white"
            )

    def sets(
        self,
        name: str,
        listings: Mapping[str, Listing],
        classes: Mapping[str, Sequence[str] | None],
        card: Card,
    ) -> tuple[dict[str, ImageSet], GreyRange]:
        """A set per listing, under one rule for deep grey, which is returned and noted."""
        assert self.size is not None
        grey = grey_range(known.extremes for f in listings.values() for known in f.prints)
        if self.grey_values is not None:
            black, white = self.grey_values
            grey = dict.fromkeys(grey, (float(black), float(white)))
        for black, white in grey.values():
            add_note(
                card,
                self.key,
                f"grey of more than 8 bits: {black:g} is black, {white:g} is white "
                f"({self.key}.grey_values=[{black:g},{white:g}])",
                quietly=True,
            )
        count = sum(len(found.files) for found in listings.values())
        shape = (self.channels, self.size, self.size)
        nbytes = count * int(np.prod(shape))
        place: Place = "memory"
        if nbytes > self.memory_gb * 1e9:
            why = why_not(nbytes)
            place = "files" if why else "disk"
            card.notes.append(
                f"{count:,} images exceed memory_gb={self.memory_gb:g}: they stay files, "
                + (f"decoded each time they are seen ({why})" if why else "each decoded once")
            )
        rules = (self.fit, self.interpolation, grey, place, self.advice)
        return {
            s: _examples(name, found, classes[s], shape, *rules) for s, found in listings.items()
        }, grey

    def splits(
        self,
        name: str,
        listings: Mapping[str, Listing],
        classes: Sequence[str],
        card: Card,
        *,
        seed: int,
        val_fraction: float,
        test_fraction: float,
        transductive: bool,
        stratify: bool = False,
    ) -> Splits:
        """The sets of one domain: those that are listed, and seeded fractions for the others.

        A training set without labels and a test of its own is predicted whole.
        """
        split_classes = {s: classes if listing.labels else None for s, listing in listings.items()}
        sets, grey = self.sets(name, listings, split_classes, card)
        train, val, tested = sets["train"], sets.get("val"), sets.get("test")
        content = contents(listings.values())
        whole = train if tested is None else tested
        by_class = stratify and train.labels is not None and not transductive
        parts = Splits(train, val, whole, card, self.fit, grey, content, stratify=by_class)
        if tested is not None or (train.labels is None and not transductive):
            return parts
        made = cut(
            train,
            card,
            seed,
            val=0.0 if val else val_fraction,
            test=test_fraction,
            transductive=transductive,
            key=self.key,
            stratify=stratify,
        )
        return replace(parts, train=made.train, val=val or made.val, test=made.test)


def folder_listings(
    name: str,
    root: str | None,
    listed: str | None,
    test: Mapping[str, Any] | None,
    left_out: LeftOut,
) -> dict[str, Listing]:
    """Split -> listing: "train" always, "val" and "test" where the user has them."""
    if not root and not listed:
        alone = ""
        if name == "source":
            alone = "; to fine-tune without a source, set only data.target.root=FOLDER"
        raise ConfigError(
            f"where are the images? Set data.{name}.root=FOLDER or data.{name}.list=FILE{alone}."
        )
    out: dict[str, Listing] = {}
    base = open_folder(root, f"data.{name}.root") if root else None
    if listed:
        out["train"] = read_list(Path(listed).expanduser(), base)
    elif base is not None:
        base = unwrapped(base, left_out, stop_at_splits=True)
        places = split_folders(base, left_out) or {"train": base}
        out = {split: scan(place, left_out) for split, place in places.items()}
    if test and test.get("list"):
        place = open_folder(test["root"], f"data.{name}.test.root") if test.get("root") else None
        out["test"] = read_list(Path(test["list"]).expanduser(), place)
    elif test and test.get("root"):
        out["test"] = scan(open_folder(test["root"], f"data.{name}.test.root"), left_out)
    return out


def _classes(listings: Mapping[str, Listing], name: str, tested_alone: bool) -> list[str]:
    """The names of all labels; a labelled training set must have each, if not `tested_alone`."""
    classes = class_order(label for found in listings.values() for label in found.labels or ())
    train = listings["train"].labels
    lacking = [c for c in classes if train and c not in set(train)]
    if lacking and not tested_alone:
        raise DataError(
            f"data.{name}: class '{lacking[0]}' has no training image; add some or remove the "
            "class."
        )
    return classes


def readable(listing: Listing, key: str) -> Listing:
    """Without the files that cannot be decoded; each is named in a warning."""

    def check(file: Path) -> bool:
        try:
            read_image(file, 1, 3, "squash", grey=FULL)
        except DataError as error:
            log.warning("%s: left out (skip_unreadable=true): %s", key, error)
            return False
        return True

    with ThreadPoolExecutor() as pool:
        good = [i for i, fine in enumerate(pool.map(check, listing.files)) if fine]
    if not good:
        raise DataError(f"{key}: not one of {len(listing.files)} images can be read.")
    return listing.subset(good)


def _examples(
    name: str,
    listing: Listing,
    classes: Sequence[str] | None,
    shape: tuple[int, int, int],
    fit: str,
    interpolation: str,
    grey: GreyRange,
    place: Place,
    advice: str,
) -> ImageSet:
    names = [fingerprint.content for fingerprint in listing.prints]
    order = sorted(range(len(names)), key=lambda i: (names[i], str(listing.files[i])))
    files, content = [listing.files[i] for i in order], [names[i] for i in order]
    labels = None
    if classes is not None and listing.labels is not None:
        number = {c: i for i, c in enumerate(classes)}
        labels = torch.tensor([number[listing.labels[i]] for i in order])
    channels, size, _ = shape
    rule = () if interpolation == BILINEAR else (interpolation,)
    recipe = (content, shape, fit, sorted(grey.items()), DECODING, *rule)
    if place != "memory":
        kept = DecodedFile(f"folder-{name}", recipe, len(files), shape) if place == "disk" else None
        pixels = FilePixels(files, content, shape, fit, grey, interpolation, kept, advice)
        return ImageSet(name, pixels, labels, classes, pixels.paths)

    def decode() -> np.ndarray:
        def read(file: Path) -> np.ndarray:
            return read_image(file, size, channels, fit, advice, grey, interpolation)

        with ThreadPoolExecutor() as pool:  # PIL decodes without the GIL
            return np.stack([*pool.map(read, files)])

    images = cached_images(f"folder-{name}", recipe, decode)
    return ImageSet(name, images, labels, classes, [text_of(f) for f in files])
