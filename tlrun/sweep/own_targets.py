"""All pairs of a list of domains: `data.source=a,b,c data.target=a,b,c` runs six of nine jobs.

A job whose source is its target is skipped where a command sweeps over either. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

from hydra.core.override_parser.types import ValueType

from tlrun.config.data_names import is_pair_key
from tlrun.config.overrides import key_of, parse_overrides
from tlrun.config.own_target import is_own_target
from tlrun.errors import ConfigError

SKIP = "TLRUN_SKIP_OWN_TARGETS"  # environment: the command sweeps over pairs


def sweeps_over_pairs(overrides: Sequence[str]) -> bool:
    """Whether a command has several values of a key that chooses a domain."""
    return any(
        is_pair_key(override.get_key_element()) and override.is_sweep_override()
        for override in parse_overrides(overrides)
    )


def skipped_jobs(overrides: Sequence[str]) -> int:
    """How many jobs of a command have their source as target; 0 where it sweeps over no pairs."""
    if not sweeps_over_pairs(overrides):
        return 0
    chosen, others = [], 1
    for override in parse_overrides(overrides):
        key = override.get_key_element()
        if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
            return 0
        values = [override.input_line or ""]
        if override.is_discrete_sweep():
            values = [f"{key}={value}" for value in override.sweep_string_iterator()]
        if is_pair_key(key) or key == "data":
            chosen.append(values)
        else:
            others *= len(values)
    if prod(map(len, chosen)) > 100_000:
        return 0
    return others * sum(is_own_target(pair) for pair in product(*chosen))


def another_pair(job: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """`job` itself, or, of one that is skipped, one of the command's other pairs in its place.

    Raises ConfigError where there is no other.
    """
    if not sweeps_over_pairs(overrides) or not is_own_target(job):
        return list(job)
    for override in parse_overrides(overrides):
        key = override.get_key_element()
        if not is_pair_key(key) or not override.is_discrete_sweep():
            continue
        rest = [word for word in job if key_of(word) != key]
        for value in override.sweep_string_iterator():
            if not is_own_target(found := [*rest, f"{key}={value}"]):
                return found
    raise ConfigError(
        "every job of this sweep would have its source as its target: give data.target another "
        "domain, see docs/sweeps.md"
    )
