"""Which files of a folder are images: regular files that Pillow decodes, read where they lie.

Hidden files and folders (`.DS_Store`, `.ipynb_checkpoints`, `__MACOSX`, `._1.jpg`) are passed over
at every level. A file counts as an image by its extension, one of those that Pillow knows; by its
first bytes if it has no extension, or one that nobody knows. Links are followed, each folder once.
Whatever else lies there is left out, counted and named (`LeftOut`); a folder that cannot be opened
is an error, because nobody knows what it holds.
"""

from __future__ import annotations

import errno
import mimetypes
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from os import PathLike
from pathlib import Path

from PIL import Image

from tlrun.errors import DataError

# identified by Pillow but not decoded (BUFR, GRIB, HDF5, MPEG; WMF outside Windows), or decoded by
# a program that runs the file's content as its own (EPS: Ghostscript)
NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
CLUTTER = frozenset({"__macosx", "@eadir", "thumbs.db", "desktop.ini"})
# formats whose files begin with a mark that other files do not have
MARKED = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
HIDDEN = "hidden"
UNOPENED = "cannot be opened"


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read."""
    Image.init()
    return tuple(name for name in Image.ID if name in Image.OPEN and name not in NOT_DECODED)


@cache
def extensions() -> frozenset[str]:
    """Extensions of these formats, in lower case with the dot."""
    known = Image.registered_extensions().items()
    return frozenset(extension for extension, name in known if name in formats())


@cache
def _other_types() -> mimetypes.MimeTypes:
    return mimetypes.MimeTypes()  # Python's own table, not the machine's


def text_of(path: str | PathLike[str]) -> str:
    r"""A path as text that every file can hold: bytes that are not UTF-8 become `\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is nobody's example."""
    return name.startswith(".") or name.lower() in CLUTTER


@dataclass
class LeftOut:
    """What was found and not read. skip_unreadable: whether folders that cannot be opened count as
    such; they are an error otherwise. key: that of the set in the configuration, if it has the key
    `skip_unreadable`, for the message."""

    skip_unreadable: bool = False
    reasons: dict[Path, str] = field(default_factory=dict)
    key: str = ""

    def add(self, path: Path, reason: str) -> None:
        self.reasons[path] = reason

    @property
    def only_hidden(self) -> bool:
        return set(self.reasons.values()) <= {HIDDEN}

    def below(self, folder: Path) -> LeftOut:
        """What was left out in and below a folder."""
        inside = {p: why for p, why in self.reasons.items() if folder in p.parents}
        return LeftOut(self.skip_unreadable, inside, self.key)

    def __str__(self) -> str:
        """One line: for which reason how many, the first of them by name; empty if none."""
        by_reason: dict[str, list[str]] = {}
        for path, reason in self.reasons.items():
            by_reason.setdefault(reason, []).append(text_of(path.name))
        parts = [
            f"{reason}: {len(names):,} ({some(sorted(names))})"
            for reason, names in sorted(by_reason.items())
        ]
        return ", ".join(parts)


def some(names: Iterable[str], most: int = 3) -> str:
    """The first names.

    >>> some(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    listed = [*names]
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")


def list_folder(folder: Path, left_out: LeftOut) -> tuple[list[Path], list[Path]]:
    """Images and folders that lie directly in `folder`, each sorted. Raises DataError."""
    files: list[Path] = []
    folders: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = folder / entry.name
                if is_hidden(entry.name):
                    left_out.add(path, HIDDEN)
                elif reason := _sort(entry, path, files, folders):
                    left_out.add(path, reason)
    except OSError as error:
        if not left_out.skip_unreadable:
            raise unopened(folder, error, left_out.key) from error
        left_out.add(folder, UNOPENED)
    return sorted(files), sorted(folders)


def find_images(root: Path, left_out: LeftOut) -> list[Path]:
    """The images in and below a folder, sorted. Raises DataError for one that cannot be opened."""
    images: list[Path] = []
    folders: list[Path] = [root]
    links: list[Path] = []
    visited: set[Path] = set()
    while folders or links:  # folders themselves before links to them: their own paths are kept
        folder = folders.pop() if folders else links.pop(0)
        place = folder.resolve()
        if place in visited:
            continue
        visited.add(place)
        files, below = list_folder(folder, left_out)
        images += files
        for path in reversed(below):
            (links if path.is_symlink() else folders).append(path)
    return sorted(images)


def unopened(folder: Path, error: OSError, key: str = "") -> DataError:
    """The message for a folder that cannot be opened."""
    skip = f", or leave such folders out: {key}.skip_unreadable=true" if key else ""
    return DataError(
        f"cannot open the folder '{text_of(folder)}' ({error.strerror or error}): allow reading "
        f"it{skip}."
    )


def _sort(entry: os.DirEntry[str], path: Path, files: list[Path], folders: list[Path]) -> str:
    """Puts the entry where it belongs, or returns why it is left out."""
    try:
        if entry.is_dir():
            if entry.is_symlink() and path.parent.resolve().is_relative_to(path.resolve()):
                return "links to a folder around them"
            folders.append(path)
            return ""
        if not entry.is_file():
            return "broken links" if entry.is_symlink() and not path.exists() else "special files"
        if not _is_image(path):
            return "not images"
    except OSError as error:
        return "broken links" if error.errno == errno.ELOOP else UNOPENED
    files.append(path)
    return ""


def _is_image(path: Path) -> bool:
    extension = path.suffix.lower()
    if extension in extensions():
        return True
    if extension and _other_types().guess_type("x" + extension)[0] is not None:
        return False
    return _looks_like_an_image(path)


def _looks_like_an_image(path: Path) -> bool:
    """By its first bytes and header. Raises OSError if the file cannot be opened."""
    with path.open("rb") as stream:
        try:
            with Image.open(stream, formats=MARKED):
                return True
        except Exception:  # Pillow raises a dozen kinds for what is no image
            return False
