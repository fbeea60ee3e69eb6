"""Overrides as they are typed, `key=value`: short keys, the parser, the list that Hydra has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
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


def keys_of_swept_groups(overrides: list[str]) -> list[str]:
    """In a sweep over `method=maml,fomaml`, `method.inner_lr=0.1` becomes a sweep of one value.

    Hydra composes a sweep once without its sweeping words: a key of `maml` would be unknown there,
    where the default method stands. So it must wait for the jobs, as what is swept does.
    """
    parsed = parse_overrides(overrides)
    swept = tuple(f"{o.key_or_group}." for o in parsed if o.is_sweep_override())

    def waits(override: Override) -> bool:
        plain = override.type == OverrideType.CHANGE and not override.is_sweep_override()
        return plain and override.key_or_group.startswith(swept)

    together = zip(overrides, parsed, strict=True)
    return [_of_one_value(text) if waits(o) else text for text, o in together]


def _of_one_value(override: str) -> str:
    """`choice` takes neither null nor nothing and drops quotes ('1' would be a number): those are
    added to whatever stands there."""
    key, _, value = override.partition("=")
    if value.strip() in ("", "null") or value.strip().startswith(("'", '"')):
        return f"++{override}"
    return f"{key}=choice({value})"


def override_list(overrides: Any) -> list[str]:
    """Hydra's list of overrides as typed; to iterate over it would resolve `a=${b}` in it."""
    as_typed: Any = OmegaConf.to_container(overrides, resolve=False)
    return list(as_typed)


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
