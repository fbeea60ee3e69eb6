"""A configuration that a run's folder holds, read back with overrides on top. Imports no torch."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from tlrun.config import saved_code, trust
from tlrun.config.compose import compose, packaged_option, settle_budget, validate
from tlrun.config.domains import settle_domains
from tlrun.config.explain import explain
from tlrun.config.overrides import OPEN_KEYS, open_keys, parse_overrides
from tlrun.config.packaged import conf_dir
from tlrun.config.value_types import matches
from tlrun.errors import ConfigError, did_you_mean
from tlrun.files.yaml_file import read_yaml


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> DictConfig:
    """A saved `config.yaml` with overrides on top: values (`seed=7`) and whole groups (`data=x`).

    Raises ConfigError on an unknown key, group option or wrong value, and where the file names code
    that this command does not trust (tlrun/config/trust.py).
    """
    try:
        return _load_config(path, overrides)
    except saved_code.FormerName as error:
        raise ConfigError(f"{error}{_command_again(Path(path).parent)}") from error
    except OmegaConfBaseException as error:  # a key that is no word, `${...}` of what is not there
        raise ConfigError(f"{path}: {explain(error)}") from error


def _load_config(path: str | Path, overrides: Sequence[str]) -> DictConfig:
    cfg = saved_config(read_yaml(path), str(path))
    parsed = parse_overrides(open_keys(overrides))
    groups = [o.key_or_group for o in parsed if (conf_dir() / o.key_or_group).is_dir()]
    if groups:
        _exchange_groups(cfg, groups, overrides)
    for override in parsed:
        if override.key_or_group not in groups:
            _set_value(cfg, override)
    settle_budget(cfg, list(overrides))
    settle_domains(cfg, trained=True)
    validate(cfg)
    return cfg


def _exchange_groups(cfg: DictConfig, groups: Sequence[str], overrides: Sequence[str]) -> None:
    """Put the named groups (`data=x`, and `data.size=9` beside it) as composed now into `cfg`."""
    beginnings = tuple(f"{group}{end}" for group in groups for end in "=.")
    typed = [override for override in overrides if override.startswith(beginnings)]
    fresh = compose(typed, config_dir=trust.current().config_dir)
    with open_dict(cfg):
        for group in groups:
            cfg[group] = fresh[group]
            if group in cfg.choices:  # terms, of which there may be several, are not
                cfg.choices[group] = fresh.choices[group]


def _set_value(cfg: DictConfig, override: Override) -> None:
    """Raises ConfigError for a key that `cfg` does not have, below OPEN_KEYS excepted."""
    key = override.key_or_group
    section, _, name = key.rpartition(".")
    parent: Any = OmegaConf.select(cfg, section) if section else cfg
    is_there = isinstance(parent, DictConfig) and name in parent
    if not is_there and not key.startswith(OPEN_KEYS):
        keys = [str(k) for k in (parent if isinstance(parent, DictConfig) else cfg)]
        raise ConfigError(f"unknown key '{key}': {did_you_mean(name, keys)}")
    OmegaConf.update(cfg, key, override.value(), force_add=True)


def _command_again(folder: Path) -> str:
    """The command that began a run, as the end of a sentence; "" where it cannot be told."""
    try:
        overrides = read_yaml(folder / "overrides.yaml")
    except ConfigError:
        return ""
    return command_to_type(overrides) if matches(overrides, list[str]) else ""


def command_to_type(overrides: Sequence[str], *flags: str) -> str:
    """ ": tlrun method=dann seed=1", the end of a sentence; "" if they do more than set values.

    Whoever reads the sentence will type it, and the overrides are a file's of anybody.
    """
    sets_values = all(
        re.fullmatch(r"(?!hydra)[+\w./@]+=[^$]*", override)
        and override.isprintable()
        and "_target_" not in override
        for override in overrides
    )
    return f": {shlex.join(['tlrun', *flags, *overrides])}" if sets_values else ""


def saved_config(tree: Any, origin: str) -> DictConfig:
    """What a file of a run holds, as a configuration: the one gate that every such file passes.

    Raises ConfigError if it names code that is not trusted, or holds anything but values.
    """
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin} is no configuration: it should hold keys and values")
    saved_code.refuse_interpolations(tree, origin)
    saved_code.check(tree, origin)
    return with_new_keys(OmegaConf.create(tree))


def with_new_keys(cfg: DictConfig) -> DictConfig:
    """A saved configuration with the keys that a later version has added, at their defaults.

    Arguments of what is built have defaults of their own in their signatures.
    """
    whole = packaged_option("", "config")
    defaults: dict[str, Any] = {
        key: value for key, value in whole.items() if key not in ("defaults", "hydra")
    }
    # rows of a run compare: as it began, with all of them
    defaults["evaluate"] = {**defaults["evaluate"], "source_images": None}
    for group in ("trainer", "optimizer", "schedule", "select", "logger"):
        section: Any = cfg.get(group)
        if section is not None and not isinstance(section, DictConfig):
            raise ConfigError(f"{group}={section}: it is a group of keys, not a value")
        option = "default" if group == "trainer" else section and section.get("name")
        if section is not None and (values := packaged_option(group, str(option))):
            defaults[group] = values
    for key, default in defaults.items():
        given: Any = cfg.get(key, default)
        if isinstance(default, dict) and not isinstance(given, dict | DictConfig):
            raise ConfigError(f"{key}={given}: it is a group of keys, not a value")
    return DictConfig(OmegaConf.merge(defaults, cfg))
