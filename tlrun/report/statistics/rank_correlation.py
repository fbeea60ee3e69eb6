"""Scores of stages beside trained accuracies: would `tlrun rank` have found the best cut?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlrun.report.read.rank import TITLES, StageScores
from tlrun.report.statistics.groups import Group
from tlrun.report.statistics.regrets import spearman

CUT = "transfer.cut"
FEWEST = 3  # cuts with a score and a figure


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's, of a score of stage k and the mean figure of the runs with transfer.cut=k.

    line: the method and the other settings of those runs. n: cuts that have both.
    """

    net: str
    line: str
    score: str
    spearman: float | None
    n: int


def figures_by_cut(groups: Sequence[Group], metric: str) -> dict[str, dict[int, float]]:
    """Method and other settings -> {transfer.cut: mean figure over seeds}."""
    lines: dict[str, dict[int, float]] = {}
    for group in groups:
        mean = group.row("selected", metric).mean
        if mean is not None and group.settings.get(CUT, "").isdigit():
            others = [f"{k}={v}" for k, v in group.settings.items() if k != CUT]
            name = " ".join([group.data, group.method, *others])
            lines.setdefault(name, {})[int(group.settings[CUT])] = mean
    return lines


def rank_correlations(
    scores: Sequence[StageScores], groups: Sequence[Group], metric: str
) -> list[RankCorrelation]:
    """For each net, line and score; [] without three cuts that have both."""
    lines = figures_by_cut(groups, metric)
    found: list[RankCorrelation] = []
    for net in dict.fromkeys(stage.net for stage in scores):
        for line, means in lines.items():
            for score, title in TITLES.items():
                rows = [
                    (stage.cut, value, means[stage.cut])
                    for stage in scores
                    if stage.net == net and stage.cut in means
                    if (value := stage.values.get(score)) is not None
                ]
                if len(rows) >= FEWEST:
                    rho = spearman(np.array(rows, dtype=np.float64))
                    found.append(RankCorrelation(net, line, title, rho, len(rows)))
    return found
