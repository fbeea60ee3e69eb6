"""Which code this command trusts, so that a run folder of anybody is safe to open.

A `_target_` of a run's file is built only if the package's own configuration names it in that
place, if the command that was typed composed it, or if its module is named by `--trust MODULE` or
by a file of `--config-dir FOLDER` (docs/security.md). What is trusted holds within the command, in
the processes that it starts, and nowhere else: it is never read from a run folder. No torch here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tlrun.config.packaged import is_foreign, targets_named_in
from tlrun.errors import ConfigError

VARIABLE = "TLRUN_TRUST"  # the environment of the processes that a command starts


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
    trust = _trust.get()
    if trust is not None:
        return trust
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
    before, added = current(), [*map(_checked_module, modules)]
    folders: tuple[str, ...] = ()
    if config_dir is not None:
        config_dir = _checked_folder(config_dir)
        added += _modules_named_in(Path(config_dir))
        folders = (str(Path(config_dir).parent),)
    if (received or added) and not before.folders:
        folders = (str(Path.cwd()), *folders)
    token = _trust.set(
        Trust(
            modules=_once(*before.modules, *added),
            targets=_once(*before.targets, *targets),
            received=before.received or received,
            folders=_once(*before.folders, *folders),
            config_dir=before.config_dir if config_dir is None else str(config_dir),
        )
    )
    try:
        yield
    finally:
        _trust.reset(token)


def _checked_module(name: str) -> str:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"--trust {name}: give the name of a Python module, as in my_methods")
    return name


def _checked_folder(config_dir: str | Path) -> str:
    folder = Path(config_dir).absolute()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: there is no such folder")
    return str(folder)


def _modules_named_in(folder: Path) -> list[str]:
    """The modules of somebody else that the configuration files of a folder name."""
    targets = filter(is_foreign, targets_named_in(folder))
    return sorted({target.rpartition(".")[0] for target in targets} - {""})


def _once(*names: str) -> tuple[str, ...]:
    """In their order, each once."""
    return tuple(dict.fromkeys(names))
