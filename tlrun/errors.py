"""Errors that a user can act on: one sentence, an exit code, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class TlrunError(Exception):
    """A mistake or failure explained in one sentence that names the fix.

    exit_code: what the process ends with: 1 the run failed, 2 the command was wrong. recorded: the
    status.json of its run says it.
    """

    exit_code = 1
    recorded = False


class ConfigError(TlrunError):
    """The command or its config is wrong (unknown key, wrong type, impossible combination)."""

    exit_code = 2


class UnknownKey(ConfigError):
    """Nothing of the configuration has this key. key: dotted, with its group. valid: those beside
    which it was looked for."""

    def __init__(self, key: str, hint: str, valid: Sequence[str] = ()) -> None:
        super().__init__(key, hint, valid)  # all, so that a launcher can pickle it
        self.key, self.hint, self.valid = key, hint, valid

    def __str__(self) -> str:
        return f"unknown key '{self.key}': {self.hint}"


class DataError(TlrunError):
    """The data are missing, unreadable or do not fit together."""

    exit_code = 2


class RunError(TlrunError):
    """The run itself failed (NaN loss, out of memory, a worker died)."""

    exit_code = 1


class Interrupted(TlrunError):
    """The run was asked to stop (SIGINT 130, SIGTERM 143) and saved its state first."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message, exit_code)  # both, so that a launcher can pickle it
        self.message, self.exit_code = message, exit_code

    def __str__(self) -> str:
        return self.message


class RecordedFault(Exception):
    """A fault of the code, after the log of its run has the traceback. error: the fault itself.

    It comes from `tlrun.run_folder.record.recorded`, and what reports errors takes it apart again.
    """

    def __init__(self, error: Exception, log: Path) -> None:
        super().__init__(error, log)
        self.error, self.log = error, log

    def __str__(self) -> str:
        return describe_error(self.error)


def describe_error(error: BaseException) -> str:
    """An error of our own by its sentence, any other also by its kind."""
    if isinstance(error, TlrunError | RecordedFault):
        return str(error)
    return f"{type(error).__name__}: {error}"


def did_you_mean(word: str, choices: Iterable[str], *, limit: int = 20) -> str:
    """A clause for an error: the nearest choice and the valid ones.

    >>> did_you_mean("dan", ["dann", "source_only"])
    "did you mean 'dann'? Valid: dann, source_only"
    """
    names = sorted({str(choice) for choice in choices})
    near = difflib.get_close_matches(str(word), names, n=1, cutoff=0.6)
    listed = ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
    return (f"did you mean '{near[0]}'? " if near else "") + f"Valid: {listed or '(none)'}"
