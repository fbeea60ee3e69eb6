"""A row's mean over data: one group over the groups that are alike on every data set or pair.

The mean of a seed is taken over the data first, so that its spread and its tests are over seeds, as
those of one data set are. It says nothing about data that are not in it.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from tlrun.report.statistics.groups import FigureRow, Group


@dataclass(frozen=True, eq=False)
class MeanGroup(Group):
    """parts: one group for each data; data: "mean of 4 pairs"."""

    parts: Sequence[Group] = ()

    @functools.cache  # noqa: B019 - groups live as long as the page is written
    def row(self, rule: str, key: str) -> FigureRow:
        """Over the seeds that every part has; no value where there is none."""
        rows = [part.row(rule, key) for part in self.parts]
        seeds = [seed for seed in rows[0].values if all(seed in row.values for row in rows)]
        values = {seed: statistics.fmean(row.values[seed] for row in rows) for seed in seeds}
        return FigureRow(self, rule, key, rows[0].unit, values)


def alike(group: Group) -> Hashable:
    """What groups of different data have alike if they are the same method and setting."""
    return (group.sweep, group.method, *group.varying.items())


def mean_groups(groups: Sequence[Group]) -> list[MeanGroup]:
    """Of every method and setting that stands on all data of its sweep; [] with one data set."""
    sets: dict[str, set[str]] = {}
    for group in groups:
        sets.setdefault(group.sweep, set()).add(group.data)
    parts: dict[Hashable, list[Group]] = {}
    for group in groups:
        parts.setdefault(alike(group), []).append(group)
    return [
        MeanGroup(
            method=same[0].method,
            data=f"mean of {len(same)} {'pairs' if all('→' in g.data for g in same) else 'sets'}",
            settings=same[0].settings,
            jobs=[job for group in same for job in group.jobs],
            sweep=same[0].sweep,
            shared=same[0].shared,
            parts=same,
        )
        for same in parts.values()
        if len(same) == len(sets[same[0].sweep]) > 1
    ]
