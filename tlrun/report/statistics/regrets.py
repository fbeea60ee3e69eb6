"""What would each rule of selection have lost? Of a run, and the mean over the runs of a sweep.

Everything here looks at target test labels, after the fact. It goes to the page and its pictures
only: a figure of a rule that was picked by it is no result.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlrun.evaluate import selection
from tlrun.evaluate.selection import ORACLE, Guard
from tlrun.report.formats import number
from tlrun.report.read.own_tables import Table
from tlrun.report.read.rows import Row, keys, series
from tlrun.report.read.run_record import RunRecord

COLUMNS = ["Rule", "Chosen step", "Target test there, %", "Lost, points", "Spearman"]


@dataclass(frozen=True)
class RuleChoice:
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

    @property
    def cells(self) -> list[str]:
        written = (
            number(self.row["step"], "count"),
            number(self.accuracy, "share"),
            number(self.loss, "share"),
            number(self.spearman, "correlation"),
        )
        return [self.rule, *written]


def competing(record: RunRecord) -> list[Row]:
    """The evaluations of the last phase, among which a rule chooses."""
    rows = record.evaluations
    return [row for row in rows if row.get("phase") == rows[-1].get("phase")]


def beside_oracle(record: RunRecord) -> dict[str, NDArray[np.float64]]:
    """{validator: (global step, its value, oracle) (n, 3)}, of those with both n ≥ 3 times."""
    rows = [row for row in competing(record) if series([row], ORACLE)[0].size]
    pairs: dict[str, NDArray[np.float64]] = {}
    for key in keys(rows, "validator/"):
        both = [row for row in rows if series([row], key)[0].size]
        if len(both) >= 3:
            pairs[key.split("/", 1)[1]] = np.column_stack(
                [*series(both, key), series(both, ORACLE)[1]]
            )
    return pairs


def spearman(table: NDArray[np.float64]) -> float | None:
    """Rank correlation of the last two columns of `beside_oracle`; None if one is constant."""
    return spearmans({"": table})[""]


def spearmans(tables: Mapping[str, NDArray[np.float64]]) -> dict[str, float | None]:
    """Of each table. Pearson's of average ranks: scipy's `spearmanr` also computes p, and took 4 of
    the 5 s of a page of 720 runs. Ranks are asked for once for all tables of a length."""
    from scipy.stats import rankdata  # 0.3 s

    found: dict[str, float | None] = dict.fromkeys(tables)
    by_length: dict[int, list[str]] = {}
    for name, table in tables.items():
        if np.ptp(table[:, 1]) != 0 and np.ptp(table[:, 2]) != 0:
            by_length.setdefault(len(table), []).append(name)
    for names in by_length.values():
        ranks = rankdata(np.stack([tables[name][:, 1:3] for name in names]), axis=1)
        for name, of_table in zip(names, ranks, strict=True):
            found[name] = float(np.corrcoef(of_table, rowvar=False)[0, 1])
    return found


def judge(record: RunRecord) -> list[RuleChoice]:
    """The choice of every validator and of "last", the least loss first.

    [] without an oracle, and of a run whose summary says nothing of its guard.
    """
    rows, guard = competing(record), Guard.from_summary(record.summary)
    if guard is None:
        return []
    chosen = selection.choices(rows, guard)
    losses = selection.regrets(rows, guard, chosen)
    correlations = spearmans(beside_oracle(record))
    judged = [
        RuleChoice(rule, dict(chosen[rule]), loss, correlations.get(rule))
        for rule, loss in losses.items()
    ]
    return sorted(judged, key=lambda choice: choice.loss)


def oracle_choice(record: RunRecord) -> RuleChoice:
    """Of a run that was judged: its best evaluation by target test labels."""
    guard = Guard.from_summary(record.summary)
    best = selection.select_row(competing(record), "oracle", guard) if guard else None
    assert best is not None  # there are losses against it
    return RuleChoice("oracle", dict(best), 0.0, None)


def regret_table(record: RunRecord) -> Table | None:
    """A line per rule, the oracle last; None if there is nothing to compare with."""
    choices = judge(record)
    if not choices:
        return None
    rows = [choice.cells for choice in (*choices, oracle_choice(record))]
    return Table("", "", COLUMNS, rows, numeric=[False, True, True, True, True])


@dataclass(frozen=True)
class RuleMean:
    """Over the runs of a sweep: loss is the mean, worst the largest, n the number of runs.

    spearman: the mean over the runs where it is defined.
    """

    rule: str
    loss: float
    worst: float
    spearman: float | None
    n: int


def over_runs(jobs: Iterable[RunRecord]) -> list[RuleMean]:
    """Of every rule over the completed runs, the least mean loss first."""
    by_rule: dict[str, list[RuleChoice]] = {}
    for job in jobs:
        if job.state == "completed":
            for choice in judge(job):
                by_rule.setdefault(choice.rule, []).append(choice)
    means = []
    for rule, choices in by_rule.items():
        losses = [choice.loss for choice in choices]
        defined = [choice.spearman for choice in choices if choice.spearman is not None]
        correlation = statistics.fmean(defined) if defined else None
        means.append(
            RuleMean(rule, statistics.fmean(losses), max(losses), correlation, len(choices))
        )
    return sorted(means, key=lambda mean: mean.loss)
