"""One experiment, top to bottom: config -> session -> training -> conclusion -> report.

`execute` does that for a run folder that holds a config.yaml; `start.py` makes such folders.
"""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tlrun.config.build import plain
from tlrun.config.saved import load_config
from tlrun.config.world_size import world_size
from tlrun.engine.distributed import Endpoint
from tlrun.experiment.assemble import open_session
from tlrun.experiment.auto import resolve_auto
from tlrun.experiment.baselines import has_baseline, is_baseline, train_baselines
from tlrun.experiment.checks import check_phases
from tlrun.experiment.dry_run import dry_run
from tlrun.experiment.limits import explain_limits
from tlrun.experiment.nodes import leader_of
from tlrun.experiment.processes import start_workers
from tlrun.experiment.session import Session
from tlrun.experiment.shared_training import shared_training
from tlrun.experiment.summary import conclude, write_surroundings
from tlrun.experiment.wall_time import with_part
from tlrun.files.atomic import write_atomic
from tlrun.loggers.make import check_installed, log_summary
from tlrun.run_folder.locks import locked
from tlrun.run_folder.record import logging_to
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)


def execute(path: Path, began: float | None = None) -> dict[str, Any]:
    """Train, evaluate and report the run whose config.yaml lies in `path`; returns its summary.

    began: time.time() at the start of the command (None = now).

    Goes on from `checkpoints/last.pt` when there is one. Raises TlrunError and whatever else goes
    wrong; `start.run_experiment` around it records that in status.json.
    """
    run_dir, began = RunDir.open(path), began or time.time()
    with locked(run_dir), logging_to(run_dir), explain_limits(run_dir):
        cfg = load_config(run_dir.config)
        if cfg.dry_run:
            dry_run(open_session(run_dir, plain(resolve_auto(cfg))))
            return {}
        cfg = resolve_auto(cfg, trained=(run_dir.checkpoints / "last.pt").exists())
        asked = bool(cfg.baseline)
        session = begin(run_dir, cfg, began)
        with shared_training(session, asked) as taken:
            summary = taken or train_and_conclude(session)
        if cfg.baseline:
            summary = train_baselines(session, cfg, summary, execute)
        log_summary(plain(cfg.logger), run_dir, summary)
        run_dir.set_status("completed", step=summary["steps"])
        show(run_dir)
    return summary


def begin(run_dir: RunDir, cfg: DictConfig, began: float) -> Session:
    """Build all that `cfg` describes, and write it down as it is run.

    A kill before that leaves the config as it was typed, and no checkpoint: a resume begins anew.
    Sets `cfg.baseline`, which depends on the data.
    """
    check_installed(str(cfg.logger.name))
    run_dir.checkpoints.mkdir(exist_ok=True)
    run_dir.set_status("running")
    session = open_session(run_dir, plain(cfg), began=began)
    cfg.baseline = session.cfg["baseline"] = has_baseline(cfg.baseline, session, cfg)
    write_atomic(run_dir.config, OmegaConf.to_yaml(cfg))
    return session


def train_and_conclude(session: Session) -> dict[str, Any]:
    train(session)
    return conclude(session)


def train(session: Session) -> None:
    """Fit here, or in `trainer.devices` workers of each node; the session then has the net's last
    form."""
    write_surroundings(session)
    check_phases(session)
    if world_size(session.cfg) == 1:
        session.trainer().fit()
        return
    trainer = session.cfg["trainer"]
    leader = leader_of(int(trainer["nodes"]))
    start_workers(session.run_dir.path, int(trainer["devices"]), session.began, leader)
    session.build_all()


def train_worker(
    path: Path, rank: int, world: int, began: float, endpoint: Endpoint | None = None
) -> None:
    """What each of several processes does (see worker.py). began: when the command did.

    endpoint: where the processes of several machines meet.
    """
    run_dir = RunDir.open(path)
    run_log = logging_to(run_dir) if rank == 0 else contextlib.nullcontext()
    with run_log, explain_limits(run_dir):
        cfg = plain(load_config(run_dir.config))
        session = open_session(run_dir, cfg, rank, world, began=began, endpoint=endpoint)
        try:
            session.trainer().fit()
        finally:
            session.process.leave()


def show(run_dir: RunDir) -> None:
    """Plots and page as `report` says, and the closing table.

    The run is complete by now: a fault here must not lose it. A model that is only there for
    comparison is shown on the page of its run.
    """
    if is_baseline(run_dir):
        return
    from tlrun.report.pages.terminal import text_summary

    kind = run_dir.page_kind()
    try:
        if kind != "none":
            from tlrun.report.pages.write import write_report  # templates and figures

            began = time.time()
            write_report(run_dir.path, kind=kind)
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
