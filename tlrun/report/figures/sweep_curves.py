"""The learning curves of a sweep: a panel per data set, a line per group of seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tlrun.evaluate.figures import axis, kind_of, scale
from tlrun.report.figures.curves import ORACLES, STROKES
from tlrun.report.figures.style import LINES, Missing, figure, short
from tlrun.report.read.groups import Group
from tlrun.report.read.record import series

SOURCE_VAL = "source_val/accuracy"
PANELS = 12
NAMED = 14  # groups with a look of their own, the first of the table: 7 colours, 2 strokes
OTHER = {"color": "#b9b9b9", "lw": 0.7, "zorder": 1}


def draw_learning_curves(groups: list[Group], path: Path) -> None:
    """Mean over seeds as a line, lowest to highest as a band. Raises Missing without a log."""
    logged = {id(g): [row for job in g.jobs for row in job.split("eval")] for g in groups}
    everything = [row for rows in logged.values() for row in rows]
    key = next((key for key in ORACLES if series(everything, key)[0].size), SOURCE_VAL)
    kind = kind_of(key)
    drawn = [g for g in groups if series(logged[id(g)], key)[0].size]
    if not drawn:
        raise Missing("nothing was logged over steps")
    sets = list(dict.fromkeys(group.data for group in drawn))[:PANELS]
    keys = list(dict.fromkeys(group.key for group in drawn))
    named, rest = keys[:NAMED], len(keys) - NAMED
    names = [next(g.name for g in drawn if g.key == key) for key in named]
    columns = min(2, len(sets))
    rows = -(-len(sets) // columns)
    legend = 0.22 * -(-(len(names) + (rest > 0)) // 2)
    with figure(path, 0.6 + 2.9 * rows + legend, rows=rows, columns=columns, sharey=True) as (
        fig,
        axes,
    ):
        what = f"{'Source validation' if key == SOURCE_VAL else 'Target test'} {kind.name}"
        fig.suptitle(
            f"{what}: mean over seeds, and the band from the lowest to the highest seed.",
            x=0.01,
            ha="left",
            fontsize=10,
        )
        for ax in axes.flat[len(sets) :]:
            ax.set_visible(False)
        handles: dict[int, Any] = {}
        for ax, data in zip(axes.flat, sets, strict=False):
            ax.set(title=data, xlabel="training step")
            for group in (g for g in drawn if g.data == data):
                if group.key in named:
                    place = named.index(group.key)
                    handles.setdefault(place, _draw_group(ax, group, key, _look(place)))
                else:
                    handles.setdefault(NAMED, _draw_group(ax, group, key, OTHER, band=False))
        for ax in axes[:, 0]:
            ax.set_ylabel(axis(kind.name, kind.unit))
        places = sorted(handles)
        texts = [*(short(name, 60) for name in names), f"{rest} others, further down the table"]
        fig.legend(
            [handles[place] for place in places],
            [texts[place] for place in places],
            loc="outside lower left",
            ncols=2 if len(places) > 1 else 1,
        )


def _look(place: int) -> dict[str, Any]:
    return {
        "color": LINES[place % len(LINES)],
        "ls": STROKES[place // len(LINES) % len(STROKES)],
        "lw": 1.6,
    }


def _draw_group(ax: Any, group: Group, key: str, look: dict[str, Any], *, band: bool = True) -> Any:
    """Seeds share their steps; where one stopped early the others go on without it."""
    values: dict[float, list[float]] = {}
    times = scale(kind_of(key).unit)
    for job in group.jobs:
        for at, value in zip(*series(job.split("eval"), key), strict=True):
            values.setdefault(float(at), []).append(times * float(value))
    steps = sorted(values)
    if band and any(len(values[step]) > 1 for step in steps):
        low, high = ([edge(values[step]) for step in steps] for edge in (min, max))
        ax.fill_between(steps, low, high, color=look["color"], alpha=0.15, lw=0)
    mean = [float(np.mean(values[step])) for step in steps]
    return ax.plot(steps, mean, marker="o" if len(steps) == 1 else None, **look)[0]
