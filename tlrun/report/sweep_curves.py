"""The learning curves of a sweep: a panel per data set, a line per group of seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tlrun.report.curves import ORACLE, STROKES
from tlrun.report.groups import Group
from tlrun.report.record import series
from tlrun.report.style import LINES, Missing, figure, short

SOURCE_VAL = "source_val/accuracy"
PANELS = 12


def draw_learning_curves(groups: list[Group], path: Path) -> None:
    """Mean over seeds as a line, lowest to highest as a band. Raises Missing without a log."""
    logged = {id(g): [row for job in g.jobs for row in job.split("eval")] for g in groups}
    everything = [row for rows in logged.values() for row in rows]
    key = ORACLE if series(everything, ORACLE)[0].size else SOURCE_VAL
    drawn = [g for g in groups if series(logged[id(g)], key)[0].size]
    if not drawn:
        raise Missing("nothing was logged over steps")
    sets = list(dict.fromkeys(group.data for group in drawn))[:PANELS]
    names = list(dict.fromkeys(group.name for group in drawn))
    columns = min(2, len(sets))
    rows = -(-len(sets) // columns)
    legend = 0.22 * -(-len(names) // 2)
    with figure(path, 0.6 + 2.9 * rows + legend, rows=rows, columns=columns, sharey=True) as (
        fig,
        axes,
    ):
        what = "Target test accuracy" if key == ORACLE else "Source validation accuracy"
        fig.suptitle(
            f"{what}: mean over seeds, and the band from the lowest to the highest seed.",
            x=0.01,
            ha="left",
            fontsize=10,
        )
        for ax in axes.flat[len(sets) :]:
            ax.set_visible(False)
        handles: dict[str, Any] = {}
        for ax, data in zip(axes.flat, sets, strict=False):
            ax.set(title=data, xlabel="training step")
            for group in (g for g in drawn if g.data == data):
                place = names.index(group.name)
                look = {
                    "color": LINES[place % len(LINES)],
                    "ls": STROKES[place // len(LINES) % len(STROKES)],
                }
                handles.setdefault(group.name, _draw_group(ax, group, key, look))
        for ax in axes[:, 0]:
            ax.set_ylabel("accuracy, %")
        labels = [short(name, 60) for name in handles]
        fig.legend(
            handles.values(), labels, loc="outside lower left", ncols=2 if len(labels) > 1 else 1
        )


def _draw_group(ax: Any, group: Group, key: str, look: dict[str, str]) -> Any:
    """Seeds share their steps; where one stopped early the others go on without it."""
    values: dict[float, list[float]] = {}
    for job in group.jobs:
        for at, value in zip(*series(job.split("eval"), key), strict=True):
            values.setdefault(float(at), []).append(100 * float(value))
    steps = sorted(values)
    if any(len(values[step]) > 1 for step in steps):
        low, high = ([edge(values[step]) for step in steps] for edge in (min, max))
        ax.fill_between(steps, low, high, color=look["color"], alpha=0.15, lw=0)
    mean = [float(np.mean(values[step])) for step in steps]
    return ax.plot(steps, mean, lw=1.6, marker="o" if len(steps) == 1 else None, **look)[0]
