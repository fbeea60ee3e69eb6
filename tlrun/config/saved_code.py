"""Which code a configuration from a file may name, so that a run of anybody is safe to open.

A `_target_` of a run's file is built only if the package's own configuration names it in that
place, if the command that was typed composed it, or if this command trusts its module (trust.py).
Imports no torch.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tlrun.config.build import locate
from tlrun.config.packaged import PACKAGE, is_foreign, packaged
from tlrun.config.trust import Trust, current, trusting
from tlrun.errors import ConfigError

KINDS = {  # the class of what stands in a place; a function there returns one
    "method": "tlrun.methods.base.Method",
    "terms": "tlrun.methods.base.Term",
    "balance": "tlrun.methods.balances.base.Balance",
    "backbone": "torch.nn.Module",
    "data": "builtins.object",  # no class of ours
}


class FormerName(ConfigError):
    """A file names a module of tlrun as an earlier version called it."""


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
        if trust.covers(target) and is_foreign(target):
            _check_kind(target, place, group, trust)
            continue
        if has_former_name(target, group):
            raise FormerName(
                f"{origin} was written by an earlier tlrun, whose modules had other names "
                f"({place} is {target}): train it again"
            )
        named = f"{origin}: {place or 'the top'}: _target_ is {target}"
        if not is_foreign(target) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target):
            kind = f" nothing that tlrun builds as {group}" if group else " nothing that it builds"
            raise ConfigError(f"{named},{kind}: it is not run (see docs/security.md)")
        raise ConfigError(
            f"{named}, code that is no part of tlrun, and a saved file may come from anybody: it "
            f"is not run. If it is yours, name it: --trust {target.rpartition('.')[0]}, or "
            "--config-dir with the folder whose files name it"
        )


def has_former_name(target: str, group: str) -> bool:
    """Whether a dotted path is what another version of tlrun called something of this place.

    Either that thing has another module now, or tlrun has no such module. Nothing is imported.
    """
    if is_foreign(target) or not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*){2,}", target):
        return False
    *modules, name = target.split(".")
    if name in {path.rpartition(".")[2] for path in packaged(group)}:
        return True
    folder = PACKAGE
    for module in modules[1:]:
        if (folder / f"{module}.py").is_file():
            return False  # the rest is what that module holds
        folder = folder / module
        if not folder.is_dir():
            return True
    return False


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


def _check_kind(target: str, place: str, group: str, trust: Trust) -> None:
    """Of a trusted module: what it defines itself, and a thing of the kind that stands there."""
    factory = locate(target)  # the module is named now: it may be imported
    home = str(getattr(factory, "__module__", None))
    if not replace(trust, modules=(*trust.modules, "tlrun")).covers(f"{home}."):
        raise ConfigError(
            f"{place}: {target} comes from the module {home}, which is not trusted: it is not run"
        )
    if group not in KINDS:
        raise ConfigError(f"{place}: nothing is built there, so {target} is not run")
    kind = locate(KINDS[group])
    if inspect.isclass(factory) and not issubclass(factory, kind):
        raise ConfigError(f"{place}: {target} is no {kind.__name__}: it is not run")
