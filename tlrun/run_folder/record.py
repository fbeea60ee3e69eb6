"""What a run says and how it ends is written down: run.log and status.json."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tlrun.errors import Interrupted, RecordedFault, TlrunError, describe_error
from tlrun.machine import is_alive
from tlrun.run_folder.run_dir import RunDir


@contextmanager
def recorded(run: RunDir) -> Iterator[None]:
    """Whatever ends the work inside: status.json says so, run.log has a fault's traceback.

    An error of tlrun's own leaves it as it came, with `recorded` set; any other exception leaves it
    as a RecordedFault.
    """
    try:
        yield
    except BaseException as error:
        if not run.path.is_dir() or _is_another_process_running(run):
            raise
        stopped = isinstance(error, Interrupted | KeyboardInterrupt | SystemExit)
        with suppress(OSError):  # a full disk must not hide why
            state = "interrupted" if stopped else "failed"
            run.set_status(state, error=describe_error(error))
            if isinstance(error, TlrunError):
                error.recorded = True
            elif isinstance(error, Exception) and not isinstance(error, RecordedFault):
                with run.log.open("a", encoding="utf-8") as log:
                    traceback.print_exception(error, file=log)
                raise RecordedFault(error, run.log) from error
        raise


def _is_another_process_running(run: RunDir) -> bool:
    """Whether a living process of this machine, not this one, is running here."""
    status = run.read_status()
    pid = status.get("pid")
    return status.get("state") == "running" and pid != os.getpid() and is_alive(pid)


@contextmanager
def logging_to(run: RunDir) -> Iterator[None]:
    """The `tlrun` loggers write to run.log (with the time) and to stderr (the message alone).

    Nested use for the same folder adds nothing.
    """
    logger = logging.getLogger("tlrun")
    level = logger.level
    file_name = str(run.log.absolute())
    added: list[logging.Handler] = []
    if file_name not in {getattr(handler, "baseFilename", None) for handler in logger.handlers}:
        to_file = LogFile(file_name, encoding="utf-8")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        added.append(to_file)
    if not any(type(handler) is logging.StreamHandler for handler in logger.handlers):
        to_screen = logging.StreamHandler()
        to_screen.setFormatter(logging.Formatter("%(message)s"))
        added.append(to_screen)
    for handler in added:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in added:
            logger.removeHandler(handler)
            handler.close()


class LogFile(logging.FileHandler):
    """A line that cannot be written (a full disk) is left out, without logging's traceback."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass
