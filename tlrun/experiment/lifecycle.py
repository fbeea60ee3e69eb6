"""One run from its config to its report; the only module that sees all rooms.

    data -> model -> method -> fit -> evaluate -> summary -> report

`execute` does that for a run folder that holds a config.yaml; everything else here is a way to it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from tlrun.config.build import build, plain
from tlrun.config.packaged import conf_dir
from tlrun.config.saved import load_config
from tlrun.data.problems.trained import check_unchanged
from tlrun.engine.precision import resolve_device, resolve_precision
from tlrun.engine.trainer import Trainer
from tlrun.errors import ConfigError, RunError
from tlrun.evaluate.selection import resolve_min_effective_classes, without_target
from tlrun.experiment.assemble import open_session
from tlrun.experiment.checks import check_patterns
from tlrun.experiment.processes import start_workers
from tlrun.experiment.session import Session
from tlrun.experiment.summary import conclude, describe
from tlrun.experiment.wall_time import with_part
from tlrun.files.atomic import write_atomic
from tlrun.loggers.make import check_installed, log_summary
from tlrun.run_folder.locks import locked
from tlrun.run_folder.record import logging_to, recorded
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)

BASELINE = "baseline"  # where models for comparison lie inside a run folder


def execute(path: Path, began: float | None = None) -> dict[str, Any]:
    """Train, evaluate and report the run whose config.yaml lies in `path`; returns its summary.

    began: time.time() at the start of the command (None = now).

    Goes on from `checkpoints/last.pt` when there is one. Raises TlrunError and whatever else goes
    wrong; `launch.execute` around it records that in status.json.
    """
    run_dir, began = RunDir.open(path), began or time.time()
    with locked(run_dir), logging_to(run_dir), _limits_explained(run_dir):
        cfg = load_config(run_dir.config)
        if cfg.dry_run:
            from tlrun.experiment.dry_run import dry_run

            try:
                dry_run(open_session(run_dir, plain(resolve(cfg))))
            finally:
                run_dir.discard()
            return {}
        cfg = resolve(cfg)
        check_installed(str(cfg.logger.name))
        write_atomic(run_dir.config, OmegaConf.to_yaml(cfg))
        run_dir.checkpoints.mkdir(exist_ok=True)
        run_dir.set_status("running")
        session = open_session(run_dir, plain(cfg))
        session.began = began
        cfg.baseline = session.cfg["baseline"] = has_baseline(cfg.baseline, session)
        write_atomic(run_dir.config, OmegaConf.to_yaml(cfg))
        train(session)
        summary = conclude(session)
        if cfg.baseline:
            summary = compare(session, cfg, summary)
        log_summary(plain(cfg.logger), run_dir, summary)
        run_dir.set_status("completed", step=summary["steps"])
        show(run_dir)
    return summary


def complete(run_dir: RunDir) -> None:
    """Make what a complete run lacks (a kill came before it was written), and touch nothing else.

    Raises RunError if it cannot be made, since the checkpoints are gone.
    """
    with locked(run_dir), logging_to(run_dir), _limits_explained(run_dir):
        missing = run_dir.missing(page=not is_baseline(run_dir))
        if lost := [name for name in missing if name != run_dir.report.name]:
            cfg = load_config(run_dir.config)
            session = open_session(run_dir, plain(cfg))
            if run_dir.label_space.name not in lost:
                check_unchanged(session.data, run_dir.read_label_space())
            session.build_all()
            with tempfile.TemporaryDirectory(prefix=".complete_", dir=run_dir.path) as folder:
                made = RunDir(folder)
                if run_dir.metrics.is_file():
                    shutil.copy(run_dir.metrics, made.metrics)
                made.write_json(made.label_space, session.data.label_space())
                summary = conclude(session, made)
                if cfg.baseline:
                    compare(session, cfg, summary, made)
                for name in {*lost, *(made.left() if run_dir.summary.name in lost else ())}:
                    if (made.path / name).is_file() and (
                        name in lost or not (run_dir.path / name).is_file()
                    ):
                        os.replace(made.path / name, run_dir.path / name)
        if missing:
            show(run_dir)


def is_baseline(run_dir: RunDir) -> bool:
    """Whether it is only there for comparison: its figures stand on the page of its run."""
    return BASELINE in (run_dir.path.name, run_dir.path.parent.name)


def show(run_dir: RunDir) -> None:
    """Plots, page and closing table. The run is complete by now: a fault here must not lose it.

    A model that is only there for comparison is shown on the page of its run.
    """
    if is_baseline(run_dir):
        return
    from tlrun.report.pages.terminal import text_summary
    from tlrun.report.pages.write import write_report

    try:
        began = time.time()
        write_report(run_dir.path)
        summary = with_part(run_dir.read_json(run_dir.summary), "report", time.time() - began)
        run_dir.write_json(run_dir.summary, summary)
        log.info("%s", text_summary(run_dir.path))
    except OSError as error:
        log.warning(
            "the run is complete, but not its report (%s): tlrun report %s", error, run_dir.path
        )
    except Exception:
        log.exception(
            "the run is complete, but its report failed; once that is mended: tlrun report %s",
            run_dir.path,
        )


# ---- training -------------------------------------------------------------------------------


def train(session: Session) -> None:
    """Fit here, or in `trainer.devices` workers; the session then has the net's last form."""
    describe(session)
    check_patterns(session)
    world = int(session.cfg["trainer"]["devices"])
    if world == 1:
        with flush_loggers_at_exit(session.trainer()) as trainer:
            trainer.fit()
        return
    start_workers(session.run_dir.path, world, session.began)
    session.build_all()


def train_worker(path: Path, rank: int, world: int, began: float) -> None:
    """What each of several processes does (see worker.py). began: when the command did."""
    run_dir = RunDir.open(path)
    telling = logging_to(run_dir) if rank == 0 else contextlib.nullcontext()
    with telling, _limits_explained(run_dir):
        session = open_session(run_dir, plain(load_config(run_dir.config)), rank, world)
        session.began = began
        try:
            with flush_loggers_at_exit(session.trainer()) as trainer:
                trainer.fit()
        finally:
            session.process.leave()


@contextlib.contextmanager
def flush_loggers_at_exit(trainer: Trainer) -> Iterator[Trainer]:
    """However training ends, the logger writes out what it holds."""
    try:
        yield trainer
    finally:
        trainer.metrics_log.close()


# ---- the models that it is compared with -------------------------------------------------------


def has_baseline(asked: bool | str, session: Session) -> bool:
    """Whether models are trained for comparison; `auto` where the method names any.

    Raises ConfigError where they were asked for (true) and there are none.
    """
    there = bool(asked) and bool(session.method.baselines(session.data))
    if asked is True and not there:
        raise ConfigError("there is no baseline to train beside this method: baseline=false")
    return there


def compare(
    session: Session, cfg: DictConfig, summary: dict[str, Any], into: RunDir | None = None
) -> dict[str, Any]:
    """Train what the method names as its baselines; the summary with what the comparison says.

    into: another folder for what is written about them.
    """
    run_dir, into = session.run_dir, into or session.run_dir
    found = {}
    for name, changes in session.method.baselines(session.data).items():
        baseline = RunDir(run_dir.path / name)
        run_baseline(baseline, cfg, changes)
        found[name] = baseline.read_json(baseline.summary)
    summary = session.evaluator.compare(into, summary, found)
    # what they took in all sittings, by their own word
    spent = [(one.get("wall_seconds") or {}).get("total", 0.0) for one in found.values()]
    summary = with_part(summary, "baseline", sum(spent))
    summary["files"] = into.left()
    into.write_json(into.summary, summary)
    return summary


def run_baseline(baseline: RunDir, cfg: DictConfig, changes: Mapping[str, Any]) -> None:
    """Train the config with `changes`, with the same net, augmentation and steps."""
    if baseline.read_status().get("state") == "completed":
        had = load_config(baseline.config).trainer
        if (had.steps, had.epochs) == (cfg.trainer.steps, cfg.trainer.epochs):
            return  # else the run was resumed for longer: as many steps for both
    other = cfg.copy()
    OmegaConf.set_struct(other, False)
    other.baseline = False
    for key, value in changes.items():
        option = conf_dir() / key / f"{value}.yaml"
        if option.is_file():  # of a group, by name
            other.choices[key], value = value, OmegaConf.load(option)
        OmegaConf.update(other, key, value, merge=False)
    baseline.path.mkdir(parents=True, exist_ok=True)
    write_atomic(baseline.config, OmegaConf.to_yaml(other))
    log.info(
        "for comparison: training %s for as many steps in %s (baseline=false leaves it out)",
        other.choices.method,
        baseline.path,
    )
    with recorded(baseline):
        execute(baseline.path)


# ---- what `auto` means ------------------------------------------------------------------------


def resolve(cfg: DictConfig) -> DictConfig:
    """Replace `auto` by what it means here, so that the saved config says what was run."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    device = resolve_device(str(cfg.trainer.device))
    cfg.trainer.precision = resolve_precision(str(cfg.trainer.precision), device)
    if cfg.trainer.threads == "auto":
        cfg.trainer.threads = torch.get_num_threads()
    if cfg.baseline == "auto":
        # "before adaptation" costs about half as much again: only for methods that adapt, and
        # only where there is one (`has_baseline`, once the data are known)
        needs = build(cfg.method, "method").needs
        adapts = (
            "target" in needs.streams
            and cfg.target_labels in ("auto", "none")
            and needs.target_labels == "none"
        )
        cfg.baseline = "auto" if adapts else False
    cfg.select.min_effective_classes = resolve_min_effective_classes(
        cfg.select.min_effective_classes, cfg.data.get("label_spaces", "shared")
    )
    if cfg.target_images == "none":
        cfg.select.name = without_target(str(cfg.select.name))
    return cfg


@contextlib.contextmanager
def _limits_explained(run_dir: RunDir) -> Iterator[None]:
    """Too little memory, space on the disk or images in a batch, said in one sentence."""
    try:
        yield
    except Exception as error:
        if isinstance(
            error, torch.OutOfMemoryError | MemoryError
        ) or "can't allocate memory" in str(error):
            raise RunError(
                "out of memory: try a smaller trainer.batch_size, or trainer.accumulate=2 "
                "(less memory, the same gradient but for batch norm)"
            ) from error
        if "Expected more than 1 value per channel" in str(error):  # torch's batch norm
            raise ConfigError(
                "batch norm needs at least two images in each batch of a process and micro-batch: "
                "give a larger trainer.batch_size (or fewer trainer.devices, trainer.accumulate)"
            ) from error
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"cannot write to {error.filename or run_dir.path}: {error.strerror}; free some "
                f"space, then `tlrun resume {run_dir.path}`"
            ) from error
        raise
