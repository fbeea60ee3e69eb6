"""Groups of a sweep: jobs that differ in nothing but the seed.

A group is one line of the leaderboard: mean and sample standard deviation over its completed seeds
under each rule of selection.
"""

from __future__ import annotations

import functools
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tlrun.config.data_names import is_pair_key
from tlrun.evaluate.figures import Kind, axis, finite, is_interval, kind_of, title
from tlrun.report.formats import Shown, setting, with_interval
from tlrun.report.read.run_record import RunRecord

SOURCE = "source_test/accuracy"
# These have columns of their own; any other override that varies is a setting.
APART = ("method", "terms", "data", "seed")


@dataclass(frozen=True)
class FigureRow:
    """One figure of one group: a row of the tidy table that csv, Markdown and page show.

    rule: the rule that chose the checkpoints, "" for what no rule decides (a cost). values: by
    seed, of the completed jobs that have the figure.
    """

    group: Group
    rule: str
    key: str
    unit: Shown
    values: Mapping[Any, float]

    @property
    def n(self) -> int:
        return len(self.values)

    @cached_property
    def mean(self) -> float | None:
        return statistics.fmean(self.values.values()) if self.values else None

    @cached_property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None for fewer than two seeds."""
        return statistics.stdev(self.values.values()) if self.n > 1 else None

    @property
    def text(self) -> str:
        """'91.0 ± 0.8', shares in percent."""
        return with_interval(self.mean, self.std, self.unit)


@dataclass(frozen=True, eq=False)
class Group:
    """All jobs that differ in nothing but the seed.

    method: with its terms, as a record names it. sweep: where several sweeps are compared, which
    one. shared: keys of settings that all groups of its sweep have alike.
    """

    method: str
    data: str
    settings: Mapping[str, str]
    jobs: Sequence[RunRecord]
    sweep: str = ""
    shared: frozenset[str] = frozenset()

    @property
    def data_set(self) -> str:
        """Without the domains: "pacs"."""
        return self.jobs[0].data_set

    @cached_property
    def done(self) -> list[RunRecord]:
        return [job for job in self.jobs if job.state == "completed"]

    @cached_property
    def saw_target_labels(self) -> bool:
        return any(
            job.summary.get("selection_saw_target_labels") or job.summary.get("target_labels_seen")
            for job in self.done
        )

    @cached_property
    def failed_trainings(self) -> list[RunRecord]:
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

    @cached_property
    def name(self) -> str:
        return " ".join([self.short_name, *([f"[{self.sweep}]"] if self.sweep else [])])

    @cached_property
    def short_name(self) -> str:
        """Within its sweep."""
        return " ".join([self.method, *self.written(self.varying)])

    @cached_property
    def varying(self) -> dict[str, str]:
        """The settings that tell it from others of its sweep."""
        return {key: value for key, value in self.settings.items() if key not in self.shared}

    @staticmethod
    def written(settings: Mapping[str, str]) -> list[str]:
        """'key=value' each, to be read."""
        return [f"{key}={setting(value)}" for key, value in settings.items()]

    @functools.cache  # noqa: B019 - groups live as long as the page is written
    def row(self, rule: str, key: str) -> FigureRow:
        """A figure under a rule of selection."""
        values = {job.seed: job.value(key, rule) for job in self.done}
        measured = {seed: value for seed, value in values.items() if value is not None}
        return FigureRow(self, rule, key, kind_in(self.done, key).unit, measured)

    def values(self, key: str) -> list[float]:
        """What summary.json says apart from figures, of every completed job that has it."""
        return [v for job in self.done if (v := finite(job.summary.get(key))) is not None]

    @functools.cache  # noqa: B019
    def standing(self, key: str, rule: str = "selected") -> float | None:
        """The mean, turned so that more is better; None without a value."""
        mean = self.row(rule, key).mean
        lower = kind_in(self.done, key).higher_is_better is False
        return -mean if mean is not None and lower else mean


def mean_of(values: Sequence[float]) -> float | None:
    """None without a value."""
    return statistics.fmean(values) if values else None


def group_jobs(jobs: Sequence[RunRecord], sweeps: Sequence[str] = ()) -> list[Group]:
    """Jobs by method, data and every other override that is not the same in all jobs.

    sweeps: of each job the sweep, where several are compared; jobs of two sweeps never mix.
    """
    typed = [_overrides(job) for job in jobs]
    told = {*APART, *_told_by_the_data(jobs, typed)}
    names = list(dict.fromkeys(key for overrides in typed for key in overrides if key not in told))
    varying = [key for key in names if len({overrides.get(key) for overrides in typed}) > 1]
    alike: dict[tuple[str, str, str, tuple[tuple[str, str], ...]], list[RunRecord]] = {}
    for job, overrides, sweep in zip(jobs, typed, sweeps or [""] * len(jobs), strict=True):
        settings = tuple((key, overrides[key]) for key in varying if key in overrides)
        alike.setdefault((sweep, job.method, job.data, settings), []).append(job)
    common = {
        sweep: frozenset.intersection(*(frozenset(key[3]) for key in alike if key[0] == sweep))
        for sweep in set(sweeps)
    }
    return [
        Group(
            method,
            data,
            dict(settings),
            members,
            sweep,
            frozenset(key for key, _ in common.get(sweep, ())),
        )
        for (sweep, method, data, settings), members in alike.items()
    ]


def _told_by_the_data(jobs: Sequence[RunRecord], typed: Sequence[Mapping[str, str]]) -> set[str]:
    """Keys that choose a pair: a pair is data, whose name says it, and no setting.

    Not so of a place that the name does not tell: two folders called `photo`.
    """
    keys = {key for overrides in typed for key in overrides if is_pair_key(key)}
    places: dict[tuple[str, str], set[str]] = {}
    for job, overrides in zip(jobs, typed, strict=True):
        for key in keys & overrides.keys():
            if key.endswith((".root", ".list", ".path")):
                places.setdefault((key, job.data), set()).add(overrides[key].rstrip("/"))
    return keys - {key for (key, _), values in places.items() if len(values) > 1}


def best_of(groups: Sequence[Group], metric: str, rule: str = "selected") -> Group | None:
    """The best mean; of groups that saw target labels only if all did. None without a result."""
    having = [group for group in groups if group.row(rule, metric).n]
    fair = [group for group in having if not group.saw_target_labels] or having
    return max(fair, key=lambda group: group.standing(metric, rule) or 0.0, default=None)


def primary_metric(jobs: Sequence[RunRecord]) -> str:
    """The headline of most jobs; without any, what the evaluators left first; at last the source's.

    Jobs whose tasks have other figures (`other_headlines`) have no value of it.
    """
    headlines = Counter(job.headline for job in jobs if job.value(job.headline) is not None)
    if headlines:
        return headlines.most_common(1)[0][0]
    measured = dict.fromkeys(
        key for job in jobs for key in job.figures("selected") if job.value(key) is not None
    )
    others = (
        key
        for key in measured
        if key not in ("step", "delta_m")
        and not key.startswith("source_test/")
        and not is_interval(key)
        and kind_in(jobs, key).higher_is_better is not False
    )
    return next(others, SOURCE)


def kind_in(jobs: Sequence[RunRecord], metric: str) -> Kind:
    """What a figure is, by the first job that has it."""
    job = _first_with(jobs, metric)
    return kind_of(metric) if job is None else job.kind(metric)


def title_in(jobs: Sequence[RunRecord], metric: str) -> str:
    """What it is called there: "target test accuracy"."""
    job = _first_with(jobs, metric)
    return title(metric, kind_of(metric)) if job is None else job.title(metric)


def label_in(jobs: Sequence[RunRecord], metric: str) -> str:
    """The label of an axis of it."""
    return axis(title_in(jobs, metric), kind_in(jobs, metric).unit)


def _first_with(jobs: Sequence[RunRecord], metric: str) -> RunRecord | None:
    return next((job for job in jobs if metric in job.figures("selected")), None)


def _overrides(job: RunRecord) -> dict[str, str]:
    pairs = [item.lstrip("+~").split("=", 1) for item in job.overrides if "=" in item]
    return {key: value for key, value in pairs if not key.startswith("hydra.")}
