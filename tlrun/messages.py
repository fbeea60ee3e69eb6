"""What the command says on stderr: lines above any progress bar, errors as one sentence."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from tlrun.errors import Interrupted, RecordedFault, TlrunError, describe_error


def say(text: str, end: str = "\n") -> None:
    """A line on stderr, above the bars if there are any."""
    if "tqdm" in sys.modules:  # else there is no bar, and to import it takes 0.03 s
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr, end=end)
    else:
        print(text, file=sys.stderr, end=end)


def plural(count: int, noun: str) -> str:
    """A number with its noun.

    >>> plural(1, "job"), plural(1200, "class")
    ('1 job', '1,200 classes')
    """
    return f"{count:,} {noun if count == 1 else f'{noun}es' if noun.endswith('s') else f'{noun}s'}"


def report_error(error: BaseException, where: str = "") -> int:
    """One sentence on stderr, a traceback only with --debug; returns the exit code.

    where: the job of a sweep, of which several may speak at once.
    """
    more = "run with --debug for the traceback"
    if isinstance(error, RecordedFault):
        more, error = f"traceback in {error.log}", error.error
    of_job = f" [{where}]" if where else ""
    if os.environ.get("TLRUN_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, TlrunError):
        word = "interrupted" if isinstance(error, Interrupted) else "error"
        say(f"tlrun: {word}: {error}{of_job}")
        return error.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        say(f"tlrun: error: cannot use {error.filename}: {error.strerror}{of_job}")
        return 1
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = f"{Path(frame.filename).name}:{frame.lineno}"
    say(f"tlrun: error: {describe_error(error)} ({line}); {more}{of_job}")
    return 1
