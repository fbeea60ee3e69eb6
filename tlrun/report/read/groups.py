"""Groups of a sweep: jobs that differ in nothing but the seed, their spread, and their differences.

A group is one line of the leaderboard: mean and sample standard deviation over its completed seeds
under each rule of selection. Differences are tested pairwise over the seeds both groups completed.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tlrun.evaluate.figures import Kind, Unit, axis, kind_of, title
from tlrun.report.pages import render
from tlrun.report.read.record import Record, number

TARGET, SOURCE = "target_test/accuracy", "source_test/accuracy"
# These have columns of their own; any other override that varies is a setting.
APART = ("method", "data", "seed")


@dataclass(frozen=True)
class Spread:
    """Values by seed under one rule, of one unit."""

    values: dict[Any, float]
    unit: Unit = "share"

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
        """'91.0 ± 0.8', shares in percent."""
        spread = "" if self.std is None else f" ± {render.written(self.std, self.unit)}"
        return render.written(self.mean, self.unit) + spread


@dataclass
class Group:
    """All jobs that differ in nothing but the seed."""

    method: str
    data: str
    settings: dict[str, str]
    jobs: list[Record] = field(default_factory=list)
    sweep: str = ""  # where several sweeps are compared: which one
    shared: frozenset[str] = frozenset()  # keys that all groups of its sweep have alike

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
    def failed_trainings(self) -> list[Record]:
        """Completed jobs that diverged or never left chance."""
        return [job for job in self.done if job.training_failure]

    @property
    def marks(self) -> str:
        """Behind its name: * saw target labels, † a training failed."""
        return "*" * self.saw_target_labels + "†" * bool(self.failed_trainings)

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells the group from others of the same data."""
        return (self.method, tuple(self.settings.items()), self.sweep)

    @property
    def name(self) -> str:
        return " ".join([self.short_name, *([f"[{self.sweep}]"] if self.sweep else [])])

    @property
    def short_name(self) -> str:
        """Within its sweep."""
        return " ".join([self.method, *self.written(self.varying)])

    @property
    def varying(self) -> dict[str, str]:
        """The settings that tell it from others of its sweep."""
        return {key: value for key, value in self.settings.items() if key not in self.shared}

    @staticmethod
    def written(settings: Mapping[str, str]) -> list[str]:
        """'key=value' each, to be read."""
        return [f"{key}={render.setting_text(value)}" for key, value in settings.items()]

    def values(self, key: str) -> list[float]:
        """A figure of summary.json, of every completed job that has it."""
        return [v for job in self.done if (v := number(job.summary.get(key))) is not None]

    def spread(self, rule: str, metric: str) -> Spread:
        values = {job.seed: number(job.figures(rule).get(metric)) for job in self.done}
        found = {seed: value for seed, value in values.items() if value is not None}
        return Spread(found, kind_in(self.done, metric).unit)

    def standing(self, metric: str, rule: str = "selected") -> float | None:
        """The mean, turned so that more is better; None without a value."""
        mean = self.spread(rule, metric).mean
        lower = kind_in(self.done, metric).higher_is_better is False
        return -mean if mean is not None and lower else mean


def group_jobs(jobs: list[Record], sweeps: Sequence[str] = ()) -> list[Group]:
    """Jobs by method, data and every other override that is not the same in all jobs.

    sweeps: of each job the sweep, where several are compared; jobs of two sweeps never mix.
    """
    given = [_overrides(job) for job in jobs]
    names = list(dict.fromkeys(key for overrides in given for key in overrides if key not in APART))
    varying = [key for key in names if len({overrides.get(key) for overrides in given}) > 1]
    groups: dict[tuple[Any, ...], Group] = {}
    places = sweeps or [""] * len(jobs)
    for job, overrides, sweep in zip(jobs, given, places, strict=True):
        settings = {key: overrides[key] for key in varying if key in overrides}
        key = (sweep, job.method, job.data, *settings.items())
        group = groups.setdefault(key, Group(job.method, job.data, settings, sweep=sweep))
        group.jobs.append(job)
    found = list(groups.values())
    for sweep in set(sweeps):
        own = [group for group in found if group.sweep == sweep]
        for group in own:
            group.shared = frozenset(
                key
                for key, value in group.settings.items()
                if all(other.settings.get(key) == value for other in own)
            )
    return found


def best_of(groups: Sequence[Group], metric: str, rule: str = "selected") -> Group | None:
    """The best mean; of groups that saw target labels only if all did. None without a result."""
    having = [group for group in groups if group.spread(rule, metric).n]
    fair = [group for group in having if not group.saw_target_labels] or having
    return max(fair, key=lambda group: group.standing(metric, rule) or 0.0, default=None)


def primary_metric(jobs: list[Record]) -> str:
    """The headline of most jobs; without any, what the evaluators left first; at last the source's.

    Jobs whose tasks have other figures (`other_headlines`) have no value of it.
    """
    found = dict.fromkeys(
        key
        for job in jobs
        for key, value in job.figures("selected").items()
        if number(value) is not None
    )
    headlines = Counter(
        job.headline
        for job in jobs
        if number(job.figures("selected").get(job.headline)) is not None
    )
    if headlines:
        return headlines.most_common(1)[0][0]
    others = [
        key
        for key in found
        if key not in ("step", "delta_m")
        and not key.startswith("source_test/")
        and not key.endswith("ci95")
        and kind_in(jobs, key).higher_is_better is not False
    ]
    return others[0] if others else SOURCE


def kind_in(jobs: Sequence[Record], metric: str) -> Kind:
    """What a figure is, by the first job that has it."""
    having = (job for job in jobs if metric in job.figures("selected"))
    job = next(having, None)
    return kind_of(metric) if job is None else job.kind(metric)


def title_in(jobs: Sequence[Record], metric: str) -> str:
    """What it is called there: "target test accuracy"."""
    job = next((job for job in jobs if metric in job.figures("selected")), None)
    return title(metric, kind_of(metric)) if job is None else job.title(metric)


def label_in(jobs: Sequence[Record], metric: str) -> str:
    """The label of an axis of it."""
    return axis(title_in(jobs, metric), kind_in(jobs, metric).unit)


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
