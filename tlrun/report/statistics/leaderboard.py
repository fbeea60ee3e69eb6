"""What a leaderboard is made of: groups in order, their figures, and their differences."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tlrun.evaluate.figures import Unit
from tlrun.report.read.run_record import RULES, RunRecord
from tlrun.report.statistics.groups import (
    SOURCE,
    FigureRow,
    Group,
    best_of,
    group_jobs,
    kind_in,
    mean_of,
    primary_metric,
    title_in,
)
from tlrun.report.statistics.matrix import Matrix, heads, matrices
from tlrun.report.statistics.over_data import MeanGroup, mean_groups
from tlrun.report.statistics.significance import Difference, all_differences, difference_of


@dataclass(frozen=True)
class Line:
    """A group on the leaderboard. figures: under each rule that any group has a value of.

    difference: to the best of its data; None for the best itself, and without a common seed.
    """

    group: Group
    best: bool
    figures: list[FigureRow]
    source: FigureRow
    difference: Difference | None
    seconds: float | None

    @property
    def seeds(self) -> str:
        done, jobs = len(self.group.done), len(self.group.jobs)
        return str(done) if done == jobs else f"{done} of {jobs}"

    @property
    def against_best(self) -> str:
        return "best" if self.best else self.difference.text if self.difference else "–"


@dataclass(frozen=True)
class Leaderboard:
    """sweeps: the label of each job where several sweeps are compared, else empty.

    settings: the columns of the table; shared: further keys, alike in all jobs of a sweep.
    excluded: groups that are no candidates for the best, trials that a search did not choose.
    """

    jobs: list[RunRecord]
    sweeps: list[str]
    groups: list[Group]
    metric: str
    rules: list[str]
    settings: list[str]
    shared: list[str]
    excluded: frozenset[Group] = frozenset()

    @property
    def title(self) -> str:
        """What the metric is called."""
        return title_in(self.jobs, self.metric)

    @property
    def unit(self) -> Unit:
        return kind_in(self.jobs, self.metric).unit

    @property
    def compares(self) -> bool:
        return bool(self.sweeps)

    @functools.cached_property
    def candidates(self) -> list[Group]:
        return [group for group in self.groups if group not in self.excluded]

    @functools.cached_property
    def means(self) -> list[MeanGroup]:
        """Of the candidates with a result on all data, best first; [] with one data set."""
        whole = [g for g in mean_groups(self.candidates) if g.row("selected", self.metric).n]
        return sorted(whole, key=lambda g: -(g.standing(self.metric) or 0.0))

    @functools.cached_property
    def matrices(self) -> list[Matrix]:
        """Method x data of the candidates, one for each rule; [] with one column."""
        return matrices(self.candidates, self.metric, self.rules)

    @functools.cached_property
    def differences(self) -> list[Difference]:
        """Between means over data, and between candidates of the same data, corrected."""
        return all_differences([*self.means, *self.candidates], self.metric)

    def head(self, data: str, *, whole: bool = False) -> str:
        """What a data set or pair is called beside the others here: "photo → sketch".

        whole: with what all of them have in front, as a sentence needs it.
        """
        names, common, _ = self._heads
        if len(names) < 2 or data not in names:
            return data
        return f"{common} {names[data]}" if whole and common else names[data]

    @functools.cached_property
    def _heads(self) -> tuple[dict[str, str], str, str]:
        return heads(self.groups)

    @functools.cached_property
    def _corrected(self) -> dict[tuple[Group, Group], Difference]:
        return {(gap.first, gap.second): gap for gap in self.differences}

    @functools.cached_property
    def _best(self) -> dict[str, Group | None]:
        sets: dict[str, list[Group]] = {}
        for group in (*self.means, *self.candidates):
            sets.setdefault(group.data, []).append(group)
        return {data: best_of(inside, self.metric) for data, inside in sets.items()}

    def best(self, data: str) -> Group | None:
        return self._best.get(data)

    def between(self, first: Group, second: Group) -> Difference | None:
        """first - second, corrected where it is one of the tested pairs."""
        if tested := self._corrected.get((first, second)):
            return tested
        turned = self._corrected.get((second, first))
        return turned.reversed() if turned else difference_of(first, second, self.metric)

    def against_best(self, group: Group) -> Difference | None:
        """None for the best itself, and without a common seed."""
        best = self.best(group.data)
        return None if best is None or best is group else self.between(group, best)

    @functools.cached_property
    def lines(self) -> list[Line]:
        return [
            Line(
                group=group,
                best=group is self.best(group.data),
                figures=[group.row(rule, self.metric) for rule in self.rules],
                source=group.row("selected", SOURCE),
                difference=self.against_best(group),
                seconds=mean_of(group.values("train_seconds")),
            )
            for group in self.groups
        ]


def leaderboard_of(
    jobs: Sequence[RunRecord], sweeps: Sequence[str] = (), not_chosen: Collection[RunRecord] = ()
) -> Leaderboard:
    """not_chosen: the runs of trials that a search did not choose."""
    metric = primary_metric(jobs)
    groups = _ranked(group_jobs(jobs, sweeps), metric)
    keys = list(dict.fromkeys(key for group in groups for key in group.settings))
    varying = {key for group in groups for key in group.varying}
    return Leaderboard(
        jobs=list(jobs),
        sweeps=list(sweeps),
        groups=groups,
        metric=metric,
        rules=[rule for rule in RULES if any(g.row(rule, metric).n for g in groups)],
        settings=[key for key in keys if key in varying],
        shared=[key for key in keys if key not in varying],
        excluded=frozenset(g for g in groups if all(job in not_chosen for job in g.jobs)),
    )


def _ranked(groups: list[Group], metric: str) -> list[Group]:
    """By data, best selected mean first, groups without a result last."""

    def rank(group: Group) -> tuple[str, float]:
        standing = group.standing(metric)
        return group.data, -standing if standing is not None else float("inf")

    return sorted(groups, key=rank)
