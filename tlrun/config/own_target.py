"""Is the source of a job its target? By its overrides and the packaged files. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from tlrun.config.data_names import CHOOSES, is_pair_key
from tlrun.config.overrides import key_of, parse_overrides
from tlrun.config.packaged import conf_dir


def is_own_target(overrides: Iterable[str]) -> bool:
    """Whether the words of source and target share a domain, or their places are the same.

    overrides: of one job, without several values. `all_but_*` never is. Of a group `data` that is
    not of the package only what was typed is known.
    """
    typed = {key_of(word): word.partition("=")[2] for word in overrides}
    pairs = {key: value for key, value in typed.items() if is_pair_key(key)}
    if not pairs:
        return False
    data = _packaged_data(typed.get("data", ""))
    words = [_words(pairs.get(f"data.{side}"), data.get(side)) for side in ("source", "target")]
    if all(words):
        return not set(words[0]).isdisjoint(words[1])
    places = [_place(side, pairs, data.get(side)) for side in ("source", "target")]
    return places[0] == places[1] and any(places[0])


def _words(typed: str | None, default: Any) -> list[str]:
    """[] of a side that is no word."""
    value = default if typed is None else _read(typed)
    if isinstance(value, str):
        return [value]
    return [str(word) for word in value] if isinstance(value, list) else []


def _place(side: str, typed: dict[str, str], default: Any) -> list[str]:
    default = default if isinstance(default, dict) else {}
    values = [typed.get(f"data.{side}.{key}", default.get(key)) for key in CHOOSES]
    return ["" if value in (None, "null") else str(value).rstrip("/") for value in values]


@cache
def _read(value: str) -> Any:
    return parse_overrides([f"key={value}"])[0].value()


@cache
def _packaged_data(option: str) -> Any:
    """The option's own file as it stands; {} where the package has none."""
    file = conf_dir() / "data" / f"{option}.yaml"
    if not option or not file.is_file():
        return {}
    return OmegaConf.to_container(OmegaConf.load(file))
