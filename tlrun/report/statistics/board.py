"""What a leaderboard is made of: groups in order, the rules they have, and their differences."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tlrun.evaluate.figures import Unit
from tlrun.report.pages import render
from tlrun.report.read.groups import (
    SOURCE,
    Group,
    best_of,
    group_jobs,
    kind_in,
    primary_metric,
    title_in,
)
from tlrun.report.read.record import RULES, Record
from tlrun.report.statistics.significance import Pair, pair, pairs


@dataclass(frozen=True)
class Board:
    """sweeps: the label of each job where several sweeps are compared, else empty.

    settings: the columns of the table; shared: further keys, alike in all jobs of a sweep. barred:
    ids of the groups that are no candidates for the best, the trials that a search did not choose.
    """

    jobs: list[Record]
    sweeps: list[str]
    groups: list[Group]
    metric: str
    rules: list[str]
    settings: list[str]
    shared: list[str]
    pairs: list[Pair]
    barred: frozenset[int] = frozenset()

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

    def without(self, barred: frozenset[int]) -> Board:
        """With these groups barred; tests are between the others alone."""
        found = replace(self, barred=barred)
        return replace(found, pairs=pairs(found.candidates, self.metric)) if barred else found

    @property
    def candidates(self) -> list[Group]:
        return [group for group in self.groups if id(group) not in self.barred]

    @functools.cached_property
    def _best(self) -> dict[str, Group | None]:
        of_data: dict[str, list[Group]] = {}
        for group in self.candidates:
            of_data.setdefault(group.data, []).append(group)
        return {data: best_of(groups, self.metric) for data, groups in of_data.items()}

    def best(self, data: str) -> Group | None:
        return self._best.get(data)

    def between(self, first: Group, second: Group) -> Pair | None:
        """first - second, corrected where it is one of the tested pairs."""
        for one in self.pairs:
            if one.first is first and one.second is second:
                return one
            if one.first is second and one.second is first:
                return one.reversed()
        return pair(first, second, self.metric)

    def against_best(self, group: Group) -> Pair | None:
        """None for the best itself, and without a common seed."""
        best = self.best(group.data)
        return None if best is None or best is group else self.between(group, best)

    def rows(self) -> list[dict[str, Any]]:
        """A row per group, ready to be written."""
        return [self._row(group) for group in self.groups]

    def _row(self, group: Group) -> dict[str, Any]:
        seconds = group.values("train_seconds")
        mean = sum(seconds) / len(seconds) if seconds else None
        return {
            "group": group,
            "best": group is self.best(group.data),
            "spreads": [group.spread(rule, self.metric) for rule in self.rules],
            "source": group.spread("selected", SOURCE),
            "n": len(group.done),
            "total": len(group.jobs),
            "difference": self.against_best(group),
            "seconds": mean,
            "time": render.duration(mean),
        }


def board_of(jobs: list[Record], sweeps: Sequence[str] = ()) -> Board:
    groups, metric = group_jobs(jobs, sweeps), primary_metric(jobs)
    groups = _ranked(groups, metric)
    keys = list(dict.fromkeys(key for group in groups for key in group.settings))
    varying = {key for group in groups for key in group.varying}
    return Board(
        jobs=jobs,
        sweeps=list(sweeps),
        groups=groups,
        metric=metric,
        rules=[rule for rule in RULES if any(g.spread(rule, metric).n for g in groups)],
        settings=[key for key in keys if key in varying],
        shared=[key for key in keys if key not in varying],
        pairs=pairs(groups, metric),
    )


def _ranked(groups: list[Group], metric: str) -> list[Group]:
    """By data, best selected mean first, groups without a result last."""

    def place(group: Group) -> tuple[str, float]:
        standing = group.standing(metric)
        return group.data, -standing if standing is not None else float("inf")

    return sorted(groups, key=place)
