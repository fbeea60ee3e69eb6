"""Which images a folder or a list names, with their labels: the layouts that users have.

See `folder` for the layouts. A folder that holds one folder and nothing else is passed through,
as archives make them; own splits are found in any case (`Train/`, `testing/`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tlrun.data.examples.fingerprints import Fingerprint, fingerprints
from tlrun.data.examples.image_files import LeftOut, find_images, list_folder, some, text_of
from tlrun.errors import DataError

log = logging.getLogger("tlrun")

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}


@dataclass
class Listing:
    """Files with a label name each, or None for images without labels. prints: see
    `with_prints`."""

    files: list[Path]
    labels: list[str] | None
    prints: list[Fingerprint] = field(default_factory=list)

    def subset(self, index: Sequence[int]) -> Listing:
        labels = None if self.labels is None else [self.labels[i] for i in index]
        prints = [self.prints[i] for i in index] if self.prints else []
        return Listing([self.files[i] for i in index], labels, prints)

    def with_prints(self) -> Listing:
        """With the fingerprint of each file. Raises DataError."""
        return Listing(self.files, self.labels, fingerprints(self.files))


def open_folder(path: str, key: str) -> Path:
    """The folder that the configuration's `key` names. DataError if it is none."""
    found = Path(path).expanduser()
    try:
        there = found.is_dir()
    except OSError as error:
        raise DataError(f"{key}={path}: {error.strerror}; allow reading it.") from error
    if not there:
        raise DataError(f"{key}={path}: no such folder; give the folder that holds the images.")
    return found


def scan(root: Path, left_out: LeftOut) -> Listing:
    """A folder per class, else a flat folder without labels."""
    root = unwrapped(root, left_out)
    flat, folders = list_folder(root, left_out)
    by_class = {text_of(f.name): (f, find_images(f, left_out)) for f in folders}
    if flat and any(files for _, files in by_class.values()):
        raise DataError(
            f"'{root}' holds images both in class folders and beside them, such as "
            f"'{text_of(flat[0].name)}'; move them."
        )
    if flat:
        return Listing(flat, None)
    for name, (place, files) in by_class.items():
        if not files:
            beside = str(left_out.below(place))
            raise DataError(
                f"the class '{name}' has no image in '{text_of(place)}'"
                f"{f' (left out there: {beside})' if beside else ''}; add some or remove the "
                "folder."
            )
    if not by_class:
        raise DataError(
            f"no image in '{text_of(root)}'{f' (left out: {left_out})' if str(left_out) else ''}: "
            "give a folder per class, or images (.jpg, .png, .tif, .webp and what else Pillow "
            "reads)."
        )
    pairs = [(f, name) for name, (_, files) in by_class.items() for f in files]
    return Listing([f for f, _ in pairs], [name for _, name in pairs])


def unwrapped(folder: Path, left_out: LeftOut, *, stop_at_splits: bool = False) -> Path:
    """The folder, or the one within it that holds the classes if nothing else lies beside it.

    stop_at_splits: a single train/ is a split, not a wrapper.
    """
    while True:
        files, folders = list_folder(folder, left_out)
        if files or len(folders) != 1:
            return folder
        inner = folders[0]
        if stop_at_splits and inner.name.lower() in SPLIT_OF:
            return folder
        images, below = list_folder(inner, left_out)
        if images or not below:  # a class
            return folder
        log.info("'%s' holds '%s' alone: that is read", text_of(folder), text_of(inner.name))
        folder = inner


def split_folders(base: Path, left_out: LeftOut) -> dict[str, Path]:
    """train, val, test -> its folder, where `base` holds own splits; {} where it holds classes (of
    which one may be called "train"). Raises DataError if nobody can tell."""
    _, folders = list_folder(base, left_out)
    splits: dict[str, Path] = {}
    for place in folders:
        split = SPLIT_OF.get(place.name.lower())
        if split and (twin := splits.setdefault(split, place)) is not place:
            raise DataError(
                f"'{base}' has two folders for {split}, '{twin.name}' and '{place.name}': keep one."
            )
    others = [text_of(f.name) for f in folders if f.name.lower() not in SPLIT_OF]
    if splits and others:
        for place in splits.values():
            if list_folder(place, left_out)[1]:
                raise DataError(
                    f"'{base}' is ambiguous: {place.name}/ holds folders and lies beside "
                    f"{some(others, 5)}; give splits (train/, val/, test/) or classes, not both."
                )
        return {}
    if splits and "train" not in splits:
        names = " and ".join(f"{place.name}/" for place in splits.values())
        raise DataError(f"'{base}' holds {names} but no train/: add it, or give {names} as root.")
    return splits


def read_list(path: Path, base: Path | None) -> Listing:
    """Lines of `path label` or `path` alone; relative to `base`, else to the list's folder.

    Empty lines are passed over, and comments: lines that begin with `# ` and name no file.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no regular file")
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list '{path}' ({error}).") from error
    base = base or path.parent
    files, labels = [], []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        if (base / line).is_file():  # no label (a path may hold spaces)
            files.append(base / line)
            continue
        place, _, label = line.rpartition("\t" if "\t" in line else " ")
        file = base / place.strip()
        if place and file.is_file():
            files.append(file)
            labels.append(label)
        elif line != "#" and not line.startswith("# "):
            raise DataError(
                f"'{path}', line {number}: no image at '{base / (place or line).strip()}'"
                f"{' (a comment begins with # and a space)' if line[0] == '#' else ''}."
            )
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


# ---- copies -----------------------------------------------------------------------------------


def refuse_two_labels(listings: Mapping[str, Listing], key: str) -> None:
    """DataError if files of equal content have different labels, which both are named."""
    first: dict[str, tuple[Path, str]] = {}
    clashes = []
    for listing in listings.values():
        for file, label, known in zip(
            listing.files, listing.labels or (), listing.prints, strict=False
        ):
            other, its_label = first.setdefault(known.content, (file, label))
            if its_label != label:
                clashes.append(f"'{text_of(other)}' ({its_label}) and '{text_of(file)}' ({label})")
    if clashes:
        count = "1 image has" if len(clashes) == 1 else f"{len(clashes):,} images have"
        raise DataError(
            f"{key}: {count} two labels: {some(clashes, 1)} are equal files; remove the wrong ones."
        )


def without_copies(
    listings: Mapping[str, Listing], key: str, once: Sequence[str] = ("train",)
) -> tuple[dict[str, Listing], list[str]]:
    """Each image in one of the splits: in the test before the validation before the training set.

    So the test stays whole, and its figures comparable. once: the splits that keep one copy of each
    image too, since tests may be cut of them; others stay as given, and so does a training set
    without labels that is predicted whole. Also returns what was left out, a line each. Raises
    DataError if no training image is left.
    """
    out: dict[str, Listing] = {}
    notes: list[str] = []
    holder: dict[str, tuple[str, Path]] = {}  # content -> where it stays
    whole = listings["train"].labels is None and "test" not in listings
    for split in [s for s in ("test", "val", "train") if s in listings]:
        found = listings[split]
        single = split in once and not (split == "train" and whole)
        keep: list[int] = []
        gone: dict[str, list[str]] = {}
        for i, (file, known) in enumerate(zip(found.files, found.prints, strict=True)):
            where, other = holder.setdefault(known.content, (split, file))
            if other is file or (where == split and not single):
                keep.append(i)
            else:
                gone.setdefault(where, []).append(f"'{text_of(file)}' is '{text_of(other)}'")
        for where, pairs in gone.items():
            kind = "copies of others" if where == split else f"images of {where} too"
            notes.append(
                f"{len(pairs):,} of {len(found.files):,} {split} images are {kind} and left out: "
                f"{some(pairs, 1)}"
            )
        if keep:
            out[split] = found.subset(keep)
        elif split == "train":
            raise DataError(
                f"{key}: every training image is one of {' and '.join(gone)} too; give others, or "
                f"set {key}.transductive=true to train and test on the same images."
            )
    return {split: out[split] for split in listings if split in out}, notes
