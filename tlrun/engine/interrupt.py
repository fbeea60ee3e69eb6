"""SIGINT and SIGTERM ask for a stop; a second one ends the process at once.

In a job of submitit the scheduler announces its end (preemption, time limit) with a signal of its
own, SIGUSR2, and submitit's handler queues the job again. So there that signal asks for the stop,
and once the checkpoint is written `queue_again` calls submitit's handler. Where a partition knows
no grace, Slurm sends SIGTERM too (or alone), gives the job `KillWait` seconds and queues it again
itself: a stop as well, after which the process ends without a result, which submitit would take for
the job's. To Slurm's step belong all processes of a job, so a signal may reach one of them twice.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from types import FrameType, TracebackType

from tlrun.machine import in_slurm, in_slurm_step

log = logging.getLogger(__name__)

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
_announced: set[int] = set()  # signals of a scheduler that were received


def stop_signals() -> list[signal.Signals]:
    """Those that ask for a stop in this process."""
    announcement = scheduler_signal()
    if announcement is None:
        return list(EXIT_CODES)
    if in_slurm():
        return [*EXIT_CODES, announcement]
    return [signal.SIGINT, announcement]


def scheduler_signal() -> signal.Signals | None:
    """Of a job of submitit: the signal that it handles. None elsewhere."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return None
    number = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}", None)
    return number if number and callable(signal.getsignal(number)) else None


def announced(number: signal.Signals) -> None:
    """A scheduler's signal was received outside of a `StopRequest`."""
    _announced.add(number)


def queue_again() -> None:
    """After an announced stop: let submitit put the job back into the queue, which ends it here.

    Where Slurm queues it again itself (or cancels it), it refuses submitit's request, and the
    process ends without a result. Otherwise nothing happens.
    """
    announced, number = set(_announced), scheduler_signal()
    _announced.clear()
    if not announced:
        return
    try:
        if number is not None and callable(handler := signal.getsignal(number)):
            handler(number, None)
    except subprocess.CalledProcessError as error:
        log.warning("left to Slurm: %s", error)
        _end()
    if signal.SIGTERM in announced:
        _end()


def _end() -> None:
    logging.shutdown()
    os._exit(EXIT_CODES[signal.SIGTERM])


class StopRequest:
    """Context manager: while it is open, the first signal is only remembered.

    The trainer opens it for its steps: it finishes one, saves, and raises `Interrupted(exit_code)`.
    Whatever else a run does is interrupted at once (`stop_explained` in experiment/start.py).
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        code = EXIT_CODES.get(signal.Signals(number))
        if code is None or (number == signal.SIGTERM and in_slurm()):  # maybe more than once
            _announced.add(number)
            self.exit_code = self.exit_code or EXIT_CODES[signal.SIGTERM]
            return
        if self.exit_code is None:
            self.exit_code = code
        elif not (number == signal.SIGTERM and in_slurm_step()):
            os._exit(code)
