"""Exceptions of Hydra, OmegaConf and the file system as one sentence that names the fix."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tlrun.errors import ConfigError, RunError, TlrunError, UnknownKey, did_you_mean

SHORT_KEYS = {  # Hydra's place: how it is typed, and the choice without which no key is there
    "hydra.launcher.": ("launcher.", "launcher=joblib or launcher=submitit"),
    "hydra.sweeper.": ("search.", "search=optuna"),
}


def explain(error: BaseException, search: Sequence[Path] = ()) -> TlrunError | None:
    """The sentence for `error`, or None if it is not one that a user can mend.

    search: folders of config groups, to list the valid options of a group.
    """
    if isinstance(error, TlrunError):
        return error
    if isinstance(error, OverrideParseException):
        return _bad_override(error)
    if isinstance(error, MissingConfigException):
        return _missing_option(error, search)
    if isinstance(error, HydraException):
        cause = error.__cause__ or error.__context__
        if isinstance(cause, OmegaConfBaseException):
            return _bad_key(cause, str(error))
        return _composition(str(error))
    if isinstance(error, OmegaConfBaseException):
        return _bad_key(error, str(error))
    if _about_groups(error):
        return ConfigError(
            "a group (method, data, trainer ...) is chosen by the name of one of its options"
        )
    if isinstance(error, yaml.YAMLError):
        return ConfigError(f"a config file is not valid YAML: {_one_line(error)}")
    if isinstance(error, OSError) and error.filename is not None:
        return RunError(
            f"{error.filename}: {error.strerror}; for another place give hydra.run.dir=..."
        )
    return None


def _about_groups(error: BaseException) -> bool:
    """Whether Hydra failed while it put the chosen groups together, as of `optimizer=[1, 2]`."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = bool(frames) and Path(frames[-1].filename).name == "defaults_list.py"
    chosen = isinstance(error, ValueError) and str(error).startswith("Config group override")
    return chosen or (isinstance(error, TypeError) and inside)


def _bad_override(error: OverrideParseException) -> ConfigError:
    word = error.override
    if "=" not in word:
        return ConfigError(
            f"'{word}' is neither a command nor key=value: write for example method=dann, or see "
            "tlrun --help"
        )
    detail = error.message.splitlines()[0]
    return ConfigError(f"cannot read '{word}' ({detail}): quote special characters, 'key=\"a b\"'")


def _missing_option(error: MissingConfigException, search: Sequence[Path]) -> ConfigError:
    missing = str(error.missing_cfg_file or "")
    group, _, option = missing.partition("/")
    if not option and not group:
        return ConfigError(_one_line(error))
    valid = options(group, search) or list(error.options or [])
    return ConfigError(f"there is no {group} '{option}': {did_you_mean(option, valid)}")


def options(group: str, search: Iterable[Path]) -> list[str]:
    """The options of a config group in these folders, nested ones as `folder/name`."""
    return sorted(
        {
            str(file.relative_to(folder / group).with_suffix(""))
            for folder in search
            for file in (folder / group).rglob("*.yaml")
            if group != "search" or file.parent == folder / group  # below are its spaces
        }
    )


def _bad_key(cause: OmegaConfBaseException, message: str) -> ConfigError:
    full_key = str(cause.full_key or "")
    parent: Any = cause.parent_node
    keys = (
        [str(k) for k in parent if k not in ("hydra", "choices", "_target_")]
        if isinstance(parent, DictConfig)
        else []
    )
    for of_hydra, (short, needs) in SHORT_KEYS.items():
        name = full_key.removeprefix(of_hydra)
        if name != full_key and re.search(r" (is )?not in ", str(cause)):
            basic = isinstance(parent, DictConfig) and ".Basic" in str(parent.get("_target_"))
            hint = f"it needs {needs} beside it" if basic else did_you_mean(name, keys)
            return ConfigError(f"unknown key '{short}{name}': {hint}")
    if "is not in struct" in str(cause) and full_key:
        name = str(cause.key)
        prefix = full_key[: -len(name)] if full_key.endswith(name) else ""
        inside = _leaves(parent._get_root()) if parent is not None else []
        same = [leaf for leaf in inside if leaf.rpartition(".")[2] == name]
        hint = did_you_mean(name, keys)
        if same and not hint.startswith("did you mean"):
            hint = f"did you mean '{same[0]}'?"
        return UnknownKey(f"{prefix}{name}", hint, keys)
    if str(cause).startswith("Cannot merge DictConfig with"):
        return ConfigError(f"{full_key} is a group of keys, not a list: see tlrun --cfg job")
    where = "" if full_key in message else f"{full_key}: "
    return ConfigError(f"{where}{_one_line(cause)}")


def _leaves(node: Any, prefix: str = "") -> list[str]:
    """Dotted keys of a config, to find the key that was given without its group (`lr`)."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return [prefix] if prefix else []
    return [
        leaf
        for key in node
        if key != "hydra"
        for leaf in _leaves(node._get_node(key), f"{prefix}.{key!s}" if prefix else str(key))
    ]


def _composition(message: str) -> ConfigError:
    if match := re.search(r"Ambiguous value for argument '(.+?)'", message):
        key, _, value = match[1].partition("=")
        return ConfigError(
            f"{match[1]} has several values: add -m to run each, or write {key}=[{value}]; "
            f"a comma in the value itself is quoted: '{key}=\"{value}\"'"
        )
    if match := re.search(r"Could not override '(.+?)'", message):
        return ConfigError(
            f"'{match[1]}' is not a group that can be chosen: see tlrun --help and tlrun --cfg job"
        )
    return ConfigError(_one_line(message))


def _one_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(line for line in lines[:3] if not line.startswith("object_type"))
