"""Method x data under one rule: the table of a paper, the best of each column in bold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tlrun.report.pages import render
from tlrun.report.read.groups import Group, best_of, kind_in


@dataclass(frozen=True)
class Cell:
    text: str
    value: float | None
    best: bool
    note: str  # "n = 2" where a cell has fewer seeds than the fullest one


def matrices(groups: Sequence[Group], metric: str, rules: Sequence[str]) -> list[dict[str, Any]]:
    """One table per rule; [] where there is one column only, which the leaderboard shows."""
    columns = list(dict.fromkeys((group.sweep, group.data) for group in groups))
    columns.sort(key=lambda column: (column[1], column[0]))
    if len(columns) < 2:
        return []
    several_sweeps = len({sweep for sweep, _ in columns}) > 1
    several_data = len({data for _, data in columns}) > 1
    heads = [
        " · ".join([*([data] if several_data else []), *([sweep] if several_sweeps else [])])
        for sweep, data in columns
    ]
    return [
        {
            "rule": rule,
            "heads": heads,
            "mean": not several_sweeps,
            "rows": _rows(groups, metric, rule, columns, mean=not several_sweeps),
            "unit": kind_in([job for group in groups for job in group.done], metric).unit,
        }
        for rule in rules
    ]


def _rows(
    groups: Sequence[Group],
    metric: str,
    rule: str,
    columns: list[tuple[str, str]],
    mean: bool,
) -> list[dict[str, Any]]:
    best = [best_of(_column(groups, column), metric, rule) for column in columns]
    fullest = max((group.spread(rule, metric).n for group in groups), default=0)
    rows: dict[Any, dict[tuple[str, str], Group]] = {}
    for group in (group for group in groups if group.spread(rule, metric).n):
        same = (group.method, *group.varying.items())
        rows.setdefault(same, {})[group.sweep, group.data] = group
    found: list[dict[str, Any]] = []
    for held in rows.values():
        name = next(iter(held.values())).short_name
        cells = [
            _cell(held.get(column), rule, metric, top, fullest)
            for column, top in zip(columns, best, strict=True)
        ]
        values = [cell.value for cell in cells if cell.value is not None]
        average = sum(values) / len(values) if mean and len(values) == len(cells) else None
        saw = any(group.saw_target_labels for group in held.values())
        found.append({"name": name, "saw": saw, "cells": cells, "average": average})
    averages = [row["average"] for row in found if row["average"] is not None and not row["saw"]]
    for row in found:
        row["best_average"] = bool(averages) and not row["saw"] and row["average"] == max(averages)
    # Complete rows by their mean, then the others as the leaderboard has them.
    return sorted(found, key=lambda row: -(row["average"] or 0.0))


def _column(groups: Sequence[Group], column: tuple[str, str]) -> list[Group]:
    return [group for group in groups if (group.sweep, group.data) == column]


def _cell(group: Group | None, rule: str, metric: str, best: Group | None, fullest: int) -> Cell:
    if group is None:
        return Cell(render.NONE, None, False, "")
    spread = group.spread(rule, metric)
    note = f"n = {spread.n}" if 0 < spread.n < fullest else ""
    return Cell(spread.text(), spread.mean, group is best, note)


def settings_of_sweeps(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """(sweep, the settings that all its jobs share and another sweep does not)."""
    found = []
    for sweep in dict.fromkeys(group.sweep for group in groups):
        first = next(group for group in groups if group.sweep == sweep)
        shared = {key: value for key, value in first.settings.items() if key in first.shared}
        found.append((sweep, " ".join(first.written(shared)) or render.NONE))
    return found
