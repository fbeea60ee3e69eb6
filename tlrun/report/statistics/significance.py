"""Do two groups differ by more than their seeds? Paired t-tests over common seeds, Holm-corrected.

A seed decides order, augmentation, initial weights and splits, so two methods share much of their
luck on it: differences are taken seed by seed. Which group is in front is read off the same
figures, so the correction counts every pair of the same data, not only those with the best.
Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 1979.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from tlrun.report.formats import NONE, Shown, in_points, number
from tlrun.report.statistics.groups import Group

LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """first - second by the selected checkpoints, over the `n` seeds that both completed.

    low, high: 95 % interval of the mean difference, of this pair alone; p: two-sided, of this pair
    alone; p_holm: corrected for all `tests` pairs of the data. None where there is no test (n < 2,
    or the same difference on every seed).
    """

    first: Group
    second: Group
    mean: float
    n: int
    unit: Shown
    p: float | None = None
    low: float | None = None
    high: float | None = None
    p_holm: float | None = None
    tests: int = 0

    @property
    def clear(self) -> bool:
        return self.p_holm is not None and self.p_holm < LEVEL

    def reversed(self) -> Difference:
        low, high = (None if edge is None else -edge for edge in (self.high, self.low))
        return replace(
            self, first=self.second, second=self.first, mean=-self.mean, low=low, high=high
        )

    @property
    def gap(self) -> str:
        """'-3.1', of shares in points."""
        return number(self.mean, self.unit, signed=True)

    @property
    def interval(self) -> str:
        """'-8.1 to +2.0', of shares in points."""
        if self.low is None:
            return NONE
        return " to ".join(number(edge, self.unit, signed=True) for edge in (self.low, self.high))

    @property
    def text(self) -> str:
        """'-3.1 (p = 0.021, n = 3)', p after Holm."""
        test = "no test" if self.p_holm is None else p_text(self.p_holm)
        return f"{self.gap} ({test}, n = {self.n})"


def p_text(p: float) -> str:
    written = number(p, "p")
    return f"p {written}" if written.startswith("<") else f"p = {written}"


def difference_of(first: Group, second: Group, metric: str) -> Difference | None:
    """Uncorrected; None without a common seed."""
    return next(iter(differences([(first, second)], metric)), None)


def differences(pairs: Iterable[tuple[Group, Group]], metric: str) -> list[Difference]:
    """Uncorrected, in the order of `pairs`, without those that have no common seed.

    scipy is called once for all pairs with equally many seeds: a call for each of thousands of
    pairs would take seconds.
    """
    compared: list[Difference] = []
    by_n: dict[int, dict[int, tuple[list[float], list[float]]]] = {}  # n -> place -> values
    for first, second in pairs:
        row, other = (group.row("selected", metric) for group in (first, second))
        seeds = [seed for seed in row.values if seed in other.values]
        if not seeds:
            continue
        both = [row.values[s] for s in seeds], [other.values[s] for s in seeds]
        gaps = [a - b for a, b in zip(*both, strict=True)]
        if len(gaps) > 1 and statistics.stdev(gaps) >= 1e-12:
            by_n.setdefault(len(gaps), {})[len(compared)] = both
        compared.append(Difference(first, second, statistics.fmean(gaps), len(gaps), row.unit))
    for tested in by_n.values():
        from scipy.stats import ttest_rel  # 0.3 s

        firsts, seconds = (np.array(side) for side in zip(*tested.values(), strict=True))
        test = ttest_rel(firsts, seconds, axis=1)
        interval = test.confidence_interval(0.95)
        columns = (test.pvalue.tolist(), interval.low.tolist(), interval.high.tolist())
        for place, p, low, high in zip(tested, *columns, strict=True):
            compared[place] = replace(compared[place], p=p, low=low, high=high)
    return compared


def all_differences(groups: Sequence[Group], metric: str) -> list[Difference]:
    """Every pair of groups of the same data with two common seeds, in the order of `groups`."""
    corrected: list[Difference] = []
    sets: dict[str, list[Group]] = {}
    for group in groups:
        if group.row("selected", metric).n > 1:
            sets.setdefault(group.data, []).append(group)
    for of_data in sets.values():
        compared = [pair for pair in differences(combinations(of_data, 2), metric) if pair.n > 1]
        tested = [pair.p for pair in compared if pair.p is not None]
        adjusted = iter(holm(tested))
        corrected += [
            pair if pair.p is None else replace(pair, p_holm=next(adjusted), tests=len(tested))
            for pair in compared
        ]
    return corrected


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p values in the order given: reject where one is below the level."""
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = highest
    return adjusted


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a proportion of n > 0 (Wilson, 1927)."""
    from scipy.stats import binomtest  # 0.3 s

    interval = binomtest(round(share * n), n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def verdict(gap: Difference) -> str:
    """What the difference is worth, in a sentence or two."""
    opening = f"The difference of {gap.gap}{in_points(gap.unit)}"
    if gap.n < 2:
        return f"{opening} is of one common seed: there is no test, and seeds alone may explain it."
    if gap.p is None or gap.p_holm is None:
        return f"{opening} is the same on all {gap.n} common seeds: no spread to test it against."
    figures = f"95 % interval {gap.interval}, {p_text(gap.p)}"
    if gap.tests > 1:
        figures += f", after Holm's correction for {gap.tests} pairs {p_text(gap.p_holm)}"
    meaning = (
        "is larger than chance between seeds explains"
        if gap.clear
        else "could be chance between seeds"
    )
    text = f"{opening} over {gap.n} common seeds {meaning} ({figures})."
    if gap.n == 2:
        text += (
            " Two seeds are next to no evidence: with one degree of freedom a difference counts "
            "from 12.7 times its standard error on, and the test assumes normal differences."
        )
    return text
