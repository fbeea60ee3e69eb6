"""The pictures of a search: its value over trials, and against each parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlrun.evaluate.figures import axis, finite, scale
from tlrun.report.figures.style import LINES, QUIET, TARGET, figure, short
from tlrun.report.formats import sentence_case
from tlrun.report.read.entries import Missing
from tlrun.report.statistics.search import SearchRecord, TrialRecord, param_text

DECADES = 1.3  # log10(largest / smallest): from here on an axis may be logarithmic
PANELS = 12


def draw_history(search: SearchRecord, path: Path) -> None:
    """Value by trial with the best so far; below, target test, which the search never saw.

    Raises Missing if no trial has a value.
    """
    valued = search.valued
    if not valued:
        raise Missing("no trial has a value")
    tested = [trial for trial in valued if trial.test is not None]
    with figure(path, 5.4 if tested else 3.2, rows=2 if tested else 1, sharex=True) as (fig, axes):
        top = axes[0, 0]
        top.set_title(f"{_name(search)} by trial: what the search looked at")
        top.plot(*_points(valued, "value"), "o", color=LINES[0], ms=4, label="trial")
        top.plot(*_best_so_far(search), color=LINES[0], lw=1.4, drawstyle="steps-post",
                 label="best so far")  # fmt: skip
        _cross_failed(top, [(t.number, t) for t in search.trials if t.failed])
        _mark(top, search, lambda trial: trial.number, lambda trial: trial.value)
        top.set_ylabel(short(_name(search), 28))
        if tested:
            below = axes[1, 0]
            label, times = axis(search.test_name, search.test_unit), scale(search.test_unit)
            below.set_title(f"{sentence_case(label)}: for reading only, no choice looked at it")
            at, test = _points(tested, "test")
            below.plot(at, times * test, "o", color=TARGET, ms=4)
            _mark(
                below,
                search,
                lambda trial: trial.number,
                lambda trial: None if trial.test is None else times * trial.test,
            )
            below.set_ylabel(short(label, 28))
        axes[-1, 0].set_xlabel("trial")
        axes[-1, 0].xaxis.get_major_locator().set_params(integer=True)
        _legend(fig, top)


def draw_params(search: SearchRecord, path: Path) -> None:
    """A panel per parameter, value against it. Raises Missing without a parameter that varies."""
    names = search.params[:PANELS]
    if not names or not search.valued:
        raise Missing("no parameter took two values in trials with a value")
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    with figure(path, 0.7 + 2.6 * rows, rows=rows, columns=columns, sharey=True) as (fig, axes):
        for ax in axes.flat[len(names) :]:
            ax.set_visible(False)
        for ax, key in zip(axes.flat, names, strict=False):
            _draw_param(ax, search, key)
        for ax in axes[:, 0]:
            ax.set_ylabel(short(_name(search), 24))
        _legend(fig, axes[0, 0])


def _draw_param(ax: Any, search: SearchRecord, key: str) -> None:
    place = _axis(ax, [t.params[key] for t in search.trials if key in t.params])
    valued = [trial for trial in search.valued if key in trial.params]
    at = [place(trial.params[key]) for trial in valued]
    ax.plot(at, [trial.value for trial in valued], "o", color=LINES[0], ms=4, label="trial")
    failed = [t for t in search.trials if t.failed and key in t.params]
    _cross_failed(ax, [(place(t.params[key]), t) for t in failed])
    _mark(
        ax,
        search,
        lambda trial: place(trial.params[key]) if key in trial.params else None,
        lambda trial: trial.value,
    )
    ax.set_xlabel(short(key, 40))


def _axis(ax: Any, values: Sequence[Any]) -> Any:
    """Set the scale; returns the function from a parameter's value to its place on the axis."""
    numeric = [finite(value) for value in values]
    if all(value is not None for value in numeric):
        numbers = [value for value in numeric if value is not None]
        if _spans_decades(numbers):
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            ax.xaxis.set_minor_formatter(lambda value, _: "")
        else:
            ax.xaxis.get_major_locator().set_params(nbins=5)  # more would touch: 0.0025, 0.0030
        return float
    names = sorted({param_text(value) for value in values})
    ax.set_xticks(range(len(names)), [short(name, 14) for name in names],
                  rotation=30 if len(names) > 4 else 0)  # fmt: skip
    ax.set_xlim(-0.5, len(names) - 0.5)
    return lambda value: names.index(param_text(value))


def _spans_decades(values: list[float]) -> bool:
    """Not so for values that are even on a linear axis and only begin near 0."""
    low, high = min(values), max(values)
    if low <= 0 or math.log10(high / low) <= DECADES:
        return False
    return float(np.median(values)) < low + (high - low) / 4


def _mark(ax: Any, search: SearchRecord, x: Any, y: Any) -> None:
    """The best trial and the oracle's, in every panel by the same signs."""
    signs = (
        (search.best, "*", 13, LINES[1], "best by the search"),
        (search.oracle, "o", 10, "#000000", "the oracle's choice, by target test labels"),
    )
    for trial, sign, size, colour, label in signs:
        if trial is None or x(trial) is None or y(trial) is None:
            continue
        fill = colour if sign == "*" else "none"
        ax.plot([x(trial)], [y(trial)], sign, ms=size, mec=colour, mfc=fill, label=label, zorder=4)


def _cross_failed(ax: Any, failed: list[tuple[float, TrialRecord]]) -> None:
    if failed:
        ax.plot(
            [at for at, _ in failed],
            [0.03] * len(failed),
            "x",
            color=QUIET,
            ms=6,
            mew=1.6,
            transform=ax.get_xaxis_transform(),
            clip_on=False,
            label="no value (failed or guarded)",
        )


def _legend(fig: Any, ax: Any) -> None:
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower left", ncols=3)


def _best_so_far(search: SearchRecord) -> tuple[list[int], Any]:
    values = np.array([trial.value for trial in search.valued], dtype=float)
    best = (np.maximum if search.maximize else np.minimum).accumulate(values)
    return [trial.number for trial in search.valued], best


def _points(trials: list[TrialRecord], what: str) -> tuple[list[int], Any]:
    values = np.array([getattr(trial, what) for trial in trials], dtype=float)
    return [trial.number for trial in trials], values


def _name(search: SearchRecord) -> str:
    return search.metric.replace("_", " ")
