"""Could the validators be trusted? Each of them against target test accuracy, after the fact."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tlrun.report.figures.style import TARGET, figure
from tlrun.report.formats import NONE, number
from tlrun.report.read.entries import Missing
from tlrun.report.read.run_record import RunRecord
from tlrun.report.statistics.regrets import beside_oracle, spearmans


def draw_validators(record: RunRecord, path: Path) -> None:
    """One panel per validator: its value against target test accuracy, early to late.

    Raises Missing without an oracle or with fewer than 3 evaluations that have both.
    """
    tables = beside_oracle(record)
    if not tables:
        raise Missing(
            "it needs three evaluations with both validators and target test accuracy (the oracle)"
        )
    correlations = spearmans(tables)
    columns = min(3, len(tables))
    rows = math.ceil(len(tables) / columns)
    with figure(path, 0.9 + 2.5 * rows, rows=rows, columns=columns, sharey=True) as (fig, axes):
        fig.suptitle(_title(correlations), x=0.01, ha="left", fontsize=10)
        for ax in axes.flat[len(tables) :]:
            ax.set_visible(False)
        for ax, (rule, table) in zip(axes.flat, tables.items(), strict=False):
            dots = _draw_panel(ax, table)
            rank = number(correlations[rule], "correlation").replace(NONE, "undefined (constant)")
            ax.set_title(f"{rule}\nSpearman {rank}")
        for ax in axes[:, 0]:
            ax.set_ylabel("target test, %")
        fig.colorbar(dots, ax=axes, label="training step", shrink=0.8, aspect=15 * rows)
        fig.supxlabel("value of the validator (the ring marks its highest)", fontsize=9)


def _draw_panel(ax: Any, table: Any) -> Any:
    step, value, accuracy = table[:, 0], table[:, 1], 100 * table[:, 2]
    ax.plot(value, accuracy, color="#cccccc", lw=0.8, zorder=1)
    dots = ax.scatter(value, accuracy, c=step, cmap="cividis_r", s=18, zorder=2)
    best = int(value.argmax())
    ring = {"facecolors": "none", "edgecolors": TARGET, "lw": 1.8, "zorder": 3}
    ax.scatter(value[best], accuracy[best], s=110, **ring)
    ax.tick_params(labelsize=8)
    ax.locator_params(axis="x", nbins=4)
    return dots


def _title(correlations: dict[str, float | None]) -> str:
    ranked = {rule: value for rule, value in correlations.items() if value is not None}
    if not ranked:
        return "Validators against target test accuracy"
    best = max(ranked, key=lambda rule: ranked[rule])
    return f"Of these validators, {best} follows target test accuracy most closely."
