"""The curves of one run over its training steps."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrun.evaluate.figures import ACCURACY, IOU, finite, kind_of
from tlrun.evaluate.selection import SUPERVISED
from tlrun.report.figures.style import LINES, QUIET, SOURCE, STROKES, TARGET, figure, line_look
from tlrun.report.read.entries import Missing
from tlrun.report.read.rows import keys, series
from tlrun.report.read.run_record import RunRecord

ORACLES = SUPERVISED["oracle"]  # what rows hold of the target test: one of them
Curve = tuple[str, NDArray[np.float64], NDArray[np.float64]]
Panel = tuple[str, float, list[Curve], Callable[[Any, list[Curve]], None]]


def draw_curves(record: RunRecord, path: Path) -> None:
    """Losses, accuracies, validators and schedules over one axis of steps.

    Raises Missing when the log holds nothing to draw.
    """
    panels = [panel for panel in _panels(record) if panel[2]]
    if not panels:
        raise Missing("nothing was logged over steps")
    heights = [height for _, height, _, _ in panels]
    with figure(
        path,
        sum(heights) + 0.7,
        rows=len(panels),
        sharex=True,
        gridspec_kw={"height_ratios": heights},
    ) as (_, axes):
        for ax, (title, _, curves, draw) in zip(axes[:, 0], panels, strict=True):
            ax.set_title(title)
            draw(ax, curves)
            legend = ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.6)
            for text in legend.get_texts():  # the curves need the width more than the names do
                text.set_text(textwrap.fill(text.get_text().replace("_", " "), 20))
        for place, ax in enumerate(axes[:, 0]):
            _mark_phases(ax, record, named=place == 0)
            _mark_selected(ax, record, named=place == len(panels) - 1)
        axes[-1, 0].set_xlabel("training step")


def _panels(record: RunRecord) -> list[Panel]:
    """(title, height, curves, how they are drawn), from top to bottom; some have no curve."""
    train, evaluations = record.training_rows, record.evaluations
    validators = _named(evaluations, keys(evaluations, "validator/"))
    scheduled = [*keys(train, "lr"), *(k for k in keys(train, "metric/") if "lambda" in k)]
    rule, peak = str(record.summary.get("selection_rule")), record.summary.get("peak_learning_rate")
    return [
        ("Training losses", 2.2, _named(train, keys(train, "loss/")), _draw_losses),
        (_accuracy_title(record), 2.2, _accuracies(record), _draw_accuracies),
        (
            "Validators, each rescaled to its own range (higher is better)",
            max(2.0, 0.3 + 0.22 * len(validators)),  # as high as the legend is
            validators,
            partial(_draw_rescaled, rule=rule),
        ),
        (
            "Schedules, as a share of their largest value",
            1.2,
            _named(train, scheduled),
            partial(_draw_schedules, peak_lr=finite(peak)),
        ),
    ]


def _named(rows: list[dict[str, Any]], names: list[str]) -> list[Curve]:
    return [(name.split("/", 1)[-1], *series(rows, name)) for name in names]


def _accuracies(record: RunRecord) -> list[Curve]:
    rows, train = record.evaluations, record.training_rows
    named = [("source, validation", "source_val/accuracy")]
    named += [("target, test (oracle)", key) for key in ORACLES]
    curves = [(name, *series(rows, key)) for name, key in named if series(rows, key)[0].size]
    logged = [key for key in keys(train, "metric/") if key.endswith("accuracy")]
    smooth = [(name, at, _smooth(value)) for name, at, value in _named(train, logged)]
    return curves + _tasks(rows) + smooth


def _tasks(rows: list[dict[str, Any]]) -> list[Curve]:
    """Accuracy, or IoU of boxes, of each of several tasks; of the only one where it is measured."""
    names = {ACCURACY: "", IOU: " IoU"}
    split = {key: key.rpartition("_val/") for key in keys(rows, "")}
    measured = {k: task for k, (task, val, _) in split.items() if val and kind_of(k) in names}
    tasks = {k: task for k, task in measured.items() if task not in ("source", "target")}
    if not tasks:
        tasks = {k: task for k, task in measured.items() if task == "target"}
    return [
        (f"{task}{names[kind_of(key)]}, validation", *series(rows, key))
        for key, task in tasks.items()
    ]


def _accuracy_title(record: RunRecord) -> str:
    rows = record.evaluations
    kinds = dict.fromkeys(kind_of(key) for key in keys(rows, ""))
    boxes = ", and mean IoU in hundredths" if IOU in kinds else ""
    if not any(series(rows, key)[0].size for key in ORACLES):
        return f"Accuracy, %{boxes}"
    return f"Accuracy, %{boxes} (the target's test is shown for reference; " + (
        "selection used it)"
        if record.summary.get("selection_rule") == "oracle"
        else "selection did not see it)"
    )


def _draw_losses(ax: Any, curves: list[Curve]) -> None:
    for place, (name, at, value) in enumerate(curves):
        look = line_look(place)
        smooth = _smooth(value)
        if smooth is not value:
            ax.plot(at, value, lw=0.6, alpha=0.25, **look)
        ax.plot(at, smooth, lw=1.6, label=name, marker="o" if len(at) == 1 else None, **look)
    values = np.concatenate([value for _, _, value in curves])
    # One exploding term would otherwise press all the others flat.
    if values.min() > 0 and values.max() > 50 * np.median(values):
        ax.set_yscale("log")


def _draw_accuracies(ax: Any, curves: list[Curve]) -> None:
    looks = {
        "source, validation": {"color": SOURCE, "lw": 1.6},
        "target, test (oracle)": {"color": TARGET, "lw": 1.6, "ls": "--"},
    }
    others = [n for n, _, _ in curves if n.endswith(", validation") and n not in looks]
    for place, name in enumerate(others, start=2):  # after the colours of source and target
        looks[name] = {"color": LINES[place % len(LINES)], "lw": 1.6}
    for name, at, value in curves:
        look = looks.get(name, {"color": QUIET, "lw": 1.0})
        marked = len(at) < 40 and name in looks
        ax.plot(at, 100 * value, label=name, marker="o" if marked else None, ms=3, **look)


def _draw_rescaled(ax: Any, curves: list[Curve], rule: str) -> None:
    for place, (name, at, value) in enumerate(curves):
        low, span = value.min(), np.ptp(value)
        scaled = (value - low) / span if span > 0 else np.full_like(value, 0.5)
        chosen = name == rule
        ax.plot(
            at,
            scaled,
            lw=2.4 if chosen else 1.0,
            label=f"{name} (the rule)" if chosen else name,
            marker="o" if len(at) == 1 else None,
            **line_look(place),
        )
    ax.set_yticks([0, 1], ["lowest", "highest"])


def _draw_schedules(ax: Any, curves: list[Curve], peak_lr: float | None) -> None:
    """peak_lr: the largest there was, where that is known: rows are written now and then."""
    for place, (name, at, value) in enumerate(curves):
        stated = peak_lr if name == "lr" else None
        peak = float(np.abs(value).max()) if stated is None else stated
        kind = "largest logged" if stated is None else "peak"
        label = {"lr": "learning rate", "lambda": "λ"}.get(name, name)
        ax.plot(
            at,
            value / peak if peak > 0 else value,
            color=LINES[place % len(LINES)],
            ls=STROKES[place % len(STROKES)],
            lw=1.4,
            label=f"{label} ({kind} {peak:.3g})",
            marker="o" if len(at) == 1 else None,
        )
    ax.set_ylim(-0.05, 1.08)


def _mark_selected(ax: Any, record: RunRecord, named: bool) -> None:
    at = record.selected_at
    if at is None:
        return
    ax.axvline(at, color="#000000", lw=1, ls=(0, (4, 3)), zorder=1)
    if named:
        ax.annotate(
            f"selected: step {record.figures('selected')['step']}",
            xy=(at, 0.06),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if _in_right_half(ax, at) else 4, 0),
            textcoords="offset points",
            ha="right" if _in_right_half(ax, at) else "left",
            fontsize=9,
        )


def _in_right_half(ax: Any, at: float) -> bool:
    low, high = ax.get_xlim()
    return bool(at > (low + high) / 2)


def _mark_phases(ax: Any, record: RunRecord, named: bool) -> None:
    starts: dict[str, float] = {}
    for row in record.rows:
        if row.get("phase"):
            starts.setdefault(str(row["phase"]), row["global_step"])
    if len(starts) < 2:
        return
    for phase, at in starts.items():
        ax.axvline(at, color=QUIET, lw=0.8, ls=":")
        if named:
            ax.annotate(
                phase,
                (at, 0.98),
                xycoords=("data", "axes fraction"),
                rotation=90,
                va="top",
                fontsize=8,
                color=QUIET,
            )


def _smooth(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred moving mean over 1/40 of the log; short logs come back as they are."""
    half = len(value) // 80
    if half == 0:
        return value
    sums = np.cumsum(np.concatenate([[0.0], value]))
    low = np.clip(np.arange(len(value)) - half, 0, None)
    high = np.clip(np.arange(len(value)) + half + 1, None, len(value))
    return np.asarray((sums[high] - sums[low]) / (high - low))
