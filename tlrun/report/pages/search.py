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
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlrun.config.hashes import fresh_seeds_command
from tlrun.evaluate.figures import Unit, with_unit
from tlrun.evaluate.selection import sees_target_labels
from tlrun.report.pages import render
from tlrun.report.read.groups import kind_in, title_in
from tlrun.report.read.record import Record, mapping, number

SHOWN = 15  # trials in the table, the best ones; the leaderboard has all
NAME = "search.json"


@dataclass(frozen=True)
class Trial:
    """start: whether it is the setting as it was before the search."""

    number: int
    params: dict[str, Any]
    value: float | None
    state: str
    start: bool
    records: list[Record]
    tests: list[float]

    @property
    def test(self) -> float | None:
        """Target test figure in [0, 1] of the selected checkpoints, mean; nothing chose by it."""
        return statistics.fmean(self.tests) if self.tests else None

    @property
    def failed(self) -> bool:
        """Tried, and without a value: also where no evaluation passed the guard ("guarded")."""
        return self.value is None and self.state not in ("running", "created", "waiting")

    @property
    def errors(self) -> str:
        found = (str(record.status.get("error") or "") for record in self.records)
        return "; ".join(dict.fromkeys(filter(None, found)))


@dataclass(frozen=True)
class Search:
    sampler: str
    metric: str
    maximize: bool
    trials: list[Trial]
    test_name: str = "target test accuracy"
    test_unit: Unit = "share"

    @property
    def valued(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.value is not None]

    @property
    def ranked(self) -> list[Trial]:
        """With a value, best first; the earlier one wins a tie."""
        sign = -1.0 if self.maximize else 1.0
        return sorted(self.valued, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    @property
    def best(self) -> Trial | None:
        return self.ranked[0] if self.valued else None

    @property
    def oracle(self) -> Trial | None:
        """What target test labels would have chosen among the trials with a value."""
        tested = [trial for trial in self.valued if trial.test is not None]
        return max(tested, key=lambda trial: trial.test or 0.0, default=None)

    @property
    def params(self) -> list[str]:
        """Searched keys, in order of appearance, that took more than one value."""
        keys = dict.fromkeys(key for trial in self.trials for key in trial.params)
        return [k for k in keys if len({repr(t.params.get(k)) for t in self.trials}) > 1]

    @property
    def saw_target_labels(self) -> bool:
        return sees_target_labels(self.metric)

    def spearman(self) -> float | None:
        """Rank correlation of value (turned so that high is good) and test figure over trials."""
        both = [(t.value, t.test) for t in self.valued if t.test is not None]
        if len(both) < 3 or any(len(set(column)) < 2 for column in zip(*both, strict=True)):
            return None
        from scipy.stats import spearmanr

        table = np.array(both, dtype=float)
        found = float(spearmanr(table[:, 0], table[:, 1]).statistic)
        return found if self.maximize else -found


def read_search(folder: Path, jobs: Sequence[Record], metric: str) -> Search | None:
    """None without the file, or if it holds no trial that can be read."""
    try:
        found = mapping(json.loads((folder / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    inside = [job for job in jobs if folder.resolve() in job.path.resolve().parents]
    records = {job.path.name: job for job in inside}
    listed = found.get("trials")
    trials = [
        _trial(mapping(one), place, records, metric)
        for place, one in enumerate(listed if isinstance(listed, list) else [])
    ]
    if not trials:
        return None
    return Search(
        sampler=str(found.get("sampler") or "unknown"),
        metric=str(found.get("metric") or "value"),
        maximize=found.get("direction") != "minimize",
        trials=sorted(trials, key=lambda trial: trial.number),
        test_name=title_in(jobs, metric),
        test_unit=kind_in(jobs, metric).unit,
    )


def _trial(one: dict[str, Any], place: int, records: dict[str, Record], metric: str) -> Trial:
    jobs = one.get("jobs") or [one.get("job")]
    names = [Path(str(job)).name for job in (jobs if isinstance(jobs, list) else [])]
    own = [records[name] for name in names if name in records]
    at = number(one.get("number"))
    tests = [number(record.figures("selected").get(metric)) for record in own]
    if not metric.startswith("target_test/"):  # evaluate.target_test=false: another figure is shown
        tests = []
    return Trial(
        number=place if at is None else int(at),
        params=mapping(one.get("params")),
        value=number(one.get("value")),
        state=str(one.get("state") or (own[0].state if own else "unknown")),
        start=one.get("start") is True,
        records=own,
        tests=[test for test in tests if test is not None],
    )


def sentences(search: Search) -> list[str]:
    """What was searched, what it found, and what the oracle would have found."""
    counts: dict[str, int] = {}
    for trial in search.trials:
        counts[trial.state] = counts.get(trial.state, 0) + 1
    states = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    goal = "the highest" if search.maximize else "the lowest"
    labels = "which sees target labels" if search.saw_target_labels else "without target labels"
    rule = search.metric.replace("_", " ")
    found = [
        f"{len(search.trials)} trials ({states}) by the sampler {search.sampler}, for {goal} "
        f"{rule}, {labels}."
    ]
    best, oracle = search.best, search.oracle
    if best is None:
        return [*found, "No trial has a value yet."]
    found.append(f"Best: trial {best.number} with {value_text(best.value)}: {settings(best)}.")
    if best.test is None:
        found.append("Target test was left out of the search: it is known once fresh seeds ran.")
    if best.test is not None and oracle is not None and oracle.test is not None:
        unit = search.test_unit
        text = f"For reading only: {search.test_name} there is {with_unit(best.test, unit)}. "
        if oracle is best:
            text += "The oracle would have chosen the same trial."
        else:
            text += (
                f"The oracle would have chosen trial {oracle.number} with "
                f"{with_unit(oracle.test, unit)}: the search lost "
                f"{render.written(oracle.test - best.test, unit)}{render.in_points(unit)} to it."
            )
        correlation = search.spearman()
        if correlation is not None:
            text += f" Rank correlation of value and target test over trials: {correlation:+.2f}."
        found.append(text)
        runs = "one run" if len(best.tests) == 1 else f"{len(best.tests)} runs"
        found.append(
            f"The figure is of {runs} and of the best of several trials: run the chosen setting "
            "again with other seeds before you report it."
        )
    return found


def fresh_seeds(search: Search) -> str | None:
    """The command that runs the chosen setting with three seeds that the search did not use."""
    if search.best is None or not search.best.records:
        return None
    used = [number(record.seed) for trial in search.trials for record in trial.records]
    seeds = [int(seed) for seed in used if seed is not None]
    return fresh_seeds_command(search.best.records[0].overrides, seeds)


def value_text(value: float | None) -> str:
    return render.NONE if value is None else f"{value:.4g}"


def settings(trial: Trial) -> str:
    return " ".join(f"{key}={param_text(value)}" for key, value in trial.params.items())


def param_text(value: Any) -> str:
    """0.00123456 -> '0.001235'; names as they are."""
    known = number(value)
    return render.plain(value) if known is None or isinstance(value, int) else f"{known:.4g}"


def table(search: Search) -> list[dict[str, Any]]:
    """The best trials, the one the oracle would have chosen, and those without a value."""
    best, oracle = search.best, search.oracle
    shown = search.ranked[:SHOWN]
    if oracle is not None and oracle not in shown:
        shown.append(oracle)
    shown += [trial for trial in search.trials if trial.value is None][:SHOWN]
    return [
        {
            "trial": trial,
            "best": trial is best,
            "value": value_text(trial.value),
            "params": [
                (
                    param_text(trial.params[key]) if key in trial.params else render.NONE,
                    trial.params.get(key, ""),
                )
                for key in search.params
            ],
            "notes": [
                *(["best"] if trial is best else []),
                *(["the oracle's choice"] if trial is oracle else []),
                *(["the setting as it was"] if trial.start else []),
                *(["no evaluation passed the guard"] if trial.state == "guarded" else []),
                *([trial.errors] if trial.errors else []),
            ],
        }
        for trial in shown
    ]
