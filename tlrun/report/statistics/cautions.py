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
    done = [job for group in groups for job in group.done]
    said = [_missing(board.jobs, never_begun), _failed_trainings(groups)]
    said += [_labels(groups), _repeated(groups)]
    for data in dict.fromkeys(group.data for group in groups):
        of_data = [group for group in board.candidates if group.data == data and group.done]
        said += [_seeds(data, of_data), _budget(data, of_data), _test_sets(data, of_data)]
    said += [
        _other_headlines(done, board.metric),
        _few_seeds(groups),
        _tuned_on_test(groups),
        _rules(done),
        _fell_back(groups),
        _backbones(groups),
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
        f"Training failed in {len(failed)} {_jobs(len(failed))} ({what}): "
        f"{_names(group.name for group in groups if group.failed_trainings)}. Marked †; the "
        "figures of these jobs say nothing about the method."
    )


def _labels(groups: Sequence[Group]) -> str:
    names = _names(group.name for group in groups if group.saw_target_labels)
    if not names:
        return ""
    return (
        f"Saw target labels in training or selection: {names}. Marked *, and never called "
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


def _seeds(data: str, groups: Sequence[Group]) -> str:
    seeds = {g.name: ", ".join(sorted({str(job.seed) for job in g.done})) for g in groups}
    if len(set(seeds.values())) < 2:
        return ""
    usual = Counter(seeds.values()).most_common(1)[0][0]
    others = _names(f"{name} has {its}" for name, its in seeds.items() if its != usual)
    return (
        f"{data}: not every group has the same seeds ({usual} for most; {others}). "
        "Compare the paired differences, which use common seeds, not the means."
    )


def _few_seeds(groups: Sequence[Group]) -> str:
    most = max((len({job.seed for job in group.done}) for group in groups), default=0)
    if most == 1:
        return "One seed each: no spread and no test, so differences may be chance."
    if most == 2:
        return "At most two seeds each: a standard deviation of two values is hardly one."
    return ""


def _budget(data: str, groups: Sequence[Group]) -> str:
    """By method, so that a swept budget alone (its own setting) says nothing here."""
    images = _by_method(groups, "images_seen")
    if len(set(images.values())) < 2:
        return ""
    steps = {value for values in _by_method(groups, "steps").values() for value in values}
    methods = sorted(images.items(), key=lambda item: max(item[1]))
    shown = methods if len(methods) <= NAMED else [*methods[:2], *methods[-2:]]
    what = ", ".join(
        f"{name} {' or '.join(number(value, 'count') for value in sorted(values))}"
        for name, values in shown
    )
    why = " The steps differ too: a gain may be one of the budget."
    if len(steps) == 1:
        why = (
            f" The steps are equal ({number(steps.pop(), 'count')}): a method that reads target "
            "images sees more in a step."
        )
    return f"{data}: methods saw different numbers of images ({what}).{why}"


def _by_method(groups: Sequence[Group], key: str) -> dict[str, frozenset[float]]:
    values: dict[str, frozenset[float]] = {}
    for group in groups:
        if of_group := group.values(key):
            values[group.method] = values.get(group.method, frozenset()).union(of_group)
    return values


def _test_sets(data: str, groups: Sequence[Group]) -> str:
    by_seed: dict[Any, set[str]] = {}
    for job in (job for group in groups for job in group.done):
        domains = mapping(mapping(job.environment.get("data")).get("domains"))
        splits = mapping(mapping(domains.get("target")).get("splits"))
        if checksum := mapping(splits.get("test")).get("checksum"):
            by_seed.setdefault(job.seed, set()).add(str(checksum))
    if all(len(checksums) < 2 for checksums in by_seed.values()):
        return ""
    return f"{data}: jobs of one seed were tested on different images (checksums differ)."


def _other_headlines(done: Sequence[RunRecord], metric: str) -> str:
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
    return f"Checkpoints were selected by different rules: {_counted(rules)}."


def _fell_back(groups: Sequence[Group]) -> str:
    done = [(group.name, job) for group in groups for job in group.done]
    names = [name for name, job in done if job.summary.get("selection_fell_back")]
    if not names:
        return ""
    return (
        f"In {len(names)} of {len(done)} jobs no evaluation passed the guard against collapse: "
        f"there, 'selected' is the last step ({_names(names)})."
    )


def _backbones(groups: Sequence[Group]) -> str:
    if any(key.split(".")[0] == "backbone" for group in groups for key in group.settings):
        return ""
    for data in dict.fromkeys(group.data for group in groups):
        done = [job for group in groups if group.data == data for job in group.done]
        backbones = Counter(str(job.summary.get("backbone")) for job in done)
        if len(backbones) > 1:
            return f"{data}: jobs differ in the backbone: {_counted(backbones)}."
    return ""


def _code(done: Sequence[RunRecord]) -> str:
    """Versions and code: what may make equal commands differ."""
    versions = [mapping(job.environment.get("versions")) for job in done]
    columns: dict[str, Counter[Any]] = {
        "tlrun": Counter(version.get("tlrun") for version in versions),
        "torch": Counter(version.get("torch") for version in versions),
        "commit": Counter(commit(job) for job in done),
    }
    parts = [f"{name} {_counted(values)}" for name, values in columns.items() if len(values) > 1]
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


def _names(names: Iterable[str]) -> str:
    """The first few, each once."""
    once = list(dict.fromkeys(names))
    more = f" and {len(once) - NAMED} more" if len(once) > NAMED else ""
    return "; ".join(once[:NAMED]) + more


def _counted(counts: Counter[Any]) -> str:
    return ", ".join(f"{name} ({n} {_jobs(n)})" for name, n in counts.most_common())


def _jobs(n: int) -> str:
    return "job" if n == 1 else "jobs"
