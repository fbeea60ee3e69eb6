"""Pictures over training steps: the curves of one run, and its validators against the oracle."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrun.report.record import Record, keys, series
from tlrun.report.style import LINES, QUIET, SOURCE, TARGET, Missing, figure

ORACLE = "oracle/target_test_accuracy"
STROKES = ("-", "--", ":", "-.")
Curve = tuple[str, NDArray[np.float64], NDArray[np.float64]]


def draw_curves(record: Record, path: Path) -> None:
    """Losses, accuracies, validators and schedules over one axis of steps, with the selected step marked.

    Raises Missing when the log holds nothing to draw.
    """
    train, evaluations = record.split("train"), record.split("eval")
    losses = _named(train, keys(train, "loss/"))
    accuracies = _accuracies(record)
    validators = _named(evaluations, keys(evaluations, "validator/"))
    names = [k for k in [*keys(train, "lr"), *keys(train, "metric/")] if k.split("/")[0] == "lr" or "lambda" in k]
    schedules = _named(train, names)
    panels: list[tuple[str, list[Curve], float]] = [
        ("Training losses", losses, 2.2),
        (_accuracy_title(record), accuracies, 2.2),
        ("Validators, each rescaled to its own range (higher is better)", validators, 2.0),
        ("Schedules, as a share of their peak", schedules, 1.2),
    ]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        raise Missing("nothing was logged over steps")
    heights = [panel[2] for panel in panels]
    with figure(
        path, sum(heights) + 0.7, rows=len(panels), sharex=True, gridspec_kw={"height_ratios": heights}
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
                _draw_schedules(ax, curves)
            ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.6)
            for text in ax.get_legend().get_texts():  # the curves need the width more than the names do
                text.set_text(textwrap.fill(text.get_text().replace("_", " "), 20))
        for place, ax in enumerate(axes[:, 0]):
            _mark_phases(ax, record, named=place == 0)
            _mark_selected(ax, record, named=place == len(panels) - 1)
        axes[-1, 0].set_xlabel("training step")


def draw_validators(record: Record, path: Path) -> None:
    """One panel per validator: its value against target test accuracy at each evaluation, early to late.

    Raises Missing without an oracle or with fewer than 3 evaluations that have both.
    """
    evaluations = record.split("eval")
    pairs: dict[str, NDArray[np.float64]] = {}
    for key in keys(evaluations, "validator/"):
        both = [row for row in evaluations if series([row], key)[0].size and series([row], ORACLE)[0].size]
        if len(both) >= 3:
            pairs[key] = np.column_stack(
                [series(both, key)[0], series(both, key)[1], series(both, ORACLE)[1]]
            )
    if not pairs:
        raise Missing("it needs three evaluations with both validators and target test accuracy (the oracle)")
    columns = min(3, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    with figure(path, 0.9 + 2.5 * rows, rows=rows, columns=columns, sharey=True) as (fig, axes):
        fig.suptitle(_validator_title(pairs), x=0.01, ha="left", fontsize=10)
        for ax in axes.flat[len(pairs) :]:
            ax.set_visible(False)
        for ax, (key, table) in zip(axes.flat, pairs.items(), strict=False):
            ax.plot(table[:, 1], 100 * table[:, 2], color="#cccccc", lw=0.8, zorder=1)
            dots = ax.scatter(table[:, 1], 100 * table[:, 2], c=table[:, 0], cmap="cividis_r", s=18, zorder=2)
            best = int(table[:, 1].argmax())
            ax.scatter(
                table[best, 1], 100 * table[best, 2], s=110, facecolors="none", edgecolors=TARGET, lw=1.8, zorder=3
            )
            ax.set_title(f"{key.split('/', 1)[1]}\nSpearman {_spearman_text(table)}")
            ax.tick_params(labelsize=8)
            ax.locator_params(axis="x", nbins=4)
        for ax in axes[:, 0]:
            ax.set_ylabel("target test, %")
        fig.colorbar(dots, ax=axes, label="training step", shrink=0.8, aspect=30)
        fig.supxlabel("value of the validator (the ring marks its highest)", fontsize=9)


def spearman(table: NDArray[np.float64]) -> float | None:
    """Rank correlation of columns 1 and 2 of (at, validator, oracle); None when one of them is constant."""
    from scipy.stats import spearmanr

    if np.ptp(table[:, 1]) == 0 or np.ptp(table[:, 2]) == 0:
        return None
    return float(spearmanr(table[:, 1], table[:, 2]).statistic)


def _spearman_text(table: NDArray[np.float64]) -> str:
    value = spearman(table)
    return "undefined (constant)" if value is None else f"{value:+.2f}"


def _validator_title(pairs: dict[str, NDArray[np.float64]]) -> str:
    ranked = {key: value for key, table in pairs.items() if (value := spearman(table)) is not None}
    if not ranked:
        return "Validators against target test accuracy"
    best = max(ranked, key=lambda key: ranked[key])
    return f"Of these validators, {best.split('/', 1)[1]} follows target test accuracy most closely."


def _named(rows: list[dict[str, Any]], names: list[str]) -> list[Curve]:
    return [(name.split("/", 1)[-1], *series(rows, name)) for name in names]


def _accuracies(record: Record) -> list[Curve]:
    rows = record.split("eval")
    named = [("source, validation", "source_val/accuracy"), ("target, test (oracle)", ORACLE)]
    return [(name, *series(rows, key)) for name, key in named if series(rows, key)[0].size]


def _accuracy_title(record: Record) -> str:
    if not series(record.split("eval"), ORACLE)[0].size:
        return "Accuracy, %"
    return "Accuracy, % (the target's is shown for reference; " + (
        "selection used it)" if record.summary.get("selection_saw_target_labels") else "selection did not see it)"
    )


def _draw_losses(ax: Any, curves: list[Curve]) -> None:
    for place, (name, at, value) in enumerate(curves):
        look = {"color": LINES[place % len(LINES)], "ls": STROKES[place // len(LINES) % len(STROKES)]}
        smooth = _smooth(value)
        if smooth is not value:
            ax.plot(at, value, lw=0.6, alpha=0.25, **look)
        ax.plot(at, smooth, lw=1.6, label=name, marker="o" if len(at) == 1 else None, **look)
    values = np.concatenate([value for _, _, value in curves])
    # One exploding term would otherwise press all the others flat.
    if values.min() > 0 and values.max() > 50 * np.median(values):
        ax.set_yscale("log")


def _draw_accuracies(ax: Any, curves: list[Curve]) -> None:
    for name, at, value in curves:
        oracle = "oracle" in name
        ax.plot(
            at,
            100 * value,
            color=TARGET if oracle else SOURCE,
            ls="--" if oracle else "-",
            lw=1.6,
            label=name,
            marker="o" if len(at) < 40 else None,
            ms=3,
        )


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


def _draw_schedules(ax: Any, curves: list[Curve]) -> None:
    for place, (name, at, value) in enumerate(curves):
        peak = float(np.abs(value).max())
        label = {"lr": "learning rate", "lambda": "λ"}.get(name, name)
        ax.plot(
            at,
            value / peak if peak > 0 else value,
            color=LINES[place % len(LINES)],
            ls=STROKES[place % len(STROKES)],
            lw=1.4,
            label=f"{label} (peak {peak:.3g})",
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
                phase, (at, 0.98), xycoords=("data", "axes fraction"), rotation=90, va="top", fontsize=8, color=QUIET
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
