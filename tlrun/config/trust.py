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
    before = current()
    named, folders = list(modules), before.folders
    for name in named:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(f"--trust {name}: give the name of a Python module, as in my_methods")
    if config_dir is not None:
        folder = Path(config_dir).absolute()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {config_dir}: there is no such folder")
        named += sorted(
            {t.rpartition(".")[0] for t in targets_named_in(folder) if is_foreign(t)} - {""}
        )
        config_dir = str(folder)
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
