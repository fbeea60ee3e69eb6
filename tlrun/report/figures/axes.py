"""The figure of a sweep against each number that was swept: a line per combination of the rest.

    tlrun -m transfer.cut=0,1,2,3 transfer.freeze_carried=false,true seed=0,1,2

gives accuracy against `transfer.cut`, with a line for each value of `transfer.freeze_carried`: mean
over seeds, and their standard deviation as an error bar. Methods and data sets are lines as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tlrun.evaluate.figures import scale
from tlrun.report.figures.picture_kinds import draw_lines
from tlrun.report.read.entries import Missing
from tlrun.report.statistics.groups import Group, kind_in, label_in

MIN_VALUES = 3  # two values are read off the leaderboard
MAX_LINES = 12
MAX_PICTURES = 6


def draw_axes(groups: list[Group], metric: str, folder: Path) -> list[tuple[str, Path]]:
    """(key, picture) for each swept number; removes what an earlier call drew."""
    drawn: list[tuple[str, Path]] = []
    for key in numeric_keys(groups)[:MAX_PICTURES]:
        path = folder / f"against_{re.sub(r'[^A-Za-z0-9_.-]', '_', key)}.png"
        try:
            draw_lines(entry(groups, key, metric), path)
            drawn.append((key, path))
        except Missing:
            continue
    for old in set(folder.glob("against_*.png")) - {path for _, path in drawn}:
        old.unlink()
    return drawn


def numeric_keys(groups: Iterable[Group]) -> list[str]:
    """Settings that took at least three values, all of them numbers."""
    values: dict[str, set[str]] = {}
    for group in groups:
        for key, value in group.settings.items():
            values.setdefault(key, set()).add(value)
    return [
        key
        for key, taken in values.items()
        if len(taken) >= MIN_VALUES and all(_number(value) is not None for value in taken)
    ]


def entry(groups: list[Group], key: str, metric: str) -> dict[str, Any]:
    """The picture as pictures.json would describe it; by the selected checkpoints, shares in %.

    Values that are evenly spaced are an axis of numbers; others (1e-4, 1e-3, 1e-2) stand side by
    side. Raises Missing without a line of two points, or with more lines than can be told apart.
    """
    lines: dict[str, dict[str, Group]] = {}
    for group in groups:
        if key in group.settings and group.row("selected", metric).n:
            lines.setdefault(_name(group, key, groups), {})[group.settings[key]] = group
    lines = {name: points for name, points in lines.items() if len(points) > 1}
    if not lines:
        raise Missing(f"no two values of {key} have a result")
    if len(lines) > MAX_LINES:
        raise Missing(f"{len(lines)} lines are too many to tell apart")
    texts = sorted({value for points in lines.values() for value in points}, key=float)
    numbers = [float(value) for value in texts]
    x: list[Any] = numbers if _even(numbers) else texts
    jobs = [job for group in groups for job in group.done]
    times = scale(kind_in(jobs, metric).unit)
    series = []
    for name, points in sorted(lines.items()):
        spreads = [points[t].row("selected", metric) if t in points else None for t in texts]
        means = [None if s is None else s.mean for s in spreads]
        stds = [None if s is None else s.std for s in spreads]
        keep = [i for i, mean in enumerate(means) if mean is not None or x is texts]
        series.append(
            {
                "name": name,
                "x": [x[i] for i in keep],
                "y": [_times(means[i], times) for i in keep],
                "error": [_times(stds[i], times) for i in keep],
            }
        )
    return {"kind": "lines", "x_label": key, "y_label": label_in(jobs, metric), "series": series}


def _name(group: Group, key: str, groups: list[Group]) -> str:
    """What tells the line from others: method and data only where there are several."""
    parts = [
        getattr(group, what)
        for what in ("data", "method")
        if len({getattr(other, what) for other in groups}) > 1
    ]
    parts += [f"{k}={v}" for k, v in group.settings.items() if k != key]
    return " ".join(parts)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _even(numbers: list[float]) -> bool:
    """Whether the widest gap is at most ten times the narrowest: readable on a linear axis."""
    gaps = [b - a for a, b in pairwise(numbers)]
    return max(gaps) <= 10 * min(gaps)


def _times(value: float | None, times: float) -> float | None:
    return None if value is None else times * value
