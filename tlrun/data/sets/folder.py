"""Your own images: a folder per class, a list of `path label`, or images without any label.

    root/dog/1.jpg root/cat/2.png                  labels are the names of the class folders
    root/train/dog/1.jpg root/test/dog/2.jpg       own splits (train, val, test)
    list.txt with lines `path label` or `path`     paths relative to root, else to the list
    root/1.jpg root/2.jpg                          no labels: for a target

Images are ordered by their content, never by path: path order would tell the class. Below
`memory_gb` they are decoded once to a cache; above it they stay files, which the workers of a
stream decode.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tlrun.data.download import cache_root, cached_images, file_hash, locked
from tlrun.data.fit import SKIP, check_fit, read_image
from tlrun.data.image_set import FileImageSet, ImageSet
from tlrun.data.splits import Card, Splits, cut
from tlrun.errors import ConfigError, DataError
from tlrun.ranges import BelowOne, NotNegative, Pixels

log = logging.getLogger("tlrun")

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass
class Listing:
    """Files with a label name each, or None for images without labels."""

    files: list[Path]
    labels: list[str] | None


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
    val_fraction: BelowOne = 0.1,
    test_fraction: BelowOne = 0.2,
    transductive: bool = False,
    skip_unreadable: bool = False,
    memory_gb: NotNegative = 2.0,
) -> Splits:
    """See the module. name: the domain, for messages (data.<name>.root=...).

    test: {root, list} of the test set, if it lies elsewhere. Without own splits, seeded fractions
    are cut, never by label; transductive=true trains and tests on all images instead. A set without
    labels is predicted whole. Raises ConfigError or DataError that names the file or class.
    """
    check_fit(fit)
    if size is None or size < 1:
        raise ConfigError(f"data.size={size}: give the side in pixels to which images are brought.")
    listings = _listings(name, root, list, test)
    if skip_unreadable:
        listings = {s: _readable(found, f"data.{name}") for s, found in listings.items()}
    classes = _classes(listings, name)
    count = sum(len(found.files) for found in listings.values())
    in_memory = count * channels * size * size <= memory_gb * 1e9
    sets = {
        s: _examples(
            name, found, classes if found.labels else None, (channels, size, size), fit, in_memory
        )
        for s, found in listings.items()
    }
    card = Card(name, "your own images", "yours", "", str(root or list))
    if not in_memory:
        card.notes.append(f"{count:,} images exceed memory_gb={memory_gb:g}: decoded by workers")
    train, val, tested = sets["train"], sets.get("val"), sets.get("test")
    if tested is not None:
        return Splits(train, val, tested, card, fit)
    if train.labels is None and not transductive:
        return Splits(train, val, train, card, fit)
    parts = cut(
        train,
        card,
        seed,
        val=0.0 if val else val_fraction,
        test=test_fraction,
        transductive=transductive,
        fit=fit,
    )
    return Splits(parts.train, val or parts.val, parts.test, card, fit)


def _listings(
    name: str, root: str | None, listed: str | None, test: Mapping[str, Any] | None
) -> dict[str, Listing]:
    """Split -> listing: "train" always, "val" and "test" where the user has them."""
    if not root and not listed:
        raise ConfigError(
            f"where are the images? Set data.{name}.root=FOLDER or data.{name}.list=FILE."
        )
    out: dict[str, Listing] = {}
    base = _folder(root, f"data.{name}.root") if root else None
    if listed:
        out["train"] = _read_list(Path(listed).expanduser(), base)
    elif base is not None and _has_splits(base):
        for split, names in SPLITS.items():
            for found in (base / n for n in names):
                if found.is_dir():
                    out[split] = _scan(found)
    elif base is not None:
        out["train"] = _scan(base)
    if test and (test.get("root") or test.get("list")):
        place = _folder(test["root"], f"data.{name}.test.root") if test.get("root") else None
        out["test"] = (
            _read_list(Path(test["list"]).expanduser(), place) if test.get("list") else _scan(place)
        )
    return out


def _has_splits(base: Path) -> bool:
    """Whether `base` holds train/ (and val/, test/), and not classes of which one is "train"."""
    if not (base / "train").is_dir():
        return False
    known = {name for names in SPLITS.values() for name in names}
    folders = {p.name for p in base.iterdir() if p.is_dir() and not p.name.startswith(".")}
    others = sorted(folders - known)
    if others and any(p.is_dir() for p in (base / "train").iterdir()):
        raise DataError(
            f"'{base}' is ambiguous: train/ holds folders and lies beside {', '.join(others[:5])}; "
            "give splits (train/, val/, test/) or classes, not both."
        )
    return not others


def _folder(path: str, key: str) -> Path:
    found = Path(path).expanduser()
    if not found.is_dir():
        raise DataError(f"{key}={path}: no such folder; give the folder that holds the images.")
    return found


def _scan(root: Path | None) -> Listing:
    """A folder per class, else a flat folder without labels."""
    assert root is not None
    flat = _images(root.iterdir())
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    by_class = {p.name: _images(p.rglob("*")) for p in folders}
    if flat and any(by_class.values()):
        raise DataError(
            f"'{root}' holds images both in class folders and beside them, such as "
            f"'{flat[0].name}'; move them."
        )
    if flat:
        return Listing(flat, None)
    for name, files in by_class.items():
        if not files:
            raise DataError(
                f"the class '{name}' has no image in '{root / name}'; add some or remove the "
                "folder."
            )
    if not by_class:
        kinds = ", ".join(sorted(EXTENSIONS))
        raise DataError(f"no image in '{root}': give a folder per class, or images ({kinds}).")
    pairs = [(f, name) for name, files in by_class.items() for f in files]
    return Listing([f for f, _ in pairs], [name for _, name in pairs])


def _images(paths: Any) -> list[Path]:
    return sorted(
        p
        for p in paths
        if p.suffix.lower() in EXTENSIONS and not p.name.startswith(".") and p.is_file()
    )


def _read_list(path: Path, base: Path | None) -> Listing:
    """Lines of `path label` or `path` alone; relative to `base`, else to the list's folder."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list '{path}' ({error}).") from error
    base = base or path.parent
    files, labels = [], []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        if (base / line).is_file():  # no label (a path may hold spaces)
            files.append(base / line)
            continue
        place, _, label = line.rpartition("\t" if "\t" in line else " ")
        file = base / place.strip()
        if not place or not file.is_file():
            raise DataError(
                f"'{path}', line {number}: no image at '{base / (place or line).strip()}'."
            )
        files.append(file)
        labels.append(label)
    if not files:
        raise DataError(f"the list '{path}' names no image.")
    if labels and len(labels) != len(files):
        raise DataError(
            f"'{path}': {len(files) - len(labels)} of {len(files)} lines have no label; label "
            "all or none."
        )
    return _once(path, files, labels)


def _once(path: Path, files: Sequence[Path], labels: Sequence[str]) -> Listing:
    """Each file of the list `path` once: an image listed twice could be trained and tested on."""
    first: dict[Path, int] = {}
    for i, file in enumerate(files):
        known = first.setdefault(file.resolve(), i)
        if labels and labels[known] != labels[i]:
            raise DataError(
                f"'{path}' gives '{file}' the labels '{labels[known]}' and '{labels[i]}'; remove "
                "one of these lines."
            )
    if repeated := len(files) - len(first):
        log.warning("'%s' repeats %s of its images; each is taken once", path, repeated)
    chosen = first.values()
    return Listing([files[i] for i in chosen], [labels[i] for i in chosen] if labels else None)


def _classes(listings: Mapping[str, Listing], name: str) -> list[str]:
    """All class names in order (numbers as numbers); a labelled training set must have each."""
    names = {label for found in listings.values() for label in found.labels or ()}
    numeric = all(label.isdecimal() for label in names)
    classes = sorted(names, key=lambda label: (int(label), label) if numeric else (0, label))
    train = listings["train"].labels
    lacking = [c for c in classes if train and c not in set(train)]
    if lacking:
        raise DataError(
            f"data.{name}: class '{lacking[0]}' has no training image; add some or remove the "
            "class."
        )
    return classes


def _readable(found: Listing, key: str) -> Listing:
    """Without the files that cannot be decoded; each is named in a warning."""

    def check(file: Path) -> bool:
        try:
            read_image(file, 1, 3, "squash")
        except DataError as error:
            log.warning("%s: left out (skip_unreadable=true): %s", key, error)
            return False
        return True

    with ThreadPoolExecutor() as pool:
        good = [i for i, fine in enumerate(pool.map(check, found.files)) if fine]
    if not good:
        raise DataError(f"{key}: not one of {len(found.files)} images can be read.")
    labels = None if found.labels is None else [found.labels[i] for i in good]
    return Listing([found.files[i] for i in good], labels)


def _examples(
    name: str,
    found: Listing,
    classes: Sequence[str] | None,
    shape: tuple[int, int, int],
    fit: str,
    in_memory: bool,
) -> ImageSet:
    content = content_hashes(found.files)
    order = sorted(range(len(content)), key=lambda i: (content[i], str(found.files[i])))
    files, content = [found.files[i] for i in order], [content[i] for i in order]
    labels = None
    if classes is not None and found.labels is not None:
        number = {c: i for i, c in enumerate(classes)}
        labels = torch.tensor([number[found.labels[i]] for i in order])
    if not in_memory:
        return FileImageSet(name, files, content, shape, fit, labels, classes)
    channels, size, _ = shape

    def decode() -> np.ndarray:
        with ThreadPoolExecutor() as pool:  # PIL decodes without the GIL
            return np.stack([*pool.map(lambda f: read_image(f, size, channels, fit, SKIP), files)])

    images = cached_images(f"folder-{name}", (content, shape, fit), decode)
    return ImageSet(name, images, labels, classes, [str(f) for f in files])


def content_hashes(files: Sequence[Path]) -> list[str]:
    """sha256 per file, remembered in the cache by path, size and time of change."""
    parents = sorted({str(f.resolve().parent) for f in files})
    index = (
        cache_root()
        / "index"
        / (hashlib.sha256("\n".join(parents).encode()).hexdigest()[:16] + ".json")
    )
    try:
        known: dict[str, list[Any]] = json.loads(index.read_text())
    except (OSError, ValueError):
        known = {}

    def content(file: Path) -> list[Any]:
        stat = file.stat()
        entry = known.get(str(file.resolve()))
        if entry and entry[:2] == [stat.st_size, stat.st_mtime_ns]:
            return entry
        return [stat.st_size, stat.st_mtime_ns, file_hash(file, "sha256")]

    try:
        with ThreadPoolExecutor() as pool:
            entries = [*pool.map(content, files)]
    except OSError as error:
        raise DataError(f"cannot read the image '{error.filename}' ({error.strerror}).") from error
    fresh = {str(f.resolve()): entry for f, entry in zip(files, entries, strict=True)}
    if fresh != known:
        with locked(index):
            part = index.with_name(index.name + ".part")
            part.write_text(json.dumps(fresh))
            os.replace(part, index)
    return [entry[2] for entry in entries]
