"""What a careful reader should know before believing a leaderboard: a sentence each, or none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tlrun.report.formats import number
from tlrun.report.read.run_record import RunRecord, mapping
from tlrun.report.statistics.groups import Group
from tlrun.report.statistics.leaderboard import Leaderboard

NAMED = 4  # groups named in a sentence


def cautions(board: Leaderboard, never_begun: int = 0) -> list[str]:
    """In order of weight; [] where nothing is to be said."""
    groups = board.groups
    jobs = [job for group in groups for job in group.jobs]
    done = [job for group in groups for job in group.done]
    found = [_missing(jobs, never_begun), _failed_trainings(groups)]
    found += [_labels(groups), _repeated(groups)]
    for data in dict.fromkeys(group.data for group in groups):
        of_data = [group for group in board.candidates if group.data == data and group.done]
        found += [_seeds(data, of_data), _budget(data, of_data), _test_sets(data, of_data)]
    found += [
        _other_headlines(done, board.metric),
        _few_seeds(groups),
        _tuned_on_test(groups),
        _rules(done),
        _fell_back(groups),
        _backbones(groups),
        _environment(done),
        _machines(done),
        _resumed(done),
    ]
    return [sentence for sentence in found if sentence]


def _missing(jobs: list[RunRecord], never_begun: int) -> str:
    counts = Counter(job.state for job in jobs if job.state != "completed")
    if never_begun:
        counts["never begun"] = never_begun
    if not counts:
        return ""
    total, lost = len(jobs) + never_begun, sum(counts.values())
    what = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    return f"{lost} of {total} jobs have no result ({what}); the means are over those that have."


def _failed_trainings(groups: Sequence[Group]) -> str:
    failed = [(group, job) for group in groups for job in group.failed_trainings]
    if not failed:
        return ""
    kinds = Counter(job.training_failure.kind for _, job in failed if job.training_failure)
    names = list(dict.fromkeys(group.name for group, _ in failed))
    what = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    return (
        f"Training failed in {len(failed)} {_jobs(len(failed))} ({what}): "
        f"{_some(names)}. Marked †; the figures of these jobs say nothing about the method."
    )


def _labels(groups: Sequence[Group]) -> str:
    names = list(dict.fromkeys(group.name for group in groups if group.saw_target_labels))
    if not names:
        return ""
    return (
        f"Saw target labels in training or selection: {_some(names)}. Marked *, and never called "
        "best beside rows that did not."
    )


def _repeated(groups: Sequence[Group]) -> str:
    extra = sum(len(group.done) - len({job.seed for job in group.done}) for group in groups)
    if not extra:
        return ""
    return (
        f"{extra} completed {_jobs(extra)} with the method, data, settings and seed of another: "
        "of those the last by folder name counts. Only what was typed tells jobs apart here."
    )


def _seeds(data: str, groups: list[Group]) -> str:
    seeds = {group.name: tuple(sorted({str(job.seed) for job in group.done})) for group in groups}
    if len(set(seeds.values())) < 2:
        return ""
    usual = Counter(seeds.values()).most_common(1)[0][0]
    others = [f"{name} has {_list(own)}" for name, own in seeds.items() if own != usual]
    return (
        f"{data}: not every group has the same seeds ({_list(usual)} for most; {_some(others)}). "
        "Compare the paired differences, which use common seeds, not the means."
    )


def _few_seeds(groups: Sequence[Group]) -> str:
    counts = [len({job.seed for job in group.done}) for group in groups if group.done]
    if not counts or max(counts) > 2:
        return ""
    if max(counts) == 1:
        return "One seed each: no spread and no test, so differences may be chance."
    return "At most two seeds each: a standard deviation of two values is hardly one."


def _budget(data: str, groups: list[Group]) -> str:
    """By method, so that a swept budget alone (its own setting) says nothing here."""
    images = _by_method(groups, "images_seen")
    if len({value for values in images.values() for value in values}) < 2 or len(images) < 2:
        return ""
    if len({tuple(sorted(values)) for values in images.values()}) < 2:
        return ""
    steps = {value for values in _by_method(groups, "steps").values() for value in values}
    told = sorted(images.items(), key=lambda item: max(item[1]))
    told = told if len(told) <= NAMED else [*told[:2], *told[-2:]]
    what = ", ".join(
        f"{name} {' or '.join(number(value, 'count') for value in sorted(values))}"
        for name, values in told
    )
    equal = (
        f" The steps are equal ({number(steps.pop(), 'count')}): a method that reads target images "
        "sees more in a step."
        if len(steps) == 1
        else " The steps differ too: a gain may be one of the budget."
    )
    return f"{data}: methods saw different numbers of images ({what}).{equal}"


def _by_method(groups: list[Group], key: str) -> dict[str, set[float]]:
    found: dict[str, set[float]] = {}
    for group in groups:
        if values := group.values(key):
            found.setdefault(group.method, set()).update(values)
    return found


def _test_sets(data: str, groups: list[Group]) -> str:
    sums: dict[Any, set[str]] = {}
    for job in (job for group in groups for job in group.done):
        domains = mapping(mapping(job.environment.get("data")).get("domains"))
        splits = mapping(mapping(domains.get("target")).get("splits"))
        if checksum := mapping(splits.get("test")).get("checksum"):
            sums.setdefault(job.seed, set()).add(str(checksum))
    if all(len(found) < 2 for found in sums.values()):
        return ""
    return f"{data}: jobs of one seed were tested on different images (checksums differ)."


def _other_headlines(done: list[RunRecord], metric: str) -> str:
    others = Counter(
        f"{job.title(job.headline)} of {job.data}"
        for job in done
        if job.value(metric) is None and job.value(job.headline) is not None
    )
    if not others:
        return ""
    return f"Jobs with another figure have no place in the columns: {_counted(others)}."


def _tuned_on_test(groups: Sequence[Group]) -> str:
    rows = Counter((group.sweep, group.data, group.method) for group in groups if group.done)
    if not rows or max(rows.values()) < 2:
        return ""
    return (
        "Rows of one method that differ in settings stand in the order of their test figures: to "
        "take the top one as the method's result is to tune on test labels."
    )


def _rules(done: list[RunRecord]) -> str:
    rules = Counter(str(job.summary.get("selection_rule")) for job in done)
    if len(rules) < 2:
        return ""
    return f"Checkpoints were selected by different rules: {_counted(rules)}."


def _fell_back(groups: Sequence[Group]) -> str:
    done = [(group.name, job) for group in groups for job in group.done]
    names = [name for name, job in done if job.summary.get("selection_fell_back")]
    if not names:
        return ""
    return (
        f"In {len(names)} of {len(done)} jobs no evaluation passed the guard against collapse: "
        f"there, 'selected' is the last step ({_some(list(dict.fromkeys(names)))})."
    )


def _backbones(groups: Sequence[Group]) -> str:
    if any(key.split(".")[0] == "backbone" for group in groups for key in group.settings):
        return ""
    for data in dict.fromkeys(group.data for group in groups):
        done = [job for group in groups if group.data == data for job in group.done]
        names = Counter(str(job.summary.get("backbone")) for job in done)
        if len(names) > 1:
            return f"{data}: jobs differ in the backbone: {_counted(names)}."
    return ""


def _environment(done: list[RunRecord]) -> str:
    """Versions and code: what may make equal commands differ."""
    parts = []
    for name in ("tlrun", "torch"):
        found = Counter(mapping(job.environment.get("versions")).get(name) for job in done)
        if len(found) > 1:
            parts.append(f"{name} {_counted(found)}")
    code = Counter(commit(job) for job in done)
    if len(code) > 1:
        parts.append(f"commit {_counted(code)}")
    text = f"Jobs ran with different code: {'; '.join(parts)}." if parts else ""
    dirty = sum(bool(_git(job).get("dirty")) for job in done)
    if dirty:
        text += f"{' ' if text else ''}{dirty} of {len(done)} jobs ran with uncommitted changes."
    return text


def commit(job: RunRecord) -> str:
    """Of the checkout that tlrun ran from; 'none' for an installed package."""
    return str(_git(job).get("sha") or "none")[:10]


def _git(job: RunRecord) -> dict[str, Any]:
    return mapping(mapping(job.environment.get("git")).get("tlrun"))


def _machines(done: list[RunRecord]) -> str:
    found = {
        json.dumps([job.environment.get("host"), job.environment.get("cpu"),
                    job.environment.get("devices")], sort_keys=True)
        for job in done
    }  # fmt: skip
    if len(found) < 2:
        return ""
    return f"Jobs ran on {len(found)} different machines: times compare these, not methods."


def _resumed(done: list[RunRecord]) -> str:
    n = sum(bool(job.summary.get("resumed_with")) for job in done)
    return f"{n} of {len(done)} jobs were resumed with changed settings." if n else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return "; ".join(names[:NAMED]) + more


def _list(seeds: Iterable[str]) -> str:
    return ", ".join(seeds)


def _counted(found: Counter[Any]) -> str:
    return ", ".join(f"{name} ({n} {_jobs(n)})" for name, n in found.most_common())


def _jobs(n: int) -> str:
    return "job" if n == 1 else "jobs"
