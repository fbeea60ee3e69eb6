"""Where the figures of a sweep come from: commands, versions, machines, and jobs never begun."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from tlrun.config.data_names import is_pair_key
from tlrun.config.own_target import is_own_target
from tlrun.errors import ConfigError
from tlrun.files.yaml_file import read_yaml
from tlrun.messages import plural
from tlrun.report.formats import command, number, plain
from tlrun.report.read.run_record import RunRecord, mapping
from tlrun.report.statistics.cautions import commit

MOST = 5000  # combinations that are counted out


def commands(folder: Path) -> list[str]:
    """What was typed to make a sweep, from its sweep.yaml; [] where there is none."""
    return [
        command("-m", *overrides, *(["--config-dir", config_dir] if config_dir else []))
        for overrides, config_dir in _typed(folder)
    ]


def never_begun(folder: Path, jobs: list[RunRecord]) -> tuple[int, list[str]]:
    """(how many jobs of the commands in sweep.yaml have no folder yet, their overrides).

    (0, []) also where that cannot be told: another sweeper draws the jobs, or names are not as
    typed. No overrides where a job died before it wrote its own: it may be any of them.
    """
    asked: set[frozenset[str]] = set()
    for overrides, _ in _typed(folder):
        combinations = _combinations(overrides)
        if combinations is None:
            return 0, []
        asked |= combinations
    have = [frozenset(_of_the_job(job.overrides)) for job in jobs]
    nameless = have.count(frozenset())
    if not set(have) - {frozenset()} <= asked:
        return 0, []
    missing = asked.difference(have)
    names = [] if nameless else sorted(" ".join(sorted(overrides)) for overrides in missing)
    return max(0, len(missing) - nameless), names


def _combinations(overrides: list[str]) -> set[frozenset[str]] | None:
    """The overrides of each job of a command; None where they are not to be counted out."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if any(override.startswith(("search=", "+search=")) for override in overrides):
        return None
    try:
        parsed = OverridesParser.create().parse_overrides(_of_the_job(overrides))
        choices = [
            [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
            if override.is_sweep_override()
            else [override.input_line or ""]
            for override in parsed
        ]
    except (HydraException, NotImplementedError):
        return None
    if prod(map(len, choices)) > MOST:
        return None
    asked = {frozenset(_of_the_job(list(chosen))) for chosen in product(*choices)}
    if any(is_pair_key(o.get_key_element()) and o.is_sweep_override() for o in parsed):
        return {job for job in asked if not is_own_target(job)}  # these are skipped
    return asked


def _of_the_job(overrides: list[str]) -> list[str]:
    """Without what belongs to Hydra and to the sweep."""
    return [o for o in overrides if not o.lstrip("+~").startswith(("hydra", "sweep."))]


def _typed(folder: Path) -> list[tuple[list[str], str]]:
    """(overrides, --config-dir or "") of each command of a sweep."""
    try:
        entries = mapping(mapping(read_yaml(folder / "sweep.yaml")).get("commands")).values()
    except ConfigError:
        return []
    return [
        ([str(o) for o in entry.get("overrides") or []], str(entry.get("config_dir") or ""))
        for entry in map(mapping, entries)
    ]


def provenance(jobs: list[RunRecord]) -> list[tuple[str, str]]:
    """(what, value) over the completed jobs; several values with their counts."""
    done = [job for job in jobs if job.state == "completed"]
    versions = [mapping(job.environment.get("versions")) for job in done]
    seconds = sum(job.summary.get("train_seconds") or 0.0 for job in done)
    rows = [
        ("Selection rule", _counts(job.summary.get("selection_rule") for job in done)),
        ("Backbone", _counts(job.summary.get("backbone") for job in done)),
        ("Images seen", _range(done, "images_seen")),
        ("Steps", _range(done, "steps")),
        ("tlrun", _counts(version.get("tlrun") for version in versions)),
        ("Commit", _counts(commit(job) for job in done)),
        ("PyTorch", _counts(version.get("torch") for version in versions)),
        ("Python", _counts(version.get("python") for version in versions)),
        ("Devices", _counts(plain(job.environment.get("devices")) for job in done)),
        ("Processor", _counts(mapping(job.environment.get("cpu")).get("model") for job in done)),
        ("Training time, all jobs", number(seconds, "seconds") if seconds else ""),
    ]
    return [(name, value) for name, value in rows if value]


def _counts(values: Iterable[Any]) -> str:
    counts = Counter(str(value) for value in values if value is not None)
    if len(counts) < 2:
        return next(iter(counts), "")
    return ", ".join(f"{value} ({plural(n, 'job')})" for value, n in counts.most_common())


def _range(done: list[RunRecord], key: str) -> str:
    values = sorted({job.summary[key] for job in done if job.summary.get(key) is not None})
    if not values:
        return ""
    low, high = (number(value, "count") for value in (values[0], values[-1]))
    return low if low == high else f"{low} to {high} a job"
