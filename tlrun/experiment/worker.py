"""One of several training processes: `python -m tlrun.experiment.worker RUN_DIR RANK WORLD BEGAN`.

Why a subprocess of our own and not Hydra's: launchers that re-execute argv would run a whole
multirun in every child. Why not torchrun: a Ctrl-C must reach each process exactly once
(docs/decisions.md).
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import filelock

from tlrun.config.trust import as_environment
from tlrun.errors import Interrupted, RunError, TlrunError

# `python -m` would look for every package in the working folder first (from Python 3.11)
SAFE_PATH = {"PYTHONSAFEPATH": "1"}


def launch(run_dir: Path, world: int, began: float) -> None:
    """Start `world` workers on a run folder and wait for them. began: time.time() of the command.

    SIGINT and SIGTERM are passed on once. Raises Interrupted when the workers stopped for one of
    them, RunError with the first worker's own sentence when one failed.
    """
    from tlrun.engine.interrupt import StopRequest

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
        told = False
        while any(worker.poll() is None for worker in workers):
            if stop.exit_code and not told:
                told = True
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


def _watch_parent(parent: int) -> None:
    """End this process when its parent is gone (`kill -9`): a resume must never meet an orphan."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main(argv: list[str]) -> int:
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm's, for the process that began us
    run_dir, rank, world, began = Path(argv[0]), int(argv[1]), int(argv[2]), float(argv[3])
    try:
        # an orphan of a killed run ends itself within a second: wait for it, else two would write
        # to one folder
        with filelock.FileLock(run_dir / f".worker{rank}.lock", timeout=30):
            from tlrun.experiment.lifecycle import train_worker

            train_worker(run_dir, rank, world, began)
    except TlrunError as error:
        (run_dir / f".worker{rank}.error").write_text(str(error), encoding="utf-8")
        return error.exit_code
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # As multiprocessing ends its children: without finalising the interpreter. A thread of gloo
    # that asks for the GIL meanwhile is ended by force inside C++, and the process aborts (SIGABRT,
    # once in ten runs) after all its work was done.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
