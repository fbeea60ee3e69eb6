"""Text tables as people export them: `,` `;` or tab between the cells, decimal points or commas.

A header line names the columns. Blanks around a cell and a byte-order mark mean nothing, blank
lines are passed over, and the separator is the one that the header line holds most often.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlrun.errors import DataError

SEPARATORS = ",;\t"
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


@dataclass(frozen=True)
class CsvTable:
    """columns: names. rows: cells, as many in each row as there are columns."""

    path: Path
    columns: tuple[str, ...]
    rows: list[list[str]]
    separator: str

    def column(self, at: int) -> list[str]:
        return [row[at] for row in self.rows]

    def numbers(self, at: Sequence[int], hint: str = "", empty: str = "") -> np.ndarray:
        """(n, len(at)) float64 of the columns `at`. DataError for a cell that is no number.

        hint: what to do about a column without any number. empty: what an empty cell stands for.
        """
        cells = [[row[i] or empty for i in at] for row in self.rows]
        try:
            return np.array(cells, dtype=np.float64).reshape(len(cells), len(at))
        except ValueError:
            pass
        if self.separator != ",":
            cells = self._with_points(cells, at)
        bad = [
            (n, i, cell)
            for n, row in enumerate(cells, 1)
            for i, cell in zip(at, row, strict=True)
            if not is_number(cell)
        ]
        if not bad:
            return np.array(cells, dtype=np.float64)
        n, i, cell = bad[0]
        wrong = sum(1 for _, other, _ in bad if other == i)
        raise DataError(
            f"'{self.path}', example {n}: '{cell}' in column {self.columns[i]} is no number"
            + (f" ({len(bad)} cells of the file are none)" if len(bad) > 1 else "")
            + (hint if wrong == len(self.rows) else "")
            + "."
        )

    def _with_points(self, cells: list[list[str]], at: Sequence[int]) -> list[list[str]]:
        """Decimal commas as points. A file with both is refused: 1.234 would be unclear there."""
        flat = [(n, i, c) for n, row in enumerate(cells, 1) for i, c in zip(at, row, strict=True)]
        comma = next((x for x in flat if DECIMAL_COMMA.fullmatch(x[2])), None)
        point = next((x for x in flat if "." in x[2] and is_number(x[2])), None)
        if comma is None:
            return cells
        if point is not None:
            raise DataError(
                f"'{self.path}' has decimal commas ('{comma[2]}' in example {comma[0]}) and "
                f"decimal points ('{point[2]}' in example {point[0]}); write it with one of them."
            )
        return [
            [c.replace(",", ".") if DECIMAL_COMMA.fullmatch(c) else c for c in row] for row in cells
        ]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_csv_table(path: Path) -> CsvTable:
    """Raises DataError that names the file, and the first example that is wrong."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            first = next((line for line in stream if line.strip()), "")
            separator = max(SEPARATORS, key=first.count)
            stream.seek(0)
            reader = csv.reader(stream, delimiter=separator, skipinitialspace=True)
            lines = [[cell.strip() for cell in row] for row in reader]
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not UTF-8 text; save it as UTF-8.") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read '{path}' ({error}).") from error
    header, *rows = [row for row in lines if any(row)] or [[]]
    if not rows:
        raise DataError(f"'{path}' has no rows; it needs a header line and a line per example.")
    if all(is_number(cell) for cell in header):
        raise DataError(f"'{path}' has no header line: name the columns in its first line.")
    ragged = [n for n, row in enumerate(rows, 1) if len(row) != len(header)]
    if ragged:
        more = f" ({len(ragged)} examples are of another width)" if len(ragged) > 1 else ""
        raise DataError(
            f"'{path}', example {ragged[0]}: {len(rows[ragged[0] - 1])} cells under {len(header)} "
            f"names{more}."
        )
    return CsvTable(path, tuple(header), rows, separator)
