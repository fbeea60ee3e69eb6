"""Cautions about rows of the same data: each is said once, with the data that it holds for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlrun.report.formats import number
from tlrun.report.read.run_record import mapping
from tlrun.report.statistics.groups import Group
from tlrun.report.statistics.leaderboard import Leaderboard
from tlrun.report.statistics.wording import NAMED, counted, named

DETAILS = 2  # that are written out where the data differ in them


@dataclass(frozen=True)
class Caution:
    """Of the rows of one data set or pair. detail: what may differ from data to data."""

    claim: str
    detail: str = ""
    advice: str = ""


def data_cautions(board: Leaderboard) -> list[str]:
    """In order of weight."""
    sets: dict[str, list[Group]] = {}
    for group in board.candidates:
        if group.done:
            sets.setdefault(group.data, []).append(group)
    said: list[str] = []
    for rule in (_seeds, _budget, _test_sets, _backbones):
        found = {data: caution for data, groups in sets.items() if (caution := rule(groups))}
        said += _each_once(found, len(sets), board.head)
    return said


def _each_once(found: Mapping[str, Caution], of: int, head: Callable[[str], str]) -> list[str]:
    """found: of each data set or pair that has one, out of `of`. head: its short name."""
    alike: dict[tuple[str, str], dict[str, list[str]]] = {}
    for data, caution in found.items():
        details = alike.setdefault((caution.claim, caution.advice), {})
        details.setdefault(caution.detail, []).append(data)
    return [
        _sentence(claim, advice, details, of, head) for (claim, advice), details in alike.items()
    ]


def _sentence(
    claim: str,
    advice: str,
    details: Mapping[str, Sequence[str]],
    of: int,
    head: Callable[[str], str],
) -> str:
    concerned = [data for sets in details.values() for data in sets]
    opening = f"{_where(concerned, of, head)}: {claim}"
    if len(details) == 1:
        (detail,) = details
        sentences = [f"{opening} ({detail})." if detail else f"{opening}."]
    else:
        most_first = sorted(details.items(), key=lambda item: -len(item[1]))
        shown, rest = most_first[:DETAILS], most_first[DETAILS:]
        sentences = [f"{opening}."]
        sentences += [f"{named(map(head, sets))}: {detail}." for detail, sets in shown]
        if rest:
            sentences.append(f"Others on {sum(len(sets) for _, sets in rest)} more.")
    return " ".join([*sentences, advice]).rstrip()


def _where(concerned: Sequence[str], of: int, head: Callable[[str], str]) -> str:
    """The data by name, "3 of 12 pairs (photo → sketch; ...)", or "All 12 pairs"."""
    if len(concerned) == 1:
        return concerned[0]
    kind = "pairs" if all("→" in data for data in concerned) else "data sets"
    if len(concerned) == of:
        return f"All {of} {kind}"
    return f"{len(concerned)} of {of} {kind} ({named(map(head, concerned))})"


def _seeds(groups: Sequence[Group]) -> Caution | None:
    seeds = {g.name: ", ".join(sorted({str(job.seed) for job in g.done})) for g in groups}
    if len(set(seeds.values())) < 2:
        return None
    usual = Counter(seeds.values()).most_common(1)[0][0]
    others = named(f"{name} has {its}" for name, its in seeds.items() if its != usual)
    return Caution(
        "not every group has the same seeds",
        f"{usual} for most; {others}",
        "Compare the paired differences, which use common seeds, not the means.",
    )


def _budget(groups: Sequence[Group]) -> Caution | None:
    """By method, so that a swept budget alone (its own setting) says nothing here."""
    images = _by_method(groups, "images_seen")
    if len(set(images.values())) < 2:
        return None
    steps = {value for values in _by_method(groups, "steps").values() for value in values}
    methods = sorted(images.items(), key=lambda item: max(item[1]))
    shown = methods if len(methods) <= NAMED else [*methods[:2], *methods[-2:]]
    what = ", ".join(
        f"{name} {' or '.join(number(value, 'count') for value in sorted(values))}"
        for name, values in shown
    )
    why = "The steps differ too: a gain may be one of the budget."
    if len(steps) == 1:
        why = (
            f"The steps are equal ({number(steps.pop(), 'count')}): a method that reads target "
            "images sees more in a step."
        )
    return Caution("methods saw different numbers of images", what, why)


def _by_method(groups: Sequence[Group], key: str) -> dict[str, frozenset[float]]:
    values: dict[str, set[float]] = {}
    for group in groups:
        if of_group := group.values(key):
            values.setdefault(group.method, set()).update(of_group)
    return {method: frozenset(of_method) for method, of_method in values.items()}


def _test_sets(groups: Sequence[Group]) -> Caution | None:
    by_seed: dict[Any, set[str]] = {}
    for job in (job for group in groups for job in group.done):
        domains = mapping(mapping(job.environment.get("data")).get("domains"))
        splits = mapping(mapping(domains.get("target")).get("splits"))
        if checksum := mapping(splits.get("test")).get("checksum"):
            by_seed.setdefault(job.seed, set()).add(str(checksum))
    if all(len(checksums) < 2 for checksums in by_seed.values()):
        return None
    return Caution("jobs of one seed were tested on different images (checksums differ)")


def _backbones(groups: Sequence[Group]) -> Caution | None:
    """Not where the backbone is a setting, which the table shows."""
    if any(key.split(".")[0] == "backbone" for group in groups for key in group.settings):
        return None
    backbones = Counter(str(job.summary.get("backbone")) for group in groups for job in group.done)
    if len(backbones) < 2:
        return None
    return Caution("jobs differ in the backbone", counted(backbones))
