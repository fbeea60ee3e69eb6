"""What would each rule of selection have lost? Of a run, and the mean over the runs of a sweep.

Everything here looks at target test labels, after the fact. It goes to the page and its pictures
only: a figure of a rule that was picked by it is no result.
"""

from __future__ import annotations

import statistics
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlrun.evaluate import selection
from tlrun.report.figures.curves import ORACLE
from tlrun.report.figures.style import LINES, QUIET, TARGET, Missing, figure
from tlrun.report.figures.validators import beside_oracle, competing, spearman
from tlrun.report.pages import render
from tlrun.report.pages.tables import Table
from tlrun.report.read.record import Record, Row, mapping, number, series

COLUMNS = ["Rule", "Chosen step", "Target test there, %", "Lost, points", "Spearman"]


@dataclass(frozen=True)
class Choice:
    """The evaluation that a rule chooses. loss: of accuracy against the oracle, in [0, 1].

    spearman: rank correlation of the rule's values with target test accuracy; None if undefined.
    """

    rule: str
    row: Row
    loss: float
    spearman: float | None

    @property
    def accuracy(self) -> float:
        return float(self.row[ORACLE])


def judge(record: Record) -> list[Choice]:
    """The choice of every validator and of "last", the least loss first; [] without an oracle."""
    rows, guard = competing(record), _guard(record)
    losses = selection.regrets(rows, guard)
    chosen = selection.choices(rows, guard)
    tables = beside_oracle(record)
    found = [
        Choice(
            rule,
            dict(chosen[rule]),
            loss,
            spearman(tables[f"validator/{rule}"]) if f"validator/{rule}" in tables else None,
        )
        for rule, loss in losses.items()
    ]
    return sorted(found, key=lambda choice: choice.loss)


def _guard(record: Record) -> selection.Guard:
    """The limits that the run applied; of an older or unfinished run those of its config."""
    applied = mapping(record.summary.get("selection_guard"))
    limits = {"num_classes": len(record.classes), **mapping(record.config.get("select")), **applied}
    known = ("source_floor", "min_effective_classes")
    found = {key: value for key in known if (value := number(limits.get(key))) is not None}
    return selection.Guard(int(limits["num_classes"]), **found)


def regret_table(record: Record) -> Table | None:
    """A line per rule, the oracle last; None if there is nothing to compare with."""
    choices = judge(record)
    if not choices:
        return None
    rows = [_line(c.rule, c.row, c.loss, c.spearman) for c in choices]
    best = selection.select_row(competing(record), "oracle", _guard(record))
    assert best is not None
    rows.append(_line("oracle", best, 0.0, None))
    return Table("", "", COLUMNS, rows, numeric=[False, True, True, True, True])


def _line(rule: str, row: Any, loss: float, correlation: float | None) -> list[str]:
    return [
        rule,
        render.count(row["step"]),
        render.percent(row[ORACLE]),
        render.percent(loss),
        _correlation(correlation),
    ]


def _correlation(value: float | None) -> str:
    return render.NONE if value is None else f"{value:+.2f}"


def draw_regrets(record: Record, path: Path) -> None:
    """Above, target test accuracy; below, every validator in a lane of its own, with its choice.

    Raises Missing without an oracle or with fewer than 3 evaluations that have both.
    """
    tables = beside_oracle(record)
    lanes = [choice for choice in judge(record) if f"validator/{choice.rule}" in tables]
    if not lanes:
        raise Missing(
            "it needs three evaluations with both validators and target test accuracy (the oracle)"
        )
    rows = competing(record)
    allowed = selection.eligible(rows, _guard(record))
    shut = {row["at"] for row, ok in zip(rows, allowed, strict=True) if not ok}
    at, accuracy = series(rows, ORACLE)
    below = 0.42 * len(lanes) + 0.3
    with figure(
        path, 3.0 + below, rows=2, sharex=True, gridspec_kw={"height_ratios": [1.9, below]}
    ) as (fig, axes):
        fig.suptitle(_title(record, lanes), x=0.01, ha="left", fontsize=10)
        top, bottom = axes[:, 0]
        top.plot(at, 100 * accuracy, color=TARGET, lw=1.6)
        for choice in lanes:
            top.plot(choice.row["at"], 100 * choice.accuracy, "o", color=LINES[0], ms=6)
        best = selection.select_row(rows, "oracle", _guard(record))
        assert best is not None  # there are losses against it
        top.plot(best["at"], 100 * best[ORACLE], "*", color="#000000", ms=13)
        top.set(
            ylabel="target test, %", title="Target test accuracy; dots: chosen, star: the oracle"
        )
        bottom.set_title("Each validator in its own range, over target test accuracy (grey)")
        for place, choice in enumerate(lanes):
            _draw_lane(bottom, -place, choice, tables[f"validator/{choice.rule}"], shut)
        bottom.set_yticks(
            [0.35 - place for place in range(len(lanes))],
            [textwrap.fill(choice.rule.replace("_", " "), 18) for choice in lanes],
            fontsize=8,
        )
        own = record.summary.get("selection_rule")
        for label, choice in zip(bottom.get_yticklabels(), lanes, strict=True):
            label.set_fontweight("bold" if choice.rule == own else "normal")
        bottom.set_ylim(-len(lanes) + 0.8, 1.0)
        bottom.grid(False, axis="y")
        bottom.set_xlabel("training step" + ("; crosses: barred by the guard" if shut else ""))


def _draw_lane(ax: Any, base: float, choice: Choice, table: Any, shut: set[float]) -> None:
    at, value, truth = table[:, 0], _lane(table[:, 1]), _lane(table[:, 2])
    ax.fill_between(at, base, base + truth, color="#e4e4e4", lw=0)
    ax.plot(at, base + value, color=LINES[0], lw=1.3)
    barred = np.isin(at, list(shut))
    ax.plot(at[barred], base + value[barred], "x", color=QUIET, ms=4)
    here = at == choice.row["at"]
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


def _lane(value: Any) -> Any:
    """Scaled to a lane of height 0.75, the middle of it if constant."""
    span = np.ptp(value)
    return 0.75 * (value - value.min()) / span if span > 0 else np.full_like(value, 0.375)


def _title(record: Record, lanes: list[Choice]) -> str:
    least = [choice.rule for choice in lanes if choice.loss < lanes[0].loss + 1e-9]
    names = " and ".join(least) if len(least) < 3 else f"{len(least)} of {len(lanes)} validators"
    one = len(least) == 1
    least_loss = f"least, {100 * lanes[0].loss:.1f} points" if lanes[0].loss >= 5e-4 else "nothing"
    text = f"{names} would have lost {least_loss} against the oracle"
    own = [choice for choice in lanes if choice.rule == record.summary.get("selection_rule")]
    if own and own[0].rule not in least:
        text += f";\n{own[0].rule}, the rule of the run, lost {100 * own[0].loss:.1f}"
    elif own:
        text += ",\nthe rule of the run" + ("" if one else " among them")
    return text + "."


def over_runs(jobs: list[Record]) -> list[dict[str, Any]]:
    """Of every rule over the completed runs of a sweep, the least mean loss first.

    {rule, loss (mean), worst, spearman (mean over the runs where it is defined), n (runs)}
    """
    found: dict[str, list[Choice]] = {}
    for job in jobs:
        if job.state == "completed":
            for choice in judge(job):
                found.setdefault(choice.rule, []).append(choice)
    rows = []
    for rule, choices in found.items():
        known = [choice.spearman for choice in choices if choice.spearman is not None]
        rows.append(
            {
                "rule": rule,
                "loss": statistics.fmean(choice.loss for choice in choices),
                "worst": max(choice.loss for choice in choices),
                "spearman": statistics.fmean(known) if known else None,
                "correlation": _correlation(statistics.fmean(known) if known else None),
                "n": len(choices),
            }
        )
    return sorted(rows, key=lambda row: row["loss"])
