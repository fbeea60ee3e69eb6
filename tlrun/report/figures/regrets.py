"""What each rule would have chosen, over the steps of a run; statistics/regrets.py judges them."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from tlrun.evaluate import selection
from tlrun.evaluate.selection import ORACLE, Guard
from tlrun.report.figures.style import LINES, QUIET, TARGET, figure
from tlrun.report.read.entries import Missing
from tlrun.report.read.rows import series
from tlrun.report.read.run_record import RunRecord
from tlrun.report.statistics.regrets import (
    RuleChoice,
    beside_oracle,
    competing,
    judge,
    oracle_choice,
)


def draw_regrets(record: RunRecord, path: Path) -> None:
    """Above, target test accuracy; below, every validator in a lane of its own, with its choice.

    Raises Missing without an oracle, with fewer than 3 evaluations that have both, or where the run
    does not say what its guard was.
    """
    tables = beside_oracle(record)
    choices = [choice for choice in judge(record) if choice.rule in tables]
    if not choices:
        raise Missing(
            "it needs three evaluations with both validators and target test accuracy (the oracle)"
            if not tables
            else "the summary does not say what the guard against collapse was"
        )
    rows, guard = competing(record), Guard.from_summary(record.summary)
    assert guard is not None  # the run was judged
    allowed = selection.eligible(rows, guard)
    excluded = {row["global_step"] for row, ok in zip(rows, allowed, strict=True) if not ok}
    below = 0.42 * len(choices) + 0.3
    with figure(
        path, 3.0 + below, rows=2, sharex=True, gridspec_kw={"height_ratios": [1.9, below]}
    ) as (fig, axes):
        fig.suptitle(_title(record, choices), x=0.01, ha="left", fontsize=10)
        top, bottom = axes[:, 0]
        at, accuracy = series(rows, ORACLE)
        top.plot(at, 100 * accuracy, color=TARGET, lw=1.6)
        for choice in choices:
            _mark(top, choice, "o", LINES[0], 6)
        _mark(top, oracle_choice(record), "*", "#000000", 13)
        top.set(
            ylabel="target test, %", title="Target test accuracy; dots: chosen, star: the oracle"
        )
        for lane, choice in enumerate(choices):
            _draw_lane(bottom, -lane, choice, tables[choice.rule], excluded)
        _name_lanes(bottom, choices, str(record.summary.get("selection_rule")))
        bottom.set_title("Each validator in its own range, over target test accuracy (grey)")
        bottom.set_xlabel("training step" + ("; crosses: barred by the guard" if excluded else ""))


def _mark(ax: Any, choice: RuleChoice, sign: str, colour: str, size: float) -> None:
    ax.plot(choice.row["global_step"], 100 * choice.accuracy, sign, color=colour, ms=size)


def _name_lanes(ax: Any, choices: list[RuleChoice], used: str) -> None:
    ax.set_yticks(
        [0.35 - lane for lane in range(len(choices))],
        [textwrap.fill(choice.rule.replace("_", " "), 18) for choice in choices],
        fontsize=8,
    )
    for label, choice in zip(ax.get_yticklabels(), choices, strict=True):
        label.set_fontweight("bold" if choice.rule == used else "normal")
    ax.set_ylim(-len(choices) + 0.8, 1.0)
    ax.grid(False, axis="y")


def _draw_lane(ax: Any, base: float, choice: RuleChoice, table: Any, excluded: set[float]) -> None:
    at, value, truth = table[:, 0], _scaled(table[:, 1]), _scaled(table[:, 2])
    ax.fill_between(at, base, base + truth, color="#e4e4e4", lw=0)
    ax.plot(at, base + value, color=LINES[0], lw=1.3)
    crossed = np.isin(at, list(excluded))
    ax.plot(at[crossed], base + value[crossed], "x", color=QUIET, ms=4)
    here = at == choice.row["global_step"]
    ax.plot(at[here], base + value[here], "o", color=LINES[0], ms=6)
    sign = "−" if choice.loss >= 5e-4 else ""
    ax.text(
        1.01,
        base + 0.35,
        f"{100 * choice.accuracy:.1f} % ({sign}{100 * choice.loss:.1f})",
        transform=ax.get_yaxis_transform(),
        va="center",
        fontsize=8,
    )


def _scaled(value: Any) -> Any:
    """To a lane of height 0.75, the middle of it if constant."""
    span = np.ptp(value)
    return 0.75 * (value - value.min()) / span if span > 0 else np.full_like(value, 0.375)


def _title(record: RunRecord, choices: list[RuleChoice]) -> str:
    least = [choice.rule for choice in choices if choice.loss < choices[0].loss + 1e-9]
    names = " and ".join(least) if len(least) < 3 else f"{len(least)} of {len(choices)} validators"
    lost = f"least, {100 * choices[0].loss:.1f} points" if choices[0].loss >= 5e-4 else "nothing"
    text = f"{names} would have lost {lost} against the oracle"
    used = [choice for choice in choices if choice.rule == record.summary.get("selection_rule")]
    if used and used[0].rule not in least:
        text += f";\n{used[0].rule}, the rule of the run, lost {100 * used[0].loss:.1f}"
    elif used:
        text += ",\nthe rule of the run" + ("" if len(least) == 1 else " among them")
    return text + "."
