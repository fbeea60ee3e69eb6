"""Which code a configuration from a file may name, so that a run of anybody is safe to open.

A `_target_` of a run's file is built only if the package's own configuration names it in that
place, if the command that was typed composed it, or if its module is named by `--trust MODULE` or
by a file of `--config-dir FOLDER` (docs/security.md). What is trusted holds within the command, in
the processes that it starts, and nowhere else: it is never read from a run folder. No torch here.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tlrun.errors import ConfigError

VARIABLE = "TLRUN_TRUST"  # the environment of the processes that a command starts
TARGET = re.compile(r"_target_['\"]?\s*:\s*['\"]?([A-Za-z_][\w.]*)")
GROUPS = ("method", "backbone", "terms", "balance")  # the folders of conf/ with one kind each


@dataclass(frozen=True)
class Trust:
    """modules: named by this command. targets: in the configuration that this command composed.

    received: the command itself was read from a file, so what it composes is checked, too.
    folders: where modules that are not installed lie; () = the working folder. config_dir: typed.
    """

    modules: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    received: bool = False
    folders: tuple[str, ...] = ()
    config_dir: str | None = None

    def covers(self, target: str) -> bool:
        """Whether the module of a dotted path is one of those that the command names."""
        return any(target.startswith(f"{module}.") for module in self.modules)


_trust: ContextVar[Trust | None] = ContextVar("trust", default=None)


def current() -> Trust:
    """What is trusted here: said in this process, else by the process that started it."""
    found = _trust.get()
    if found is not None:
        return found
    try:
        given: dict[str, Any] = json.loads(os.environ[VARIABLE])
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
        }
        return Trust(**fields)
    except (KeyError, ValueError, TypeError, AttributeError):
        return Trust()


def as_environment() -> dict[str, str]:
    """For a process that goes on with the present command."""
    return {VARIABLE: json.dumps(asdict(current()))}


@contextmanager
def trusting(
    modules: Iterable[str] = (),
    *,
    targets: Iterable[str] = (),
    config_dir: str | Path | None = None,
    received: bool = False,
) -> Iterator[None]:
    """Within it, configurations of files may also name these modules and targets.

    config_dir: a folder of configuration whose files name modules; those may lie beside it.
    Raises ConfigError for a word that is no module, or a folder that is not there.
    """
    before = current()
    named, folders = list(modules), before.folders
    for name in named:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(f"--trust {name}: give the name of a Python module, as in my_methods")
    if config_dir is not None:
        place = Path(config_dir).absolute()
        if not place.is_dir():
            raise ConfigError(f"--config-dir {config_dir}: there is no such folder")
        named += sorted({t.rpartition(".")[0] for t in _named_in(place) if _is_foreign(t)} - {""})
        config_dir = str(place)
    if received or named:
        folders = folders or (str(Path.cwd()),)
    if config_dir is not None:
        folders = (*folders, str(Path(config_dir).parent))
    token = _trust.set(
        Trust(
            tuple(dict.fromkeys((*before.modules, *named))),
            tuple(dict.fromkeys((*before.targets, *targets))),
            before.received or received,
            tuple(dict.fromkeys(folders)),
            str(config_dir) if config_dir is not None else before.config_dir,
        )
    )
    try:
        yield
    finally:
        _trust.reset(token)


@contextmanager
def composed(tree: Mapping[str, Any], config_dir: str | None = None) -> Iterator[None]:
    """Around the work on a configuration that this command composed: it may name what it names.

    Where the command was read from a file, its configuration is checked as a file's.
    """
    if current().received:
        check(tree, "the sweep's command")
        yield
        return
    with trusting(targets=[target for _, target in targets_in(tree)], config_dir=config_dir):
        yield


def targets_in(node: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """(where, dotted path) of every `_target_` in a configuration, at any depth."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield place, str(node["_target_"])
        for key, value in node.items():
            yield from targets_in(value, f"{place}.{key}" if place else str(key))
    elif isinstance(node, Sequence) and not isinstance(node, str | bytes):
        for number, value in enumerate(node):
            yield from targets_in(value, f"{place}.{number}" if place else str(number))


def check(tree: Mapping[str, Any], origin: str) -> None:
    """Raise ConfigError for a `_target_` that a file must not name. origin: which file it is."""
    trust = current()
    for place, target in targets_in(tree):
        group = place.partition(".")[0]
        if target in packaged(group) or target in trust.targets:
            continue
        if trust.covers(target) and _is_foreign(target):
            _check_kind(target, place, group, trust)
            continue
        told = f"{origin}: {place or 'the top'}: _target_ is {target}"
        if not _is_foreign(target) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target):
            kind = f" nothing that tlrun builds as {group}" if group else " nothing that it builds"
            raise ConfigError(f"{told},{kind}: it is not run (see docs/security.md)")
        raise ConfigError(
            f"{told}, code that is no part of tlrun, and a saved file may come from anybody: it is "
            f"not run. If it is yours, name it: --trust {target.rpartition('.')[0]}, or "
            "--config-dir with the folder whose files name it"
        )


def refuse_interpolations(node: Any, origin: str) -> None:
    """Raise ConfigError for a `${...}`: saved configurations hold values.

    Read back it could show environment variables, or grow beyond all bounds.
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            refuse_interpolations(key, origin)
            refuse_interpolations(value, origin)
    elif isinstance(node, list):
        for value in node:
            refuse_interpolations(value, origin)
    elif isinstance(node, str) and "${" in node:
        raise ConfigError(
            f"{origin} holds '{node[:60]}', and a saved configuration holds values only; of a job "
            "whose configuration was wrong, give the sweep's command again"
        )


@cache
def packaged(group: str) -> frozenset[str]:
    """What the package's own configuration builds in a place: method, backbone, data, ..."""
    from tlrun.config.compose import conf_dir  # it imports this module

    if group == "data":  # sets stand in experiments and recipes, too
        return frozenset(t for t in _named_in(conf_dir()) if t.startswith("tlrun.data."))
    if group not in GROUPS:
        return frozenset()
    return frozenset(_named_in(conf_dir() / group))


def _named_in(folder: Path) -> set[str]:
    """Every `_target_` in the YAML files of a folder."""
    found: set[str] = set()
    for file in folder.rglob("*.yaml"):
        found.update(TARGET.findall(file.read_text(encoding="utf-8", errors="replace")))
    return found


def _is_foreign(target: str) -> bool:
    return target.partition(".")[0] != "tlrun"


def _check_kind(target: str, place: str, group: str, trust: Trust) -> None:
    """Of a trusted module: what it defines itself, and a thing of the kind that stands there."""
    from tlrun.config.build import locate  # the module is named now: it may be imported

    found = locate(target)
    home = str(getattr(found, "__module__", None))
    if not replace(trust, modules=(*trust.modules, "tlrun")).covers(f"{home}."):
        raise ConfigError(
            f"{place}: {target} comes from the module {home}, which is not trusted: it is not run"
        )
    wanted = _kind_of(group)
    if wanted is None:
        raise ConfigError(f"{place}: nothing is built there, so {target} is not run")
    if inspect.isclass(found) and not issubclass(found, wanted):
        raise ConfigError(f"{place}: {target} is no {wanted.__name__}: it is not run")


def _kind_of(group: str) -> type | None:
    """The class that stands in a place (a function there returns one); object: no class of ours."""
    if group == "method":
        from tlrun.methods.base import Method

        return Method
    if group == "terms":
        from tlrun.methods.base import Term

        return Term
    if group == "balance":
        from tlrun.methods.balances.base import Balance

        return Balance
    if group == "backbone":
        from torch.nn import Module

        return Module
    return object if group == "data" else None
