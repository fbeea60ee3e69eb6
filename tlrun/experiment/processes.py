"""Start several training processes on one run folder, by name, and wait for them (worker.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tlrun.config.trust import as_environment
from tlrun.engine.interrupt import StopRequest
from tlrun.errors import Interrupted, RunError

# `python -m` would look for every package in the working folder first (from Python 3.11)
SAFE_PATH = {"PYTHONSAFEPATH": "1"}


def start_workers(run_dir: Path, world: int, began: float) -> None:
    """Start `world` workers on a run folder and wait for them. began: time.time() of the command.

    SIGINT and SIGTERM are passed on once. Raises Interrupted when the workers stopped for one of
    them, RunError with the first worker's own sentence when one failed.
    """
    rendezvous = run_dir / ".rendezvous"
    rendezvous.unlink(missing_ok=True)
    errors = [run_dir / f".worker{rank}.error" for rank in range(world)]
    for file in errors:
        file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tlrun.experiment.worker", str(run_dir)]
    with StopRequest() as stop:
        workers = [
            subprocess.Popen(
                [*command, str(rank), str(world), repr(began)],
                env=os.environ | as_environment() | SAFE_PATH,
                start_new_session=True,  # the terminal's Ctrl-C goes to us alone
            )
            for rank in range(world)
        ]
        signalled = False
        while any(worker.poll() is None for worker in workers):
            if stop.exit_code and not signalled:
                signalled = True
                for worker in workers:
                    worker.send_signal(signal.SIGTERM if stop.exit_code == 143 else signal.SIGINT)
            if any(worker.poll() not in (None, 0) for worker in workers):
                _end(workers)
            time.sleep(0.1)
    codes = [worker.returncode for worker in workers]
    rendezvous.unlink(missing_ok=True)
    messages = [file.read_text(encoding="utf-8") for file in errors if file.exists()]
    for file in errors:
        file.unlink(missing_ok=True)
    for code in (130, 143):
        if code in codes:
            raise Interrupted(
                messages[0] if messages else f"stopped; go on with: tlrun resume {run_dir}", code
            )
    if any(codes):
        reason = messages[0] if messages else f"exit codes {codes}; see {run_dir / 'run.log'}"
        raise RunError(f"a training process failed: {reason}")


def _end(workers: list[subprocess.Popen[bytes]], patience: float = 20.0) -> None:
    """Give the others time to stop by themselves (they may be saving), then end them."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and any(w.poll() is None for w in workers):
        time.sleep(0.1)
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
            worker.wait()
