"""Groups of a sweep: jobs that differ in nothing but the seed, their spread, and their differences.

A group is one line of the leaderboard: mean and sample standard deviation over its completed seeds
under each rule of selection. Differences are tested pairwise over the seeds both groups completed.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from tlrun.report import render
from tlrun.report.record import Record, number

TARGET, SOURCE = "target_test/accuracy", "source_test/accuracy"
# These have columns of their own; any other override that varies is a setting.
APART = ("method", "data", "seed")


@dataclass(frozen=True)
class Spread:
    """Values by seed under one rule."""

    values: dict[Any, float]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None for fewer than two seeds."""
        return statistics.stdev(self.values.values()) if self.n > 1 else None

    def text(self) -> str:
        """'91.0 ± 0.8' in percent."""
        spread = "" if self.std is None else f" ± {render.percent(self.std)}"
        return render.percent(self.mean) + spread


@dataclass
class Group:
    """All jobs that differ in nothing but the seed."""

    method: str
    data: str
    settings: dict[str, str]
    jobs: list[Record] = field(default_factory=list)

    @property
    def done(self) -> list[Record]:
        return [job for job in self.jobs if job.state == "completed"]

    @property
    def saw_target_labels(self) -> bool:
        return any(
            job.summary.get("selection_saw_target_labels") or job.summary.get("target_labels_seen")
            for job in self.done
        )

    @property
    def name(self) -> str:
        return " ".join([self.method, *(f"{key}={value}" for key, value in self.settings.items())])

    def spread(self, rule: str, metric: str) -> Spread:
        values = {job.seed: number(job.figures(rule).get(metric)) for job in self.done}
        return Spread({seed: value for seed, value in values.items() if value is not None})


def group_jobs(jobs: list[Record]) -> list[Group]:
    """Jobs by method, data and every other override that is not the same in all jobs."""
    given = [_overrides(job) for job in jobs]
    names = list(dict.fromkeys(key for overrides in given for key in overrides if key not in APART))
    varying = [key for key in names if len({overrides.get(key) for overrides in given}) > 1]
    groups: dict[tuple[Any, ...], Group] = {}
    for job, overrides in zip(jobs, given, strict=True):
        settings = {key: overrides[key] for key in varying if key in overrides}
        key = (job.method, job.data, *settings.items())
        groups.setdefault(key, Group(job.method, job.data, settings)).jobs.append(job)
    return list(groups.values())


def primary_metric(jobs: list[Record]) -> str:
    """Target test accuracy; without one, what the evaluators left first; at last the source's."""
    found = dict.fromkeys(
        key
        for job in jobs
        for key, value in job.figures("selected").items()
        if number(value) is not None
    )
    if TARGET in found:
        return TARGET
    others = [key for key in found if key != "step" and not key.startswith("source_test/")]
    return others[0] if others else SOURCE


def metric_name(metric: str) -> str:
    return metric.replace("/", " ").replace("_", " ")


def compare(group: Group, other: Group, metric: str) -> tuple[float, float | None, int] | None:
    """(mean of group - other, p, n) over the seeds both completed; None without a common seed.

    By the selected checkpoints. p: two-sided paired t-test; None for n < 2 or equal differences.
    """
    mine, theirs = group.spread("selected", metric).values, other.spread("selected", metric).values
    differences = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
    if not differences:
        return None
    n, mean = len(differences), statistics.fmean(differences)
    if n < 2 or statistics.stdev(differences) < 1e-12:
        return mean, None, n
    from scipy.stats import t

    statistic = mean / (statistics.stdev(differences) / n**0.5)
    return mean, float(2 * t.sf(abs(statistic), n - 1)), n


def _overrides(job: Record) -> dict[str, str]:
    pairs = [item.lstrip("+~").split("=", 1) for item in job.overrides if "=" in item]
    return {key: value for key, value in pairs if not key.startswith("hydra.")}
