"""Could the validators be trusted? Each of them against target test accuracy, after the fact."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlrun.report.figures.curves import ORACLE
from tlrun.report.figures.style import TARGET, Missing, figure
from tlrun.report.read.record import Record, Row, keys, series


def draw_validators(record: Record, path: Path) -> None:
    """One panel per validator: its value against target test accuracy, early to late.

    Raises Missing without an oracle or with fewer than 3 evaluations that have both.
    """
    pairs = beside_oracle(record)
    if not pairs:
        raise Missing(
            "it needs three evaluations with both validators and target test accuracy (the oracle)"
        )
    columns = min(3, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    with figure(path, 0.9 + 2.5 * rows, rows=rows, columns=columns, sharey=True) as (fig, axes):
        fig.suptitle(_validator_title(pairs), x=0.01, ha="left", fontsize=10)
        for ax in axes.flat[len(pairs) :]:
            ax.set_visible(False)
        for ax, (key, table) in zip(axes.flat, pairs.items(), strict=False):
            ax.plot(table[:, 1], 100 * table[:, 2], color="#cccccc", lw=0.8, zorder=1)
            dots = ax.scatter(
                table[:, 1], 100 * table[:, 2], c=table[:, 0], cmap="cividis_r", s=18, zorder=2
            )
            best = int(table[:, 1].argmax())
            ax.scatter(
                table[best, 1],
                100 * table[best, 2],
                s=110,
                facecolors="none",
                edgecolors=TARGET,
                lw=1.8,
                zorder=3,
            )
            ax.set_title(f"{key.split('/', 1)[1]}\nSpearman {_spearman_text(table)}")
            ax.tick_params(labelsize=8)
            ax.locator_params(axis="x", nbins=4)
        for ax in axes[:, 0]:
            ax.set_ylabel("target test, %")
        fig.colorbar(dots, ax=axes, label="training step", shrink=0.8, aspect=15 * rows)
        fig.supxlabel("value of the validator (the ring marks its highest)", fontsize=9)


def competing(record: Record) -> list[Row]:
    """The evaluations of the last phase, among which a rule chooses."""
    rows = record.split("eval")
    return [row for row in rows if row.get("phase") == rows[-1].get("phase")]


def beside_oracle(record: Record) -> dict[str, NDArray[np.float64]]:
    """{key of a validator: (at, validator, oracle) (n, 3)}, of those with both at n ≥ 3 places."""
    pairs: dict[str, NDArray[np.float64]] = {}
    rows = competing(record)
    for key in keys(rows, "validator/"):
        both = [row for row in rows if series([row], key)[0].size and series([row], ORACLE)[0].size]
        if len(both) >= 3:
            pairs[key] = np.column_stack(
                [series(both, key)[0], series(both, key)[1], series(both, ORACLE)[1]]
            )
    return pairs


def spearman(table: NDArray[np.float64]) -> float | None:
    """Rank correlation of columns 1 and 2 of (at, validator, oracle); None if one is constant."""
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
    return (
        f"Of these validators, {best.split('/', 1)[1]} follows target test accuracy most closely."
    )
