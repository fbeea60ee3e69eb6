"""From a `_target_: module.Name` in a config to the object, arguments checked before anything runs.

Why not `hydra.utils.instantiate`: it hides the traceback of the user's own code, builds inner
targets unasked, and its errors do not name the fix.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf

from tlrun.config import value_types
from tlrun.config.trust import current
from tlrun.errors import ConfigError, did_you_mean


def build(cfg: Mapping[str, Any] | DictConfig, key: str = "", /, **extra: Any) -> Any:
    """Call what `_target_` names with the other keys and `extra` as arguments.

    key: where `cfg` lies in the configuration ("method"), for errors. The arguments are bound
    against the signature first. Inner `_target_`s stay plain dicts.
    Raises ConfigError (unknown or missing argument, wrong type, nothing to import); what the
    callable itself raises comes through with its traceback.
    """
    given = plain(cfg)
    if not isinstance(given, Mapping):
        raise ConfigError(f"{key}={value_types.show(given)}: it is a group of keys, not a value")
    spec: dict[str, Any] = dict(given)
    target = spec.pop("_target_", None)
    if not isinstance(target, str):
        raise ConfigError(
            f"a `_target_: module.Name` is missing beside {', '.join(spec) or 'nothing'}"
            + (f" in {key}" if key else "")
        )
    factory = locate(target)
    arguments = {**spec, **extra}
    _check_arguments(factory, target, arguments, key)
    return factory(**arguments)


def plain(cfg: Any) -> Any:
    """OmegaConf containers as dicts and lists, everything else as it is."""
    if isinstance(cfg, DictConfig | ListConfig):
        return OmegaConf.to_container(cfg, resolve=True)
    return cfg


def locate(target: str) -> Any:
    """The object at a dotted path. After the installed packages the working folder is searched.

    Not so for what is tlrun's own: a package that it lacks is never taken from the folder in which
    somebody happens to stand.
    """
    module, names = _import(target)
    attribute: Any = module
    for name in names:
        if not hasattr(attribute, name):
            owner = getattr(attribute, "__name__", attribute)
            public = [n for n in vars(attribute) if not n.startswith("_")]
            raise ConfigError(
                f"_target_ '{target}': {owner} has no '{name}': {did_you_mean(name, public)}"
            )
        attribute = getattr(attribute, name)
    if not callable(attribute):
        raise ConfigError(
            f"_target_ '{target}' is a {type(attribute).__name__}, not a class or function"
        )
    return attribute


def _import(target: str) -> tuple[ModuleType, list[str]]:
    """The module of a dotted path, as long as can be, and the names that follow it."""
    parts = target.split(".")
    folders = current().folders or (str(Path.cwd()),)
    if parts[0] != "tlrun":
        sys.path.extend(folder for folder in folders if folder not in sys.path)
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            return importlib.import_module(name), parts[length:]
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise ConfigError(
                    f"{target} needs the package '{error.name}', which is not installed: "
                    f"pip install {(error.name or '').partition('.')[0]}"
                ) from error
    raise ConfigError(
        f"_target_ '{target}': cannot import '{parts[0]}'; it must be installed or lie in the "
        f"working folder {' or in '.join(folders)}, and the form is module.Name"
    )


def _check_arguments(factory: Any, target: str, arguments: Mapping[str, Any], key: str) -> None:
    def full_key(name: str) -> str:
        return f"{key}.{name}" if key else name

    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # some builtins have none
        return
    named = {n: p for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in arguments:
            if name not in named:
                raise ConfigError(
                    f"unknown key '{full_key(name)}', which is no argument of {target}: "
                    f"{did_you_mean(name, named)}"
                )
    missing = [n for n, p in named.items() if p.default is p.empty and n not in arguments]
    if missing:
        raise ConfigError(
            f"{target} needs the argument '{full_key(missing[0])}', which has no value"
        )
    check_values(factory, arguments, key)


def check_values(factory: Any, arguments: Mapping[str, Any], key: str) -> None:
    """Raise ConfigError for the first argument whose value does not fit its type and range.

    key: where the arguments lie in the configuration ("method"), for the sentence.
    """
    kinds = argument_hints(factory)
    for name, value in arguments.items():
        kind = kinds.get(name)
        if kind is not None and not value_types.matches(value, kind):
            name_typed = f"{key}.{name}" if key else name
            target = f"{factory.__module__}.{factory.__qualname__}"
            raise ConfigError(
                f"{value_types.refusal(name_typed, value, kind)} (an argument of {target})"
            )


def check_targets(node: Any, key: str = "") -> None:
    """`check_values` for every `_target_` inside a group, before anything is built.

    Raises ConfigError. What can only be said by the code itself (a package that is missing, a
    fault on import) is left to `build`.
    """
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str):
            try:
                factory = locate(target)
            except Exception:
                return
            check_values(factory, {k: v for k, v in node.items() if k != "_target_"}, key)
        for name, inner in node.items():
            check_targets(inner, f"{key}.{name}" if key else str(name))


def argument_hints(factory: Any) -> dict[str, Any]:
    """The type hints of a callable's arguments, with their ranges; {} where they cannot be told.

    The fields of a dataclass are read in the module of the class that declares them: those of the
    subclass need not know the names.
    """
    owner = factory
    if inspect.isclass(factory):
        maker = next(c for c in factory.__mro__ if "__init__" in vars(c))
        owner = maker if "__dataclass_params__" in vars(maker) else vars(maker)["__init__"]
    try:
        return get_type_hints(owner, include_extras=True)
    except Exception:  # names that exist for the type checker only
        return {}
