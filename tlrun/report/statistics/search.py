"""A search over hyperparameters, read from `search.json` of a sweep folder.

    {"sampler": "tpe", "direction": "maximize", "metric": "information_maximization",
     "trials": [{"number": 0, "jobs": ["<folder>"], "params": {"optimizer.lr": 0.01},
                 "value": 2.1, "state": "completed", "start": false}]}

A trial has a job per seed, and its value is their mean (sweep/search.py writes it; one
"job" is read too). The search looks at `value` alone. Target test accuracy stands beside it, after
the fact.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlrun.config.hashes import fresh_seeds_command
from tlrun.evaluate.figures import Unit, finite
from tlrun.evaluate.selection import sees_target_labels
from tlrun.messages import plural
from tlrun.report.formats import NONE, in_points, number, plain
from tlrun.report.read.run_record import RunRecord, mapping
from tlrun.report.statistics.groups import kind_in, mean_of, title_in

SHOWN = 15  # trials in the table, the best ones; the leaderboard has all
NAME = "search.json"


@dataclass(frozen=True)
class TrialRecord:
    """test: target test figure of the selected checkpoints, mean; nothing chose by it.

    start: whether it is the setting as it was before the search.
    """

    number: int
    params: dict[str, Any]
    value: float | None
    state: str
    start: bool
    records: list[RunRecord]
    test: float | None
    tests: int = 0  # runs that `test` is the mean of

    @property
    def failed(self) -> bool:
        """Tried, and without a value: also where no evaluation passed the guard ("guarded")."""
        return self.value is None and self.state not in ("running", "created", "waiting")

    @property
    def errors(self) -> str:
        texts = (str(record.status.get("error") or "") for record in self.records)
        return "; ".join(dict.fromkeys(filter(None, texts)))

    @property
    def setting(self) -> str:
        return " ".join(f"{key}={param_text(value)}" for key, value in self.params.items())


@dataclass(frozen=True)
class SearchRecord:
    sampler: str
    metric: str
    maximize: bool
    trials: list[TrialRecord]
    test_name: str = "target test accuracy"
    test_unit: Unit = "share"

    @property
    def valued(self) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.value is not None]

    @property
    def ranked(self) -> list[TrialRecord]:
        """With a value, best first; the earlier one wins a tie."""
        sign = -1.0 if self.maximize else 1.0
        return sorted(self.valued, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    @property
    def best(self) -> TrialRecord | None:
        return self.ranked[0] if self.valued else None

    @property
    def oracle(self) -> TrialRecord | None:
        """What target test labels would have chosen among the trials with a value."""
        tested = [trial for trial in self.valued if trial.test is not None]
        return max(tested, key=lambda trial: trial.test or 0.0, default=None)

    @property
    def not_chosen(self) -> list[RunRecord]:
        """The runs of all trials but the best; [] while there is none."""
        best = self.best
        chosen = best.records if best else []
        tried = [record for trial in self.trials for record in trial.records if best]
        return [record for record in tried if record not in chosen]

    @property
    def params(self) -> list[str]:
        """Searched keys, in order of appearance, that took more than one value."""
        keys = dict.fromkeys(key for trial in self.trials for key in trial.params)
        return [k for k in keys if len({repr(t.params.get(k)) for t in self.trials}) > 1]

    def spearman(self) -> float | None:
        """Rank correlation of value (turned so that high is good) and test figure over trials."""
        both = [(t.value, t.test) for t in self.valued if t.test is not None]
        if len(both) < 3 or any(len(set(column)) < 2 for column in zip(*both, strict=True)):
            return None
        from scipy.stats import spearmanr  # 0.3 s

        correlation = float(spearmanr(*zip(*both, strict=True)).statistic)
        return correlation if self.maximize else -correlation


def read_search(folder: Path, jobs: Sequence[RunRecord], metric: str) -> SearchRecord | None:
    """None without the file, or if it holds no trial that can be read."""
    try:
        content = mapping(json.loads((folder / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    inside = [job for job in jobs if folder.resolve() in job.path.resolve().parents]
    records = {job.path.name: job for job in inside}
    listed = content.get("trials")
    trials = [
        _trial(mapping(entry), place, records, metric)
        for place, entry in enumerate(listed if isinstance(listed, list) else [])
    ]
    if not trials:
        return None
    return SearchRecord(
        sampler=str(content.get("sampler") or "unknown"),
        metric=str(content.get("metric") or "value"),
        maximize=content.get("direction") != "minimize",
        trials=sorted(trials, key=lambda trial: trial.number),
        test_name=title_in(jobs, metric),
        test_unit=kind_in(jobs, metric).unit,
    )


def _trial(
    entry: dict[str, Any], place: int, records: dict[str, RunRecord], metric: str
) -> TrialRecord:
    jobs = entry.get("jobs") or [entry.get("job")]
    names = [Path(str(job)).name for job in (jobs if isinstance(jobs, list) else [])]
    runs = [records[name] for name in names if name in records]
    number = finite(entry.get("number"))
    tests: list[float] = []
    if metric.startswith("target_test/"):  # evaluate.target_test=false shows another figure
        tests = [test for run in runs if (test := run.value(metric)) is not None]
    return TrialRecord(
        number=place if number is None else int(number),
        params=mapping(entry.get("params")),
        value=finite(entry.get("value")),
        state=str(entry.get("state") or (runs[0].state if runs else "unknown")),
        start=entry.get("start") is True,
        records=runs,
        test=mean_of(tests),
        tests=len(tests),
    )


def sentences(search: SearchRecord) -> list[str]:
    """What was searched, what it found, and what the oracle would have found."""
    counts = Counter(trial.state for trial in search.trials)
    states = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    goal = "the highest" if search.maximize else "the lowest"
    labels = "which sees target labels" if sees_target_labels(search.metric) else ""
    said = [
        f"{plural(len(search.trials), 'trial')} ({states}) by the sampler {search.sampler}, for "
        f"{goal} {search.metric.replace('_', ' ')}, {labels or 'without target labels'}."
    ]
    best = search.best
    if best is None:
        return [*said, "No trial has a value yet."]
    said.append(f"Best: trial {best.number} with {number(best.value)}: {best.setting}.")
    if best.test is None:
        return [*said, "Target test was left out of the search: it is known once fresh seeds ran."]
    runs = "one run" if best.tests == 1 else f"{best.tests} runs"
    return [
        *said,
        _beside_the_oracle(search, best),
        f"The figure is of {runs} and of the best of several trials: run the chosen setting "
        "again with other seeds before you report it.",
    ]


def _beside_the_oracle(search: SearchRecord, best: TrialRecord) -> str:
    oracle, unit = search.oracle, search.test_unit
    assert oracle is not None and oracle.test is not None and best.test is not None  # noqa: PT018
    reached = number(best.test, unit, sign=True)
    text = f"For reading only: {search.test_name} there is {reached}. "
    if oracle is best:
        text += "The oracle would have chosen the same trial."
    else:
        text += (
            f"The oracle would have chosen trial {oracle.number} with "
            f"{number(oracle.test, unit, sign=True)}: the search lost "
            f"{number(oracle.test - best.test, unit)}{in_points(unit)} to it."
        )
    correlation = search.spearman()
    if correlation is not None:
        text += (
            " Rank correlation of value and target test over trials: "
            f"{number(correlation, 'correlation')}."
        )
    return text


def fresh_seeds(search: SearchRecord) -> str | None:
    """The command that runs the chosen setting with three seeds that the search did not use."""
    if search.best is None or not search.best.records:
        return None
    used = [finite(record.seed) for trial in search.trials for record in trial.records]
    seeds = [int(seed) for seed in used if seed is not None]
    return fresh_seeds_command(search.best.records[0].overrides, seeds)


def param_text(value: Any) -> str:
    """0.00123456 -> '0.001235'; names as they are."""
    return number(value) if isinstance(value, float) and finite(value) is not None else plain(value)


@dataclass(frozen=True)
class TrialLine:
    """A trial in the table; params: of each searched key (text, value)."""

    trial: TrialRecord
    best: bool
    params: list[tuple[str, Any]]
    notes: list[str]


def table(search: SearchRecord) -> list[TrialLine]:
    """The best trials, the one the oracle would have chosen, and those without a value."""
    best, oracle = search.best, search.oracle
    shown = search.ranked[:SHOWN]
    if oracle is not None and oracle not in shown:
        shown.append(oracle)
    shown += [trial for trial in search.trials if trial.value is None][:SHOWN]
    lines = []
    for trial in shown:
        notes = {
            "best": trial is best,
            "the oracle's choice": trial is oracle,
            "the setting as it was": trial.start,
            "no evaluation passed the guard": trial.state == "guarded",
            trial.errors: bool(trial.errors),
        }
        values = [
            (
                param_text(trial.params[key]) if key in trial.params else NONE,
                trial.params.get(key, ""),
            )
            for key in search.params
        ]
        lines.append(
            TrialLine(
                trial, trial is best, values, [text for text, holds in notes.items() if holds]
            )
        )
    return lines
