"""One of several training processes: `python -m tlrun.experiment.worker RUN_DIR RANK WORLD BEGAN`.

Of several machines: the same and HOST PORT PREFIX, of the store where they meet.

Why a subprocess of our own and not Hydra's: launchers that re-execute argv would run a whole
multirun in every child. Why not torchrun: a Ctrl-C must reach each process exactly once
(docs/decisions.md).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from tlrun.engine.distributed import Endpoint, PeerFailed
from tlrun.errors import TlrunError
from tlrun.experiment.lifecycle import train_worker
from tlrun.experiment.start import termination_told
from tlrun.files.locks import file_lock


def _watch_parent(parent: int) -> None:
    """End this process when its parent is gone (`kill -9`): a resume must never meet an orphan."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _lost_connection(error: Exception) -> bool:
    """Whether gloo says that another process of the run is gone."""
    text = str(error)
    return "gloo" in text and any(
        words in text for words in ("Connection reset by peer", "Connection closed by peer")
    )


def main(argv: list[str]) -> int:
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm's, for the process that began us
    run_dir, rank, world, began = Path(argv[0]), int(argv[1]), int(argv[2]), float(argv[3])
    endpoint = Endpoint(argv[4], int(argv[5]), argv[6]) if argv[4:] else None
    try:
        # an orphan of a killed run ends itself within a second: wait for it, else two would write
        # to one folder
        with file_lock(run_dir / f".worker{rank}.lock", seconds=30), termination_told():
            train_worker(run_dir, rank, world, began, endpoint)
    except TlrunError as error:
        (run_dir / f".worker{rank}.error").write_text(str(error), encoding="utf-8")
        return error.exit_code
    except KeyboardInterrupt as stop:  # before its steps; the process that began us explains it
        return int(getattr(stop, "exit_code", 130))
    except PeerFailed:
        return 1
    except Exception as error:
        if not _lost_connection(error):
            traceback.print_exc()
        else:  # the fault, or the kill, is that of another process
            print(f"tlrun: process {rank} of {world} lost another: {error}", file=sys.stderr)
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
