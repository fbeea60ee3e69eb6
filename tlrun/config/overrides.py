"""Overrides as they are typed, `key=value`: short keys, the parser, the list that Hydra has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from tlrun.config.explain import explain

OPEN_KEYS = ("phases.", "data.augment.", "data.tasks.", "balance.weights.")
SHORT_KEYS = {  # the first that fits
    "launcher.jobs_per_gpu=": "sweep.jobs_per_gpu=",  # Hydra's launcher would not know it
    "launcher.": "hydra.launcher.",
    "search.": "hydra.sweeper.",
    "search/space=": "search/space@space=",  # as Hydra calls it, below a `_global_` file
}


def parse_overrides(overrides: Iterable[str]) -> list[Override]:
    """By Hydra's parser. Raises ConfigError, one sentence."""
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except Exception as error:
        raise explain(error) or error from error


def open_keys(overrides: Iterable[str]) -> list[str]:
    """Let Hydra add the keys below OPEN_KEYS (phases, augmentations, tasks, weights).

    No file has them. One by one (`balance.weights.box=2`) or as a mapping
    (`'balance.weights={box: 2}'`). And `launcher.*`, `search.*` are Hydra's keys by the names of
    their groups.
    """
    beginnings = (*OPEN_KEYS, *(f"{key.rstrip('.')}=" for key in OPEN_KEYS))
    for short, long in SHORT_KEYS.items():
        overrides = [long + o.removeprefix(short) if o.startswith(short) else o for o in overrides]
    return [f"++{o}" if o.startswith(beginnings) else o for o in overrides]


def override_list(overrides: Any) -> list[str]:
    """Hydra's list of overrides as typed; to iterate over it would resolve `a=${b}` in it."""
    as_typed: Any = OmegaConf.to_container(overrides, resolve=False)
    return list(as_typed)


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
