"""A section of the page with images, as images.json holds it (tlrun/report/read/own_images.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Thumbnail:
    """data: base64 of a PNG or JPEG. text: what stands below it. alt: what it shows, in words."""

    data: str
    text: str = ""
    alt: str = ""


@dataclass
class Group:
    """Images side by side. title: what they have in common."""

    title: str
    images: list[Thumbnail] = field(default_factory=list)


@dataclass
class ImageRow:
    """Groups side by side, such as the source's and the target's images of a class."""

    title: str
    groups: list[Group]


@dataclass
class Section:
    """name: letters, digits and _, one of each in a run."""

    name: str
    title: str
    text: str
    rows: list[ImageRow]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def captioned(
    data: Sequence[str], alt: str | Sequence[str], texts: Sequence[str] | None = None
) -> list[Thumbnail]:
    """Thumbnails in order. alt: one for all, or one of each."""
    alts = [alt] * len(data) if isinstance(alt, str) else alt
    texts = texts or [""] * len(data)
    return [Thumbnail(d, t, a) for d, t, a in zip(data, texts, alts, strict=True)]


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the items, evenly spaced, in order."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def of_all(shown: int, count: int, what: str) -> str:
    """ "8 of 200 classes", "all 7 classes"."""
    return f"{shown:,} of {count:,} {what}" if shown < count else f"all {count:,} {what}"
