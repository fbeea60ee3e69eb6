"""Pictures that a run describes itself, so that the report needs to know no family of methods.

`pictures.json` is a list of objects; each becomes plots/<name>.png and a section of the page. All
have `name` (of the file: letters, digits, `_`, `-`, `.`), `title`, `text` and `kind`:

    {"name": "task_matrix", "title": "...", "text": "...", "kind": "heatmap", "x": [labels],
     "y": [labels], "values": [[number or null, one per x], one row per y],
     "x_label": "", "y_label": "", "unit": "%"}
    {"name": "...", "title": "...", "text": "...", "kind": "lines", "x_label": "", "y_label": "",
     "series": [{"name": "", "x": [numbers, or labels], "y": [number or null], "error": [..]}]}
    {"name": "...", "title": "...", "text": "...", "kind": "bars", "labels": [..], "y_label": "",
     "series": [{"name": "", "values": [number or null, one per label], "error": [..]}]}

Numbers are drawn as they are: with the unit % they run to 100, not to 1. `error` is half the length
of an error bar, and optional; so are labels of axes, unit, title and text. An entry that does not
fit is left out of the page with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlrun.report.figures.picture_kinds import draw_bars, draw_heatmap, draw_lines
from tlrun.report.read.entries import Missing, read_entries, safe_name, text

KINDS: dict[Any, Callable[[dict[str, Any], Path], None]] = {
    "heatmap": draw_heatmap,
    "lines": draw_lines,
    "bars": draw_bars,
}


@dataclass(frozen=True)
class Picture:
    """`draw(path)` writes the PNG, or raises Missing with what is wrong with the entry."""

    name: str
    title: str
    text: str
    draw: Callable[[Path], None]


def read_pictures(path: Path, taken: Collection[str] = ()) -> list[Picture]:
    """The entries of a pictures.json in order; names in `taken` belong to other plots."""
    try:
        entries = read_entries(path)
    except Missing as reason:
        return [_damaged(path.name, path.name, reason)]
    pictures: list[Picture] = []
    used = set(taken)
    for place, entry in enumerate(entries, start=1):
        where = f"{path.name}, entry {place}"
        try:
            picture = _picture(entry, used)
        except Missing as reason:
            title = text(entry, "title", where) if isinstance(entry, dict) else where
            picture = _damaged(where, title, reason)  # `where` is no file that could be in the way
        used.add(picture.name)
        pictures.append(picture)
    return pictures


def _picture(entry: Any, taken: set[str]) -> Picture:
    name = safe_name(entry, taken)

    def draw(path: Path) -> None:
        kind = entry.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            raise Missing(f"its kind is {kind!r}, not one of {', '.join(KINDS)}")
        KINDS[kind](entry, path)

    title = text(entry, "title") or name.replace("_", " ")
    return Picture(name, title, text(entry, "text"), draw)


def _damaged(name: str, title: str, reason: Missing) -> Picture:
    def draw(path: Path) -> None:
        raise reason

    return Picture(name, title, "", draw)
