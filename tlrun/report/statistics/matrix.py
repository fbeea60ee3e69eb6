"""Method x data under one rule: the table of a paper, the best of each column in bold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlrun.report.formats import NONE
from tlrun.report.statistics.groups import FigureRow, Group, best_of, mean_of


@dataclass(frozen=True)
class Cell:
    """few: fewer seeds than the fullest cell has."""

    row: FigureRow | None
    best: bool = False
    few: bool = False

    @property
    def value(self) -> float | None:
        return None if self.row is None else self.row.mean

    @property
    def text(self) -> str:
        return self.row.text if self.row else NONE


@dataclass(frozen=True)
class MatrixRow:
    """average: over the columns, None where one is empty; sees: target labels, in any cell."""

    name: str
    sees: bool
    cells: list[Cell]
    average: float | None


@dataclass(frozen=True)
class Matrix:
    """averaged: whether the columns are data sets, whose mean says something."""

    rule: str
    heads: list[str]
    averaged: bool
    rows: list[MatrixRow]

    @property
    def best_average(self) -> float | None:
        """Of the rows that saw no target label."""
        return max(
            (r.average for r in self.rows if r.average is not None and not r.sees), default=None
        )


def matrices(groups: Sequence[Group], metric: str, rules: Sequence[str]) -> list[Matrix]:
    """One per rule; [] where there is one column only, which the leaderboard shows."""
    columns = list(dict.fromkeys((group.data, group.sweep) for group in groups))
    columns.sort()
    if len(columns) < 2:
        return []
    several_data, several_sweeps = (len(set(part)) > 1 for part in zip(*columns, strict=True))
    heads = [
        " · ".join([*([data] if several_data else []), *([sweep] if several_sweeps else [])])
        for data, sweep in columns
    ]
    return [
        Matrix(
            rule, heads, not several_sweeps, _rows(groups, metric, rule, columns, several_sweeps)
        )
        for rule in rules
    ]


def _rows(
    groups: Sequence[Group],
    metric: str,
    rule: str,
    columns: Sequence[tuple[str, str]],
    several_sweeps: bool,
) -> list[MatrixRow]:
    """Complete rows by their mean, then the others as the leaderboard has them."""
    best = [best_of([g for g in groups if (g.data, g.sweep) == c], metric, rule) for c in columns]
    measured = [group for group in groups if group.row(rule, metric).n]
    fullest = max((group.row(rule, metric).n for group in measured), default=0)
    alike: dict[object, dict[tuple[str, str], Group]] = {}
    for group in measured:
        same = (group.method, *group.varying.items())
        alike.setdefault(same, {})[group.data, group.sweep] = group
    rows = []
    for of_column in alike.values():
        cells = []
        for column, top in zip(columns, best, strict=True):
            row = of_column[column].row(rule, metric) if column in of_column else None
            few = row is not None and row.n < fullest
            cells.append(Cell(row, row is not None and row.group is top, few))
        values = [cell.value for cell in cells if cell.value is not None]
        whole = len(values) == len(cells) and not several_sweeps
        name = next(iter(of_column.values())).short_name
        sees = any(group.saw_target_labels for group in of_column.values())
        rows.append(MatrixRow(name, sees, cells, mean_of(values) if whole else None))
    return sorted(rows, key=lambda row: -(row.average or 0.0))


def settings_of_sweeps(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """(sweep, the settings that all its jobs share and another sweep does not)."""
    listed = []
    for sweep in dict.fromkeys(group.sweep for group in groups):
        first = next(group for group in groups if group.sweep == sweep)
        shared = {key: value for key, value in first.settings.items() if key in first.shared}
        listed.append((sweep, " ".join(first.written(shared)) or NONE))
    return listed
