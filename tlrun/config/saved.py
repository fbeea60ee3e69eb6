"""A configuration that a run's folder holds, read back with overrides on top. Imports no torch."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from tlrun.config import saved_code, trust
from tlrun.config.compose import OPEN_KEYS, compose, open_keys, settle_budget, validate
from tlrun.config.explain import explain
from tlrun.config.hints import matches
from tlrun.config.packaged import conf_dir
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
    try:
        parsed = OverridesParser.create().parse_overrides(open_keys(overrides))
    except Exception as error:
        raise explain(error) or error from error
    groups = [o for o in parsed if (conf_dir() / o.key_or_group).is_dir()]  # of one's own, too
    if groups:
        chosen = tuple(f"{o.key_or_group}{end}" for o in groups for end in "=.")
        typed = [o for o in overrides if o.startswith(chosen)]
        fresh = compose(typed, config_dir=trust.current().config_dir)
        with open_dict(cfg):
            for override in groups:
                cfg[override.key_or_group] = fresh[override.key_or_group]
                cfg.choices[override.key_or_group] = fresh.choices[override.key_or_group]
    for override in parsed:
        if override in groups:
            continue
        key = override.key_or_group
        parent = OmegaConf.select(cfg, key.rpartition(".")[0]) if "." in key else cfg
        name = key.rpartition(".")[2]
        added = key.startswith(OPEN_KEYS)
        if not added and not (isinstance(parent, DictConfig) and name in parent):
            keys = [str(k) for k in (parent if isinstance(parent, DictConfig) else cfg)]
            raise ConfigError(f"unknown key '{key}': {did_you_mean(name, keys)}")
        OmegaConf.update(cfg, key, override.value(), force_add=True)
    settle_budget(cfg, list(overrides))
    validate(cfg)
    return cfg


def _command_again(folder: Path) -> str:
    """The command that began a run, as the end of a sentence; "" if its file has not just values.

    Whoever reads the sentence will type it, and the file may come from anybody.
    """
    try:
        overrides = read_yaml(folder / "overrides.yaml")
    except ConfigError:
        return ""
    if not matches(overrides, list[str]) or not all(map(_sets_a_value, overrides)):
        return ""
    return f", as its overrides.yaml says: {shlex.join(['tlrun', *overrides])}"


def _sets_a_value(override: str) -> bool:
    return bool(
        re.fullmatch(r"(?!hydra)[+\w./@]+=[^$]*", override)
        and override.isprintable()
        and "_target_" not in override
    )


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
    defaults: Any = OmegaConf.load(conf_dir() / "config.yaml")
    for key in ("defaults", "hydra"):
        defaults.pop(key)
    for group in ("trainer", "optimizer", "schedule", "select", "logger"):
        section: Any = cfg.get(group)
        if section is not None and not isinstance(section, DictConfig):
            raise ConfigError(f"{group}={section}: it is a group of keys, not a value")
        option = "default" if group == "trainer" else section and section.get("name")
        file = conf_dir() / group / f"{option}.yaml"
        if section is not None and file.is_file():
            defaults[group] = OmegaConf.load(file)
    for key, default in defaults.items():
        given: Any = cfg.get(str(key), default)
        if isinstance(default, DictConfig) and not isinstance(given, DictConfig):
            raise ConfigError(f"{key}={given}: it is a group of keys, not a value")
    return DictConfig(OmegaConf.merge(defaults, cfg))
