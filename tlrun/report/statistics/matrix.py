"""Method x data under one rule: the table of a paper, the best of each column in bold.

A column is a data set or a pair of domains, the last one the mean over them: printed where a row
has all of them, else how many it has.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from tlrun.evaluate.figures import Unit
from tlrun.report.formats import NONE, with_interval
from tlrun.report.statistics.groups import FigureRow, Group, best_of, kind_in
from tlrun.report.statistics.over_data import alike

NAMED = 3  # missing columns that are named for a row
Column = tuple[str, str]  # (data, sweep)


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
    """sees: target labels, in any cell; missing: the heads of its empty cells.

    average: over the columns, None where one is empty or the columns are no data. std: over seeds,
    of the mean over the columns, None where the cells do not all have the same two seeds or more.
    """

    name: str
    sees: bool
    cells: list[Cell]
    missing: list[str]
    average: float | None
    std: float | None
    unit: Unit
    best: bool = False

    @property
    def average_text(self) -> str:
        """'61.2 ± 0.8', or '3 of 4'."""
        if self.average is None:
            return f"{len(self.cells) - len(self.missing)} of {len(self.cells)}"
        return with_interval(self.average, self.std, self.unit)


@dataclass(frozen=True)
class Matrix:
    """names: of the columns in full, as a file has them.

    averaged: whether the columns are data sets or pairs, whose mean says something.

    common: what stands before every head, a data set ("pacs"), or "". others: "source" or "target"
    where that side of each pair is all other domains, and the heads name the other side alone.
    """

    rule: str
    heads: list[str]
    names: list[str]
    averaged: bool
    rows: list[MatrixRow]
    common: str = ""
    others: str = ""

    @property
    def columns_are(self) -> str:
        return "pair" if all("→" in head for head in self.heads) else "data"

    @property
    def gaps(self) -> list[str]:
        """Of each incomplete row what it lacks."""
        said = []
        for row in self.rows if self.averaged else ():
            if row.missing:
                more = len(row.missing) - NAMED
                names = ", ".join(row.missing[:NAMED]) + (f" and {more} more" if more > 0 else "")
                said.append(f"{row.name} lacks {names}")
        return said


def matrices(groups: Sequence[Group], metric: str, rules: Sequence[str]) -> list[Matrix]:
    """One per rule; [] where there is one column only, which the leaderboard shows."""
    columns = sorted({(group.data, group.sweep) for group in groups})
    sets, sweeps = ({column[part] for column in columns} for part in (0, 1))
    if len(columns) < 2:
        return []
    if len(columns) > len(sets) > 1:  # the same data in several sweeps, which are rows then
        return [_matrix(groups, metric, rule, _in_rows, alike, _named) for rule in rules]
    if len(sweeps) > 1:
        return [_matrix(groups, metric, rule, _in_columns, _no_sweep, _short) for rule in rules]
    return [_matrix(groups, metric, rule, _in_rows, alike, _short) for rule in rules]


def chosen_matrix(chosen: Sequence[Group], metric: str) -> Matrix | None:
    """Method x data, each cell the setting that was chosen there; None with one column."""
    if len({group.data for group in chosen}) < 2:
        return None
    return _matrix(chosen, metric, "selected", _in_rows, _method, _method_name)


def _in_rows(group: Group) -> Column:
    return group.data, ""


def _in_columns(group: Group) -> Column:
    return group.data, group.sweep


def _no_sweep(group: Group) -> Hashable:
    return (group.method, *group.varying.items())


def _method(group: Group) -> Hashable:
    return group.method, group.sweep


def _named(group: Group) -> str:
    return group.name


def _short(group: Group) -> str:
    return group.short_name


def _method_name(group: Group) -> str:
    return " ".join([group.method, *([f"[{group.sweep}]"] if group.sweep else [])])


def _matrix(
    groups: Sequence[Group],
    metric: str,
    rule: str,
    column_of: Callable[[Group], Column],
    row_of: Callable[[Group], Hashable],
    name_of: Callable[[Group], str],
) -> Matrix:
    """Complete rows by their mean, then the others as the leaderboard has them."""
    data_heads, common, others = heads(groups)
    columns = sorted({column_of(group) for group in groups}, key=lambda c: (data_heads[c[0]], c))
    averaged = len({sweep for _, sweep in columns}) == 1
    several = len(data_heads) > 1
    names = [
        " · ".join([*([data_heads[data]] if several else []), *([sweep] if sweep else [])])
        for data, sweep in columns
    ]
    of_column: dict[Column, list[Group]] = {}
    table: dict[Hashable, dict[Column, Group]] = {}
    for group in groups:
        if group.row(rule, metric).n:
            of_column.setdefault(column_of(group), []).append(group)
            table.setdefault(row_of(group), {})[column_of(group)] = group
    best = {column: best_of(inside, metric, rule) for column, inside in of_column.items()}
    jobs = [job for group in groups for job in group.done]
    kind = kind_in(jobs, metric)
    fullest = max(
        (g.row(rule, metric).n for line in table.values() for g in line.values()), default=0
    )
    rows = []
    for line in table.values():
        cells = []
        for column in columns:
            row = line[column].row(rule, metric) if column in line else None
            leads = row is not None and row.group is best[column]
            cells.append(Cell(row, leads, row is not None and row.n < fullest))
        first = next(iter(line.values()))
        missing = [name for name, cell in zip(names, cells, strict=True) if cell.row is None]
        average, std = (None, None) if missing or not averaged else _mean(cells)
        sees = any(group.saw_target_labels for group in line.values())
        rows.append(MatrixRow(name_of(first), sees, cells, missing, average, std, kind.unit))
    sign = 1 if kind.higher_is_better is False else -1
    rows.sort(key=lambda row: (row.average is None, sign * (row.average or 0.0)))
    whole = [" · ".join(part for part in column if part) for column in columns]
    return Matrix(rule, names, whole, averaged, _with_best(rows), common if several else "", others)


def _mean(cells: Sequence[Cell]) -> tuple[float, float | None]:
    """Over whole columns, and its spread where all of them have the same seeds."""
    rows = [cell.row for cell in cells if cell.row is not None]
    mean = statistics.fmean(row.mean or 0.0 for row in rows)
    seeds = list(rows[0].values)
    if len(seeds) < 2 or any(row.values.keys() != rows[0].values.keys() for row in rows):
        return mean, None
    by_seed = [statistics.fmean(row.values[seed] for row in rows) for seed in seeds]
    return mean, statistics.stdev(by_seed)


def _with_best(rows: list[MatrixRow]) -> list[MatrixRow]:
    """The first mean of a row that saw no target label, where there are two means to compare."""
    fair = [row for row in rows if row.average is not None and not row.sees]
    if not fair:
        return rows
    top = fair[0].average
    return [replace(row, best=not row.sees and row.average == top) for row in rows]


def heads(groups: Sequence[Group]) -> tuple[dict[str, str], str, str]:
    """{data: what heads its column}, what all of them have in front, which side is the others.

    "pacs photo→sketch" is "photo → sketch" where all are of pacs, and "→ sketch" where the source
    of every column is all other domains that the columns name.
    """
    firsts: Mapping[str, Group] = {group.data: group for group in reversed(groups)}
    domains = {data: group.jobs[0].domains for data, group in firsts.items()}
    sets = {group.data_set for group in firsts.values()}
    common = sets.pop() if len(sets) == 1 else ""
    if not all(data.startswith(f"{common} ") for data in firsts):
        common = ""
    everything = {name for one in domains.values() for name in (*one.source, *one.target)}
    whole = len(domains) > 1 and all(
        {*one.source, *one.target} == everything for one in domains.values()
    )
    paired = all("→" in data for data in firsts)
    if whole and paired and all(len(d.source) > 1 == len(d.target) for d in domains.values()):
        return {data: f"→ {one.target_name}" for data, one in domains.items()}, common, "source"
    if whole and paired and all(len(d.target) > 1 == len(d.source) for d in domains.values()):
        return {data: f"{one.source_name} →" for data, one in domains.items()}, common, "target"
    prefix = f"{common} " if common else ""
    return {d: d.removeprefix(prefix).replace("→", " → ") for d in firsts}, common, ""


def settings_of_sweeps(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """(sweep, the settings that all its jobs share and another sweep does not)."""
    listed = []
    for sweep in dict.fromkeys(group.sweep for group in groups):
        first = next(group for group in groups if group.sweep == sweep)
        shared = {key: value for key, value in first.settings.items() if key in first.shared}
        listed.append((sweep, " ".join(first.written(shared)) or NONE))
    return listed
