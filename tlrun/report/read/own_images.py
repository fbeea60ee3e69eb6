"""Sections with images that a run leaves in images.json: a third one beside pictures and tables.

`images.json` is a list of objects, each a section of the page:

    {"name": "...", "title": "...", "text": "...", "rows": [
        {"title": "dog", "groups": [
            {"title": "source", "images": [{"data": "...", "text": "", "alt": ""}]}
        ]}
    ]}

`data` is base64 of a PNG or JPEG. Rows stand below each other, groups and their images side by
side. `text` stands below an image, `alt` says what it shows to who cannot see it. The images are in
the file: the data need not be there when the page is written.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlrun.report.read.entries import Missing, read_each, text

# What base64 of a file begins with: its first bytes, as whole groups of four letters.
KINDS = {"iVBORw0KGgo": "image/png", "/9j/": "image/jpeg"}
MOST = 3_000_000  # letters of base64 on one page: no file makes it unreadable


@dataclass(frozen=True)
class Image:
    """address: data:..., tiny: of few pixels, to be enlarged without smoothing."""

    address: str
    text: str
    alt: str
    tiny: bool


@dataclass(frozen=True)
class Group:
    title: str
    images: list[Image]


@dataclass(frozen=True)
class ImageRow:
    """titled: whether its groups' titles are to be shown: they differ from those above."""

    title: str
    groups: list[Group]
    titled: bool


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    text: str
    rows: list[ImageRow]


def read_images(path: Path) -> tuple[list[Section], list[tuple[str, str]]]:
    """(sections in order, (title, why it was left out) of those that are damaged)."""
    letters = 0

    def section_of(entry: dict[str, Any], name: str) -> Section:
        nonlocal letters
        section = _section(entry, name)
        more = sum(len(i.address) for row in section.rows for g in row.groups for i in g.images)
        if letters + more > MOST:
            raise Missing(f"its images would make the page larger than {MOST:,} bytes")
        letters += more
        return section

    return read_each(path, section_of)


def _section(entry: dict[str, Any], name: str) -> Section:
    rows: list[ImageRow] = []
    before: list[str] = []
    for row in _objects(entry.get("rows"), "'rows'"):
        groups = [
            Group(
                text(group, "title"), [_image(i) for i in _objects(group.get("images"), "'images'")]
            )
            for group in _objects(row.get("groups"), "'groups'")
        ]
        titles = [group.title for group in groups]
        rows.append(ImageRow(text(row, "title"), groups, any(titles) and titles != before))
        before = titles
    if not any(group.images for row in rows for group in row.groups):
        raise Missing("it holds no image")
    title = text(entry, "title") or name.replace("_", " ")
    return Section(name, title, text(entry, "text"), rows)


def _image(entry: dict[str, Any]) -> Image:
    data = entry.get("data")
    kind = next((KINDS[k] for k in KINDS if isinstance(data, str) and data.startswith(k)), None)
    if kind is None:
        raise Missing("the data of an image are no PNG or JPEG in base64")
    try:
        base64.b64decode(str(data), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Missing("the data of an image are no base64") from error
    address = f"data:{kind};base64,{data}"
    return Image(address, text(entry, "text"), text(entry, "alt"), kind == "image/png")


def _objects(value: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Missing(f"{what} is no list of objects")
    return value
