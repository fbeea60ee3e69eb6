"""What a careful reader should know before believing a leaderboard: a sentence each, or none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tlrun.messages import plural
from tlrun.report.read.run_record import RunRecord, mapping
from tlrun.report.statistics.data_cautions import data_cautions
from tlrun.report.statistics.groups import Group
from tlrun.report.statistics.leaderboard import Leaderboard
from tlrun.report.statistics.wording import counted, named


def cautions(board: Leaderboard, never_begun: int = 0) -> list[str]:
    """In order of weight; [] where nothing is to be said."""
    groups = board.groups
    done = [job for group in groups for job in group.done]
    said = [_missing(board.jobs, never_begun), _failed_trainings(groups)]
    said += [_labels(groups), _repeated(groups)]
    said += data_cautions(board)
    said += [
        _other_headlines(done, board.metric),
        _few_seeds(groups),
        _tuned_on_test(groups),
        _rules(done),
        _fell_back(groups),
        _code(done),
        _machines(done),
        _resumed(done),
    ]
    return [sentence for sentence in said if sentence]


def _missing(jobs: Sequence[RunRecord], never_begun: int) -> str:
    states = Counter(job.state for job in jobs if job.state != "completed")
    if never_begun:
        states["never begun"] = never_begun
    if not states:
        return ""
    what = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
    return (
        f"{states.total()} of {len(jobs) + never_begun} jobs have no result ({what}); the means "
        "are over those that have."
    )


def _failed_trainings(groups: Sequence[Group]) -> str:
    failed = [job.training_failure for group in groups for job in group.failed_trainings]
    if not failed:
        return ""
    kinds = Counter(failure.kind for failure in failed if failure)
    what = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    return (
        f"Training failed in {plural(len(failed), 'job')} ({what}): "
        f"{named(group.name for group in groups if group.failed_trainings)}. Marked †; the "
        "figures of these jobs say nothing about the method."
    )


def _labels(groups: Sequence[Group]) -> str:
    saw = named(group.name for group in groups if group.saw_target_labels)
    if not saw:
        return ""
    return (
        f"Saw target labels in training or selection: {saw}. Marked *, and never called "
        "best beside rows that did not."
    )


def _repeated(groups: Sequence[Group]) -> str:
    extra = sum(len(group.done) - len({job.seed for job in group.done}) for group in groups)
    if not extra:
        return ""
    return (
        f"{plural(extra, 'completed job')} with the method, data, settings and seed of another: "
        "of those the last by folder name counts. Only what was typed tells jobs apart here."
    )


def _few_seeds(groups: Sequence[Group]) -> str:
    most = max((len({job.seed for job in group.done}) for group in groups), default=0)
    if most == 1:
        return "One seed each: no spread and no test, so differences may be chance."
    if most == 2:
        return "At most two seeds each: a standard deviation of two values is hardly one."
    return ""


def _other_headlines(done: Sequence[RunRecord], metric: str) -> str:
    others: dict[str, list[str]] = {}  # title -> the data of each job
    for job in done:
        if job.value(metric) is None and job.value(job.headline) is not None:
            others.setdefault(job.title(job.headline), []).append(job.data)
    if not others:
        return ""
    what = ", ".join(
        f"{title} of {named(sets)} ({plural(len(sets), 'job')})" for title, sets in others.items()
    )
    return f"Jobs with another figure have no place in the columns: {what}."


def _tuned_on_test(groups: Sequence[Group]) -> str:
    rows = Counter((group.sweep, group.data, group.method) for group in groups if group.done)
    if max(rows.values(), default=0) < 2:
        return ""
    return (
        "Rows of one method that differ in settings stand in the order of their test figures: to "
        "take the top one as the method's result is to tune on test labels."
    )


def _rules(done: Sequence[RunRecord]) -> str:
    rules = Counter(str(job.summary.get("selection_rule")) for job in done)
    if len(rules) < 2:
        return ""
    return f"Checkpoints were selected by different rules: {counted(rules)}."


def _fell_back(groups: Sequence[Group]) -> str:
    done = [(group.name, job) for group in groups for job in group.done]
    names = [name for name, job in done if job.summary.get("selection_fell_back")]
    if not names:
        return ""
    return (
        f"In {len(names)} of {len(done)} jobs no evaluation passed the guard against collapse: "
        f"there, 'selected' is the last step ({named(names)})."
    )


def _code(done: Sequence[RunRecord]) -> str:
    """Versions and code: what may make equal commands differ."""
    versions = [mapping(job.environment.get("versions")) for job in done]
    columns: dict[str, Counter[Any]] = {
        "tlrun": Counter(version.get("tlrun") for version in versions),
        "torch": Counter(version.get("torch") for version in versions),
        "commit": Counter(commit(job) for job in done),
    }
    parts = [f"{name} {counted(values)}" for name, values in columns.items() if len(values) > 1]
    sentences = [f"Jobs ran with different code: {'; '.join(parts)}."] if parts else []
    if dirty := sum(bool(_git(job).get("dirty")) for job in done):
        sentences.append(f"{dirty} of {len(done)} jobs ran with uncommitted changes.")
    return " ".join(sentences)


def commit(job: RunRecord) -> str:
    """Of the checkout that tlrun ran from; 'none' for an installed package."""
    return str(_git(job).get("sha") or "none")[:10]


def _git(job: RunRecord) -> dict[str, Any]:
    return mapping(mapping(job.environment.get("git")).get("tlrun"))


def _machines(done: Sequence[RunRecord]) -> str:
    parts = ("host", "cpu", "devices")
    machines = {
        json.dumps([job.environment.get(part) for part in parts], sort_keys=True) for job in done
    }
    if len(machines) < 2:
        return ""
    return f"Jobs ran on {len(machines)} different machines: times compare these, not methods."


def _resumed(done: Sequence[RunRecord]) -> str:
    n = sum(bool(job.summary.get("resumed_with")) for job in done)
    return f"{n} of {len(done)} jobs were resumed with changed settings." if n else ""
