"""The curves of one run over its training steps."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrun.evaluate.figures import IOU, kind_of
from tlrun.report.figures.style import LINES, QUIET, SOURCE, TARGET, Missing, figure
from tlrun.report.read.record import Record, keys, number, series

ORACLE = "oracle/target_test_accuracy"
ORACLES = (ORACLE, "oracle/target_test_iou")  # what rows hold of the target test: one of them
STROKES = ("-", "--", ":", "-.")
Curve = tuple[str, NDArray[np.float64], NDArray[np.float64]]


def draw_curves(record: Record, path: Path) -> None:
    """Losses, accuracies, validators and schedules over one axis of steps.

    Raises Missing when the log holds nothing to draw.
    """
    train, evaluations = record.split("train"), record.split("eval")
    losses = _named(train, keys(train, "loss/"))
    accuracies = _accuracies(record)
    validators = _named(evaluations, keys(evaluations, "validator/"))
    names = [
        k
        for k in [*keys(train, "lr"), *keys(train, "metric/")]
        if k.split("/")[0] == "lr" or "lambda" in k
    ]
    schedules = _named(train, names)
    panels: list[tuple[str, list[Curve], float]] = [
        ("Training losses", losses, 2.2),
        (_accuracy_title(record), accuracies, 2.2),
        (
            "Validators, each rescaled to its own range (higher is better)",
            validators,
            max(2.0, 0.3 + 0.22 * len(validators)),  # as high as the legend is
        ),
        ("Schedules, as a share of their largest value", schedules, 1.2),
    ]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        raise Missing("nothing was logged over steps")
    heights = [panel[2] for panel in panels]
    with figure(
        path,
        sum(heights) + 0.7,
        rows=len(panels),
        sharex=True,
        gridspec_kw={"height_ratios": heights},
    ) as (_, axes):
        for ax, (title, curves, _height) in zip(axes[:, 0], panels, strict=True):
            ax.set_title(title)
            if curves is losses:
                _draw_losses(ax, curves)
            elif curves is accuracies:
                _draw_accuracies(ax, curves)
            elif curves is validators:
                _draw_rescaled(ax, curves, chosen=str(record.summary.get("selection_rule")))
            else:
                peak = number(record.summary.get("peak_learning_rate"))
                _draw_schedules(ax, curves, {} if peak is None else {"lr": peak})
            ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.6)
            for (
                text
            ) in ax.get_legend().get_texts():  # the curves need the width more than the names do
                text.set_text(textwrap.fill(text.get_text().replace("_", " "), 20))
        for place, ax in enumerate(axes[:, 0]):
            _mark_phases(ax, record, named=place == 0)
            _mark_selected(ax, record, named=place == len(panels) - 1)
        axes[-1, 0].set_xlabel("training step")


def _named(rows: list[dict[str, Any]], names: list[str]) -> list[Curve]:
    return [(name.split("/", 1)[-1], *series(rows, name)) for name in names]


def _accuracies(record: Record) -> list[Curve]:
    rows, train = record.split("eval"), record.split("train")
    named = [("source, validation", "source_val/accuracy")]
    named += [("target, test (oracle)", key) for key in ORACLES]
    curves = [(name, *series(rows, key)) for name, key in named if series(rows, key)[0].size]
    logged = [key for key in keys(train, "metric/") if key.endswith("accuracy")]
    smooth = [(name, at, _smooth(value)) for name, at, value in _named(train, logged)]
    return curves + _tasks(rows) + smooth


def _tasks(rows: list[dict[str, Any]]) -> list[Curve]:
    """Accuracy, or IoU of boxes, of each of several tasks; of the only one where it is measured."""
    figures = {key: key.rpartition("_val/") for key in keys(rows, "")}
    found = {k: v for k, v in figures.items() if v[1] and v[2] in ("accuracy", "iou")}
    tasks = {k: v for k, v in found.items() if v[0] not in ("source", "target")}
    if not tasks:
        tasks = {k: v for k, v in found.items() if v[0] == "target"}
    unit = {"accuracy": "", "iou": " IoU"}
    return [(f"{v[0]}{unit[v[2]]}, validation", *series(rows, k)) for k, v in tasks.items()]


def _accuracy_title(record: Record) -> str:
    rows = record.split("eval")
    kinds = dict.fromkeys(kind_of(key) for key in keys(rows, ""))
    boxes = ", and mean IoU in hundredths" if IOU in kinds else ""
    if not any(series(rows, key)[0].size for key in ORACLES):
        return f"Accuracy, %{boxes}"
    return f"Accuracy, %{boxes} (the target's test is shown for reference; " + (
        "selection used it)"
        if record.summary.get("selection_saw_target_labels")
        else "selection did not see it)"
    )


def _draw_losses(ax: Any, curves: list[Curve]) -> None:
    for place, (name, at, value) in enumerate(curves):
        look = {
            "color": LINES[place % len(LINES)],
            "ls": STROKES[place // len(LINES) % len(STROKES)],
        }
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


def _draw_rescaled(ax: Any, curves: list[Curve], chosen: str) -> None:
    for place, (name, at, value) in enumerate(curves):
        low, span = value.min(), np.ptp(value)
        scaled = (value - low) / span if span > 0 else np.full_like(value, 0.5)
        rule = name == chosen
        ax.plot(
            at,
            scaled,
            color=LINES[place % len(LINES)],
            ls=STROKES[place // len(LINES) % len(STROKES)],
            lw=2.4 if rule else 1.0,
            label=f"{name} (the rule)" if rule else name,
            marker="o" if len(at) == 1 else None,
        )
    ax.set_yticks([0, 1], ["lowest", "highest"])


def _draw_schedules(ax: Any, curves: list[Curve], peaks: Mapping[str, float]) -> None:
    """peaks: the largest values there were, where that is known: rows are written now and then."""
    for place, (name, at, value) in enumerate(curves):
        peak = peaks.get(name, float(np.abs(value).max()))
        known = "peak" if name in peaks else "largest logged"
        label = {"lr": "learning rate", "lambda": "λ"}.get(name, name)
        ax.plot(
            at,
            value / peak if peak > 0 else value,
            color=LINES[place % len(LINES)],
            ls=STROKES[place % len(STROKES)],
            lw=1.4,
            label=f"{label} ({known} {peak:.3g})",
            marker="o" if len(at) == 1 else None,
        )
    ax.set_ylim(-0.05, 1.08)


def _mark_selected(ax: Any, record: Record, named: bool) -> None:
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


def _mark_phases(ax: Any, record: Record, named: bool) -> None:
    starts: dict[str, float] = {}
    for row in record.rows:
        if row.get("phase"):
            starts.setdefault(str(row["phase"]), row["at"])
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
