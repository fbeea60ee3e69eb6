"""Tables that a run describes itself: the twin of pictures.json.

`tables.json` is a list of objects, each a section of the page:

    {"name": "...", "title": "...", "text": "...", "columns": [texts],
     "rows": [[text, number or null, one per column]]}

Texts are shown as they are, numbers with four significant digits (whole from 1,000 on), null as a
dash. Give a text where that is not what you want ("93.1 ± 0.4 %").
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlrun.evaluate.figures import finite
from tlrun.report.formats import number
from tlrun.report.read.entries import Missing, read_each, text, texts


@dataclass(frozen=True)
class Table:
    """`numeric`: for each column, whether it is aligned to the right."""

    title: str
    text: str
    columns: list[str]
    rows: list[list[str]]
    numeric: list[bool]


def read_tables(path: Path) -> tuple[list[Table], list[tuple[str, str]]]:
    """(tables in order, (title, why it was left out) of those that are damaged)."""
    return read_each(path, _table)


def _table(entry: dict[str, Any], name: str) -> Table:
    columns = texts(entry.get("columns"), "'columns'")
    rows = entry.get("rows")
    if not isinstance(rows, list) or not rows:
        raise Missing("'rows' is no list, or an empty one")
    for row in rows:
        if not isinstance(row, list) or len(row) != len(columns):
            raise Missing(f"a row has not {len(columns)} cells, one per column")
    return Table(
        title=text(entry, "title") or name.replace("_", " "),
        text=text(entry, "text"),
        columns=columns,
        rows=[[_cell(value) for value in row] for row in rows],
        numeric=[_numeric([row[k] for row in rows]) for k in range(len(columns))],
    )


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    x = finite(value)
    whole = x is not None and (x == int(x) or abs(x) >= 1000)
    return number(x, "count" if whole else "number")


def _numeric(values: list[Any]) -> bool:
    """A column of numbers, or of texts that begin like one ("93.1 ± 0.4 %")."""
    return all(not isinstance(v, str) or v[:1].isdigit() or v[:1] in "+-−–" for v in values)
