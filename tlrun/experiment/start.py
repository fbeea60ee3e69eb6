"""Start an experiment: claim its folder, write its configuration, record how it ends. No torch."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tlrun.files.atomic import write_atomic
from tlrun.machine import in_slurm
from tlrun.run_folder.record import recorded
from tlrun.run_folder.run_dir import RunDir


def create_run_folder(cfg: DictConfig, folder: str | Path, overrides: Sequence[str]) -> RunDir:
    """Claim a run folder and write config.yaml and overrides.yaml, before all else."""
    run = RunDir.create(folder)
    made_by_hydra = Path(folder) / ".hydra"
    if run.path != Path(folder) and made_by_hydra.is_dir():
        shutil.copytree(made_by_hydra, run.path / ".hydra", dirs_exist_ok=True)
    write_config(run, cfg, overrides)
    return run


def write_config(run: RunDir, cfg: DictConfig, overrides: Sequence[str]) -> None:
    write_atomic(run.config, OmegaConf.to_yaml(cfg, resolve=True))
    write_atomic(run.overrides, OmegaConf.to_yaml(OmegaConf.create(list(overrides))))


def run_experiment(run: RunDir, began: float | None = None) -> dict[str, Any]:
    """Train and evaluate in a started run folder; returns the summary ({} after a dry run).

    began: time.time() when the command began, where it is for this run alone (None = now).
    """
    began = began or time.time()  # before torch is imported
    with recorded(run), termination_told():
        from tlrun.experiment.lifecycle import execute  # torch comes in here

        return execute(run.path, began)


class Terminated(KeyboardInterrupt):
    """SIGTERM while nothing is trained: ends the run as Ctrl-C does, and it is written down."""

    exit_code = 143


@contextmanager
def termination_told() -> Iterator[None]:
    """SIGTERM raises Terminated where it would end the process without a word.

    The trainer has a handler of its own (engine/interrupt.py). submitit's passes it over, and then
    Slurm, which queues the job again, would end it without a word.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    if not main_thread or (before is not signal.SIG_DFL and not in_slurm()):
        yield
        return

    def handle(*_: object) -> None:
        raise Terminated("SIGTERM")

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
