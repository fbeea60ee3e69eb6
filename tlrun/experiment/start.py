"""Start an experiment: claim its folder, write its configuration, record how it ends. No torch."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tlrun.engine import interrupt
from tlrun.errors import ConfigError, DataError, Interrupted, RecordedFault, TlrunError
from tlrun.files.atomic import write_atomic
from tlrun.files.yaml_file import read_yaml
from tlrun.machine import in_slurm
from tlrun.run_folder.record import recorded
from tlrun.run_folder.run_dir import HYDRA, RunDir

EXIT_CODE = 130  # of Ctrl-C


def create_run_folder(
    cfg: DictConfig, folder: str | Path, overrides: Sequence[str], *, stood: Path | None = None
) -> RunDir:
    """Claim a run folder and write config.yaml and overrides.yaml, before all else.

    stood: as of `RunDir.create`.
    """
    run = RunDir.create(folder, stood)
    write_config(run, cfg, overrides)
    return run


def write_config(run: RunDir, cfg: DictConfig, overrides: Sequence[str]) -> None:
    write_atomic(run.config, OmegaConf.to_yaml(cfg, resolve=True))
    write_atomic(run.overrides, OmegaConf.to_yaml(OmegaConf.create(list(overrides))))


def write_hydra(run: RunDir, cfg: DictConfig, hydra_cfg: Any) -> None:
    """What Hydra's own output_subdir would hold, written only where the folder is this run's."""
    folder = run.path / HYDRA
    folder.mkdir(exist_ok=True)
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(cfg))
    write_atomic(folder / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra_cfg})))
    write_atomic(folder / "overrides.yaml", OmegaConf.to_yaml(hydra_cfg.overrides.task))


@contextmanager
def nothing_left_if_refused(run: RunDir) -> Iterator[None]:
    """A mistake of the command or the data that is seen before training leaves no new run."""
    try:
        yield
    except (ConfigError, DataError):
        if run.path.is_dir() and run.holds_no_training():
            run.discard()
        raise


def run_experiment(run: RunDir, began: float | None = None) -> dict[str, Any]:
    """Train and evaluate in a started run folder; returns the summary ({} after a dry run).

    began: time.time() when the command began, where it is for this run alone (None = now).
    """
    began = began or time.time()  # before torch is imported
    with discarded_if_dry(run), recorded(run), stop_explained(run), termination_told():
        from tlrun.experiment.lifecycle import execute  # torch comes in here

        return execute(run.path, began)


@contextmanager
def discarded_if_dry(run: RunDir) -> Iterator[None]:
    """Nothing is left of a dry run, however it ends; so its fault names no log."""
    is_dry = _is_dry_run(run)
    try:
        yield
    except RecordedFault as fault:
        if not is_dry:
            raise
        raise fault.error from None
    except TlrunError as error:
        error.recorded = error.recorded and not is_dry
        raise
    finally:
        if is_dry:
            run.discard()


@contextmanager
def stop_explained(run: RunDir) -> Iterator[None]:
    """Ctrl-C or SIGTERM, wherever it comes, leaves as Interrupted that says how to go on.

    The trainer's own sentence stays, but for a dry run, whose trainer names a folder that will be
    gone.
    """
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        code = int(getattr(stop, "exit_code", EXIT_CODE))
        if _is_dry_run(run):
            raise Interrupted("stopped; a dry run keeps nothing", code) from None
        if isinstance(stop, Interrupted):
            raise
        raise Interrupted(f"stopped; go on with: tlrun resume {run.path}", code) from None


def _is_dry_run(run: RunDir) -> bool:
    try:
        return bool(read_yaml(run.config).get("dry_run"))
    except (ConfigError, AttributeError):
        return False


class Terminated(KeyboardInterrupt):
    """SIGTERM outside of the steps of training: ends the run as Ctrl-C does."""

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
        if in_slurm():  # which may send it twice, and takes no result of a job that it ends
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            interrupt.announced(signal.SIGTERM)
        raise Terminated("SIGTERM")

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
