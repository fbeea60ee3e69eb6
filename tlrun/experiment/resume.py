"""`tlrun resume`: go on exactly where a run stopped, if its config still is what it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tlrun.config.build import plain
from tlrun.config.hashes import PATH_KEYS
from tlrun.config.saved import load_config, saved_config
from tlrun.config.saved_code import composed
from tlrun.config.world_size import world_size
from tlrun.engine import checkpoint
from tlrun.errors import ConfigError, Interrupted, RunError, describe_error
from tlrun.experiment import start
from tlrun.experiment.baselines import is_baseline
from tlrun.experiment.missing_files import make_missing_files
from tlrun.files.atomic import write_atomic
from tlrun.messages import plural
from tlrun.run_folder.locks import locked
from tlrun.run_folder.run_dir import RunDir, runs_in

log = logging.getLogger(__name__)

PROCESSES = ("trainer.nodes", "trainer.devices")  # may change where their product stays
LONGER = ("trainer.steps", "trainer.epochs")  # may grow
FREE = (
    "logger",
    "report",
    "tags",
    "baseline",
    "choices",
    "sweep",
    "trainer.log_every",
    "trainer.workers",
)  # may change


def resume(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Go on with an interrupted run (or a sweep's unfinished jobs) exactly where it stopped."""
    path = Path(path)
    if (path / "config.yaml").exists():
        return resume_run(RunDir.open(path), overrides)
    if jobs := runs_in(path) if path.is_dir() else []:
        return resume_jobs(jobs, overrides)
    raise ConfigError(f"{path} holds no run to resume; give a run folder, or a sweep folder")


def resume_run(run_dir: RunDir, overrides: Sequence[str]) -> dict[str, Any]:
    """Train what is left; of a complete run, without overrides, only missing files are made."""
    cfg = load_config(run_dir.config, list(overrides))
    if cfg.dry_run:  # which would remove the folder
        raise ConfigError("resume goes on with the training itself: dry_run=false")
    saved = checkpoint.load_last(run_dir.checkpoints) if run_dir.checkpoints.is_dir() else None
    completed = run_dir.read_status().get("state") == "completed"
    if completed and not overrides and (saved is not None or run_dir.summary.is_file()):
        return _complete(run_dir)
    changes = list(overrides)
    if saved is not None:
        began = plain(saved_config(saved["config"], f"{run_dir.checkpoints}"))
        refuse_changes(began, plain(cfg))
        changed = dict(differences(began, plain(cfg)))
        changes = changes or [f"{key}={changed[key][1]}" for key in LONGER if key in changed]
    if changes:
        with locked(run_dir):  # not under the hands of a process that works on it
            run_dir.set_status("interrupted", resumed_with=changes)
            write_atomic(run_dir.config, OmegaConf.to_yaml(cfg))
    with composed(plain(cfg)):  # what the overrides name was typed now
        return start.run_experiment(run_dir)


def _complete(run_dir: RunDir) -> dict[str, Any]:
    """Make what a complete run lacks; returns its summary."""
    if missing := run_dir.missing(page=not is_baseline(run_dir)):
        log.warning("%s is complete but for %s", run_dir.path, ", ".join(missing))
        make_missing_files(run_dir)
    else:
        log.warning("%s is complete; nothing to resume", run_dir.path)
    return run_dir.read_summary()


def resume_jobs(jobs: list[Path], overrides: Sequence[str]) -> dict[str, Any]:
    """Go on with every job of a sweep; one that fails does not stop the others.

    Raises RunError at the end if any failed.
    """
    done, failed = {}, []
    for job in jobs:
        try:
            done[job.name] = resume(job, overrides)
        except Interrupted:
            raise
        except Exception as error:
            failed.append(job.name)
            log.error("%s: %s", job.name, describe_error(error))
    if failed:
        raise RunError(f"{len(failed)} of {plural(len(jobs), 'job')} failed: {', '.join(failed)}")
    return done


def refuse_changes(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ConfigError with a diff when a config changed in a way that would alter the run.

    Where the data lie and the cadence of logs may change, and training may become longer: λ and lr
    follow the new total. As many processes may be spread over other machines.
    """
    free = FREE if world_size(before) != world_size(now) else (*FREE, *PROCESSES)
    changed = {
        key: values
        for key, values in differences(before, now)
        if not (
            key in free
            or key.partition(".")[0] in free
            or key.rpartition(".")[2] in PATH_KEYS
            or (key in LONGER and _grows(*values))
        )
    }
    if changed:
        listed = "; ".join(f"{key}: {a} -> {b}" for key, (a, b) in sorted(changed.items()))
        raise ConfigError(
            f"the config differs from the one this run began with ({listed}); "
            "start a new run for that"
        )


def differences(a: Any, b: Any, prefix: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(dotted key, (value in a, value in b)) wherever two nested configs differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {**a, **b}:
            yield from differences(
                a.get(key), b.get(key), f"{prefix}.{key}" if prefix else str(key)
            )
    elif a != b:
        yield prefix, (a, b)


def _grows(a: Any, b: Any) -> bool:
    return a is not None and b is not None and b >= a
