"""What a command knows of its jobs while they run, made by the command and found by all below it.

Hydra stands between the command and its jobs and passes nothing on, so the state lies in a
ContextVar. It is there in the process that was given the command, and in no process of a launcher:
`current_sweep()` is None there, and nobody but the launcher hears of a job's end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlrun.sweep.command import SweepCommand
    from tlrun.sweep.progress import SweepProgress


@dataclass
class SweepState:
    """began: time.time() when the command did (None: nobody knows). A single run has no folder.

    dry_run: there will be nothing to go on with.
    """

    began: float | None = None
    folder: Path | None = None  # of the sweep
    stood: Path | None = None  # `standing(folder)` of before the command
    dry_run: bool = False
    command: SweepCommand | None = None  # as sweep.yaml has it, or will have it
    progress: SweepProgress | None = None
    failures: list[Exception] = field(default_factory=list)  # of the jobs that ran in this process
    problem: Exception | None = None  # why no job began


_state: ContextVar[SweepState | None] = ContextVar("sweep", default=None)


def current_sweep() -> SweepState | None:
    """The state of the command that this process was given; None in a launcher's process."""
    return _state.get()


@contextmanager
def sweep_state(began: float | None = None) -> Iterator[SweepState]:
    """Within it, `current_sweep()` is the new state that it gives."""
    state = SweepState(began)
    token = _state.set(state)
    try:
        yield state
    finally:
        _state.reset(token)
