"""CSV files that a spreadsheet may open: a text that it would take for a formula is marked.

A class may be called `=HYPERLINK(...)`. Such a cell is written with an apostrophe before it, as
spreadsheets mark text (OWASP, CSV Injection); `read_rows` takes it away again. Imports no torch.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # also the full-width ones
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
MARK = "'"


class Writer:
    """csv.writer with its options; every text is marked where it must be, also a header's."""

    def __init__(self, stream: IO[str], **options: Any) -> None:
        self._writer = csv.writer(stream, **options)

    def writerow(self, row: Iterable[Any]) -> None:
        self._writer.writerow([marked(cell) if isinstance(cell, str) else cell for cell in row])

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        for row in rows:
            self.writerow(row)


def read_rows(stream: Iterable[str]) -> Iterator[dict[str, str]]:
    """Rows of a file that `Writer` wrote, by the names in its first line. Raises csv.Error."""
    rows = csv.reader(stream)
    header = [unmarked(cell) for cell in next(rows, [])]
    for row in rows:
        if row:
            yield dict(zip(header, map(unmarked, row), strict=False))


def marked(text: str) -> str:
    """
    >>> marked("=1+1"), marked("-0.5"), marked("cat")
    ("'=1+1", '-0.5', 'cat')
    """
    return MARK + text if _is_formula(text.lstrip(MARK)) else text


def unmarked(text: str) -> str:
    """The inverse of `marked`."""
    is_marked = text.startswith(MARK) and _is_formula(text.lstrip(MARK))
    return text[len(MARK) :] if is_marked else text


def _is_formula(text: str) -> bool:
    starts: Sequence[str] = (text[:1], text.lstrip()[:1])
    return any(start and start in FORMULA for start in starts) and not NUMBER.fullmatch(text)
