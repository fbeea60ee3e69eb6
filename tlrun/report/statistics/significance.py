"""Do two groups differ by more than their seeds? Paired t-tests over common seeds, Holm-corrected.

A seed decides order, augmentation, initial weights and splits, so two methods share much of their
luck on it: differences are taken seed by seed. Which group is in front is read off the same
figures, so the correction counts every pair of the same data, not only those with the best.
Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 1979.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from tlrun.evaluate.figures import Unit
from tlrun.report.pages import render
from tlrun.report.read.groups import Group, compare

LEVEL = 0.05


@dataclass(frozen=True)
class Pair:
    """first - second by the selected checkpoints, over the `n` seeds that both completed.

    low, high: 95 % interval of the mean difference, of this pair alone; p: two-sided, of this pair
    alone; p_holm: corrected for all `tests` pairs of the data. None where there is no test (n < 2,
    or the same difference on every seed).
    """

    first: Group
    second: Group
    mean: float
    n: int
    p: float | None = None
    low: float | None = None
    high: float | None = None
    p_holm: float | None = None
    tests: int = 0
    unit: Unit = "share"

    @property
    def clear(self) -> bool:
        return self.p_holm is not None and self.p_holm < LEVEL

    def reversed(self) -> Pair:
        low, high = (None if edge is None else -edge for edge in (self.high, self.low))
        return replace(
            self, first=self.second, second=self.first, mean=-self.mean, low=low, high=high
        )

    def interval(self) -> str:
        """'-8.1 to +2.0', of shares in points."""
        if self.low is None:
            return render.NONE
        low, high = (render.difference(edge, self.unit) for edge in (self.low, self.high))
        return f"{low} to {high}"

    def text(self) -> str:
        """'-3.1 (p = 0.021, n = 3)', p after Holm."""
        test = "no test" if self.p_holm is None else p_text(self.p_holm)
        return f"{render.difference(self.mean, self.unit)} ({test}, n = {self.n})"


def p_text(p: float) -> str:
    return f"p = {render.p_value(p)}" if p >= 0.001 else "p < 0.001"


def pair(first: Group, second: Group, metric: str) -> Pair | None:
    """Uncorrected; None without a common seed."""
    found = compare(first, second, metric)
    if found is None:
        return None
    mean, p, n = found
    unit = first.spread("selected", metric).unit
    if p is None:
        return Pair(first, second, mean, n, unit=unit)
    from scipy.stats import t  # 0.3 s

    mine, theirs = (g.spread("selected", metric).values for g in (first, second))
    spread = statistics.stdev([mine[seed] - theirs[seed] for seed in mine if seed in theirs])
    half = float(t.ppf(0.975, n - 1)) * spread / n**0.5
    return Pair(first, second, mean, n, p, mean - half, mean + half, unit=unit)


def pairs(groups: Sequence[Group], metric: str) -> list[Pair]:
    """Every pair of groups of the same data with two common seeds, in the order of `groups`."""
    found: list[Pair] = []
    for data in dict.fromkeys(group.data for group in groups):
        of_data = [g for g in groups if g.data == data and g.spread("selected", metric).n > 1]
        both = (pair(a, b, metric) for a, b in combinations(of_data, 2))
        some = [one for one in both if one is not None and one.n > 1]
        corrected = iter(holm([one.p for one in some if one.p is not None]))
        tests = sum(one.p is not None for one in some)
        found += [
            one if one.p is None else replace(one, p_holm=next(corrected), tests=tests)
            for one in some
        ]
    return found


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p values in the order given: reject where one is below the level."""
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = highest
    return adjusted


def verdict(one: Pair) -> str:
    """What the difference is worth, in a sentence or two."""
    gap = f"The difference of {render.difference(one.mean, one.unit)}{render.in_points(one.unit)}"
    if one.n < 2:
        return f"{gap} is of one common seed: there is no test, and seeds alone may explain it."
    if one.p is None or one.p_holm is None:
        return f"{gap} is the same on all {one.n} common seeds: no spread to test it against."
    figures = f"95 % interval {one.interval()}, {p_text(one.p)}"
    if one.tests > 1:
        figures += f", after Holm's correction for {one.tests} pairs {p_text(one.p_holm)}"
    meaning = (
        "is larger than chance between seeds explains"
        if one.clear
        else "could be chance between seeds"
    )
    text = f"{gap} over {one.n} common seeds {meaning} ({figures})."
    if one.n == 2:
        text += (
            " Two seeds are next to no evidence: with one degree of freedom a difference counts "
            "from 12.7 times its standard error on, and the test assumes normal differences."
        )
    return text
