"""Lists that a run leaves for its report (pictures.json, tables.json), read without trusting them.

A file or an entry that is damaged raises Missing with the reason, which the page repeats: a report
must not fail because of a picture.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class Missing(Exception):
    """The run folder lacks what a plot or table shows; the text says what, the page repeats it."""


def read_entries(path: Path) -> list[Any]:
    """The list in the file; [] if there is no file. Raises Missing if it holds no list."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise Missing("it cannot be read as JSON") from error
    if not isinstance(content, list):
        raise Missing("it holds no list")
    return content


def read_each(
    path: Path, make: Callable[[dict[str, Any], str], T]
) -> tuple[list[T], list[tuple[str, str]]]:
    """(what `make` makes of each entry and its name, (title, why it was left out) of the others).

    make raises Missing for an entry that is damaged.
    """
    try:
        entries = read_entries(path)
    except Missing as reason:
        return [], [(path.name, str(reason))]
    made: list[T] = []
    left_out: list[tuple[str, str]] = []
    names: set[str] = set()
    for place, entry in enumerate(entries, start=1):
        try:
            name = safe_name(entry, names)
            made.append(make(entry, name))
            names.add(name)
        except Missing as reason:
            where = f"{path.name}, entry {place}"
            title = text(entry, "title", where) if isinstance(entry, dict) else where
            left_out.append((title, str(reason)))
    return made, left_out


def safe_name(entry: Any, taken: set[str]) -> str:
    """The entry's name, fit for a file name and not in `taken`; else Missing."""
    if not isinstance(entry, dict):
        raise Missing("it is no object")
    name = entry.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):
        raise Missing(f"its name is {name!r}: use letters, digits, '_', '-' and '.'")
    if name in taken:
        raise Missing(f"the name {name!r} is taken")
    return name


def text(entry: dict[str, Any], key: str, default: str = "") -> str:
    value = entry.get(key)
    return default if value is None else str(value)


def texts(value: Any, what: str) -> list[str]:
    """A list of texts or numbers, as texts. Raises Missing if it is none or empty."""
    fits = isinstance(value, list) and all(isinstance(item, str | int | float) for item in value)
    if not fits or not value:
        raise Missing(f"{what} is no list of texts")
    return [str(item) for item in value]
