"""Where the figures of a sweep come from: commands, versions, machines, and jobs never begun."""

from __future__ import annotations

from collections import Counter
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from tlrun.errors import ConfigError
from tlrun.files.yaml_file import read_yaml
from tlrun.report.formats import command, number, plain
from tlrun.report.read.run_record import RunRecord, mapping
from tlrun.report.statistics.cautions import commit

MOST = 5000  # combinations that are counted out


def commands(folder: Path) -> list[str]:
    """What was typed to make a sweep, from its sweep.yaml; [] where there is none."""
    return [command("-m", *_words(one), *_config_dir(one)) for one in _given(folder)]


def never_begun(folder: Path, jobs: list[RunRecord]) -> tuple[int, list[str]]:
    """(how many jobs of the commands in sweep.yaml have no folder yet, their overrides).

    (0, []) also where that cannot be told: another sweeper draws the jobs, or names are not as
    typed. No overrides where a job died before it wrote its own: it may be any of them.
    """
    asked: set[frozenset[str]] = set()
    for one in _given(folder):
        found = _combinations(_words(one))
        if found is None:
            return 0, []
        asked |= found
    have = [frozenset(_apart(job.overrides)) for job in jobs]
    unknown = have.count(frozenset())
    if not set(have) - {frozenset()} <= asked:
        return 0, []
    missing = asked.difference(have)
    names = [] if unknown else sorted(" ".join(sorted(words)) for words in missing)
    return max(0, len(missing) - unknown), names


def _combinations(words: list[str]) -> set[frozenset[str]] | None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if any(word.startswith(("search=", "+search=")) for word in words):
        return None
    words = _apart(words)
    try:
        parsed = OverridesParser.create().parse_overrides(words)
        choices = [
            [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
            if one.is_sweep_override()
            else [one.input_line or ""]
            for one in parsed
        ]
    except (HydraException, NotImplementedError):
        return None
    if prod(len(some) for some in choices) > MOST:
        return None
    return {frozenset(_apart(list(some))) for some in product(*choices)}


def _apart(words: list[str]) -> list[str]:
    """Without what belongs to Hydra and to the sweep."""
    return [word for word in words if not word.lstrip("+~").startswith(("hydra", "sweep."))]


def _given(folder: Path) -> list[dict[str, Any]]:
    try:
        found = mapping(read_yaml(folder / "sweep.yaml"))
    except ConfigError:
        return []
    return [mapping(one) for one in mapping(found.get("commands")).values()]


def _words(one: dict[str, Any]) -> list[str]:
    return [str(word) for word in one.get("overrides") or []]


def _config_dir(one: dict[str, Any]) -> list[str]:
    return ["--config-dir", str(one["config_dir"])] if one.get("config_dir") else []


def provenance(jobs: list[RunRecord]) -> list[tuple[str, str]]:
    """(what, value) over the completed jobs; several values with their counts."""
    done = [job for job in jobs if job.state == "completed"]
    rows = [
        ("Selection rule", _counts(job.summary.get("selection_rule") for job in done)),
        ("Backbone", _counts(job.summary.get("backbone") for job in done)),
        ("Images seen", _range(done, "images_seen")),
        ("Steps", _range(done, "steps")),
        ("tlrun", _counts(_version(job, "tlrun") for job in done)),
        ("Commit", _counts(commit(job) for job in done)),
        ("PyTorch", _counts(_version(job, "torch") for job in done)),
        ("Python", _counts(_version(job, "python") for job in done)),
        ("Devices", _counts(plain(job.environment.get("devices")) for job in done)),
        (
            "Processor",
            _counts(mapping(job.environment.get("cpu")).get("model") for job in done),
        ),
        ("Training time, all jobs", _total(done)),
    ]
    return [(name, value) for name, value in rows if value]


def _version(job: RunRecord, name: str) -> Any:
    return mapping(job.environment.get("versions")).get(name)


def _counts(values: Any) -> str:
    found = Counter(str(value) for value in values if value is not None)
    if len(found) < 2:
        return next(iter(found), "")
    return ", ".join(f"{value} ({n} jobs)" for value, n in found.most_common())


def _range(done: list[RunRecord], key: str) -> str:
    values = sorted({job.summary[key] for job in done if job.summary.get(key) is not None})
    if not values:
        return ""
    low, high = (number(value, "count") for value in (values[0], values[-1]))
    return low if low == high else f"{low} to {high} a job"


def _total(done: list[RunRecord]) -> str:
    seconds = [job.summary.get("train_seconds") or 0.0 for job in done]
    return number(sum(seconds), "seconds") if any(seconds) else ""
