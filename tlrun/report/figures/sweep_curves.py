"""The learning curves of a sweep: a panel per data set, a line per group of seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tlrun.evaluate.figures import axis, kind_of, scale
from tlrun.messages import plural
from tlrun.report.figures.curves import ORACLES
from tlrun.report.figures.style import figure, line_look, short
from tlrun.report.read.entries import Missing
from tlrun.report.read.rows import series
from tlrun.report.statistics.groups import Group

SOURCE_VAL = "source_val/accuracy"
PANELS = 12
NAMED = 14  # groups with a look of their own, the first of the table: 7 colours, 2 strokes
OTHER = {"color": "#b9b9b9", "lw": 0.7, "zorder": 1}


def draw_learning_curves(groups: list[Group], path: Path) -> None:
    """Mean over seeds as a line, lowest to highest as a band. Raises Missing without a log."""
    logged = {group: [row for job in group.jobs for row in job.evaluations] for group in groups}
    everything = [row for rows in logged.values() for row in rows]
    key = next((key for key in ORACLES if series(everything, key)[0].size), SOURCE_VAL)
    kind = kind_of(key)
    drawn = [group for group, rows in logged.items() if series(rows, key)[0].size]
    if not drawn:
        raise Missing("nothing was logged over steps")
    sets = list(dict.fromkeys(group.data for group in drawn))[:PANELS]
    names = {group.key: group.name for group in reversed(drawn)}  # the first of each key
    places = {key: place for place, key in enumerate(dict.fromkeys(g.key for g in drawn))}
    columns = min(2, len(sets))
    rows = -(-len(sets) // columns)
    legend = 0.22 * -(-min(len(places), NAMED + 1) // 2)
    with figure(path, 0.6 + 2.9 * rows + legend, rows=rows, columns=columns, sharey=True) as (
        fig,
        axes,
    ):
        what = f"{'Source validation' if key == SOURCE_VAL else 'Target test'} {kind.name}"
        title = f"{what}: mean over seeds, and the band from the lowest to the highest seed."
        fig.suptitle(title, x=0.01, ha="left", fontsize=10)
        for ax in axes.flat[len(sets) :]:
            ax.set_visible(False)
        handles: dict[int, tuple[Any, str]] = {}
        for ax, data in zip(axes.flat, sets, strict=False):
            ax.set(title=data, xlabel="training step")
            for group in (group for group in drawn if group.data == data):
                place = min(places[group.key], NAMED)
                line = _draw_group(ax, group, key, place)
                rest = f"{plural(len(places) - NAMED, 'other')}, further down the table"
                name = short(names[group.key], 60) if place < NAMED else rest
                handles.setdefault(place, (line, name))
        for ax in axes[:, 0]:
            ax.set_ylabel(axis(kind.name, kind.unit))
        lines, texts = zip(*(handles[place] for place in sorted(handles)), strict=True)
        fig.legend(lines, texts, loc="outside lower left", ncols=2 if len(lines) > 1 else 1)


def _draw_group(ax: Any, group: Group, key: str, place: int) -> Any:
    """Seeds share their steps; where one stopped early the others go on without it."""
    named = place < NAMED
    look = {"lw": 1.6, **line_look(place)} if named else OTHER
    values: dict[float, list[float]] = {}
    times = scale(kind_of(key).unit)
    for job in group.jobs:
        for at, value in zip(*series(job.evaluations, key), strict=True):
            values.setdefault(float(at), []).append(times * float(value))
    steps = sorted(values)
    if named and any(len(values[step]) > 1 for step in steps):
        low, high = ([edge(values[step]) for step in steps] for edge in (min, max))
        ax.fill_between(steps, low, high, color=look["color"], alpha=0.15, lw=0)
    mean = [float(np.mean(values[step])) for step in steps]
    return ax.plot(steps, mean, marker="o" if len(steps) == 1 else None, **look)[0]
