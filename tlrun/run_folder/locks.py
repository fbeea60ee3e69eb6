"""One process at a time works in the folder of a run or a sweep."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tlrun.errors import RunError
from tlrun.files.atomic import remove_half_written
from tlrun.files.locks import LockTaken, file_lock

LOCK = ".lock"  # the name of the lock file
_held: set[Path] = set()  # the folders that this process has locked, as the kernel knows them


class Busy(RunError):
    """Another process holds the folder."""


@contextmanager
def locked(folder: str | os.PathLike[str], *, wait: bool = False) -> Iterator[None]:
    """Keep other processes out of a folder; the kernel ends it when this one dies.

    Used again inside itself it does nothing. Raises Busy, or waits if asked to.
    """
    resolved = Path(folder).resolve()
    if resolved in _held:
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(resolved / LOCK, seconds=None if wait else 0))
        except LockTaken as error:
            raise Busy(
                f"another process is working on {os.fspath(folder)}; wait for it or stop it"
            ) from error
        _held.add(resolved)
        stack.callback(_held.discard, resolved)
        remove_half_written(resolved)
        yield


def held_by_another(folder: str | os.PathLike[str]) -> bool:
    """Whether another process is working on a folder now."""
    try:
        with locked(folder):
            return False
    except Busy:
        return True
