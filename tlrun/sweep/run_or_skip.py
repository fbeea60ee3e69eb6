"""One job of a sweep: it finishes what is missing. Imports no torch.

A finished job is left alone, others go on, start anew or begin. A job belongs to whoever holds the
lock of its folder, which the kernel takes back when that process dies.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tlrun.config.build import plain
from tlrun.config.compose import resolve_and_check
from tlrun.config.hashes import config_dir_of, job_hash
from tlrun.config.overrides import override_list
from tlrun.config.own_target import is_own_target
from tlrun.config.saved_code import composed
from tlrun.errors import ConfigError, Interrupted, RecordedFault, TlrunError
from tlrun.experiment import start
from tlrun.experiment.node import Node, this_node
from tlrun.experiment.nodes import follow, leading, nodes_of
from tlrun.files.atomic import write_atomic
from tlrun.machine import in_slurm
from tlrun.messages import report_error, say
from tlrun.run_folder.locks import Busy, held_by_another, locked
from tlrun.run_folder.record import logging_to, recorded
from tlrun.run_folder.run_dir import RunDir, numbered, remove_empty
from tlrun.sweep.folder import STOPPED
from tlrun.sweep.gpus import reserve_gpus
from tlrun.sweep.launchers import threads_of_job
from tlrun.sweep.own_targets import SKIP
from tlrun.sweep.progress import QUIET
from tlrun.sweep.state import current_sweep

INTERRUPTED = 130  # exit codes from here on
SHORT = 200  # steps: about ten seconds of the smallest nets


def run_job(cfg: DictConfig, hydra_cfg: Any) -> None:
    """Do what is missing of one job.

    A failure is reported at once and written into the folder, and the other jobs go on. An
    interruption ends the sweep.
    """
    if current_sweep() is None:
        silence_stderr()
        nodes = nodes_of([{"trainer": cfg.trainer, "dry_run": cfg.dry_run}])
        if nodes > 1:
            _run_on_nodes(cfg, hydra_cfg, nodes)
            return
    _run_here(cfg, hydra_cfg)


def _run_on_nodes(cfg: DictConfig, hydra_cfg: Any, nodes: int) -> None:
    """A job of Slurm on several nodes, of which this is one."""
    if not in_slurm():
        raise ConfigError(
            f"trainer.nodes={nodes}, and this launcher starts its jobs on one machine: "
            "launcher=submitit"
        )
    node = this_node(nodes)
    try:
        config = plain(resolve_and_check(cfg, hydra_cfg))
    except ConfigError:  # node 0 says what is wrong
        config = None
    if node.rank > 0:
        if config is not None:
            _follow_job(node, config)
        return
    with leading(node) if config else nullcontext():
        _run_here(cfg, hydra_cfg)


def _follow_job(node: Node, config: dict[str, Any]) -> None:
    """Where node 0 is interrupted or gone, this process leaves submitit no result: the job may be
    queued again, and is waited for until every node has one."""
    try:
        code = follow(node, [config])[0]
    except (TlrunError, SystemExit) as error:
        code = report_error(error) if isinstance(error, TlrunError) else INTERRUPTED
        code = max(code, INTERRUPTED)
    if not 0 <= code < INTERRUPTED:
        logging.shutdown()
        os._exit(0)


def _run_here(cfg: DictConfig, hydra_cfg: Any) -> None:
    name = f"#{hydra_cfg.job.num} {hydra_cfg.runtime.output_dir}"
    stopped = Path(hydra_cfg.sweep.dir) / STOPPED
    sweep = current_sweep()
    skipped = SKIP in os.environ and is_own_target(override_list(hydra_cfg.overrides.task))
    if skipped or (cfg.sweep.fail_fast and stopped.exists()):
        with suppress(OSError):
            Path(hydra_cfg.runtime.output_dir).rmdir()  # Hydra made it
        return
    try:
        _claim_and_run(cfg, hydra_cfg, name)
    except Interrupted as error:
        if sweep is None:
            from tlrun.engine.interrupt import queue_again  # torch comes in here

            queue_again()
            raise  # for the launcher to pass on
        if not cfg.dry_run:
            say(f"to go on with the sweep: tlrun resume {hydra_cfg.sweep.dir}")
        sys.exit(report_error(error))
    except Exception as error:
        report_error(error, where=name)
        if cfg.sweep.fail_fast:
            stopped.touch()
        if sweep is not None:
            sweep.failures.append(error)
        elif not _is_recorded(error):
            raise  # else the process that began the sweep would never know
    finally:
        if cfg.dry_run:  # Hydra made it
            remove_empty(Path(hydra_cfg.runtime.output_dir), Path(hydra_cfg.sweep.dir))
        if sweep is not None and sweep.progress is not None:
            sweep.progress.look()


def silence_stderr() -> None:
    """In a launcher's process beside a bar: what it says is in run.log, the bar's process tells."""
    if os.environ.get(QUIET):
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # until the process ends


def _is_recorded(error: Exception) -> bool:
    """Whether the job's folder says why it failed."""
    return isinstance(error, RecordedFault) or (isinstance(error, TlrunError) and error.recorded)


def _claim_and_run(cfg: DictConfig, hydra_cfg: Any, name: str) -> None:
    job = job_hash(cfg)
    for path in numbered(Path(hydra_cfg.runtime.output_dir)):
        run = RunDir(path)
        if run.is_finished() and _belongs(run, job):
            say(f"{name}: finished before")
            if cfg.dry_run:
                return
            _ensure_whole(run)
            run.read_summary()  # Damaged where it could not be made again
            return
        if not _belongs(run, job):
            continue
        if cfg.dry_run:
            _rehearse(run, cfg, hydra_cfg, name)
            return
        path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(run))
            except Busy:
                if not _belongs(run, job):
                    continue
                say(f"{name}: run by another process, left to it")
                return
            if not _belongs(run, job):
                continue  # another config under the same name (hydra.sweep.subdir=...)
            if not run.is_finished():  # by another process, a moment ago
                _run(run, job, cfg, hydra_cfg, name)
            return


def _belongs(run: RunDir, job: str) -> bool:
    """Whether the folder is this job's, or nobody's yet."""
    owner = run.read_status().get("job")
    return owner == job or (owner is None and not run.has_names_of_a_run())


def _ensure_whole(run: RunDir) -> None:
    """A job that was killed after its training is complete, but may lack its page or more.

    Without checkpoints (removed to save space) only the page can be made.
    """
    weights = (run.checkpoints / "last.pt").is_file()
    missing = run.missing() if weights else run.lacks_page()
    if missing and not held_by_another(run):
        from tlrun.experiment.lifecycle import show  # torch comes in here
        from tlrun.experiment.missing_files import make_missing_files

        if weights:
            make_missing_files(run)
            return
        with locked(run), logging_to(run):
            show(run)


def _run(run: RunDir, job: str, cfg: DictConfig, hydra_cfg: Any, name: str) -> None:
    """From the last checkpoint if there is one, else from the start."""
    before = run.read_status().get("state")
    with recorded(run):
        if _has_checkpoint(run):
            say(f"{name}: {describe_state(before)}, going on from its checkpoint")
            from tlrun.experiment.resume import resume  # torch comes in here

            asked = plain(resolve_and_check(cfg, hydra_cfg))
            with composed(asked, config_dir_of(hydra_cfg)), _gpus(run, cfg, hydra_cfg):
                resume(run.path)
            return
        say(f"{name}: {describe_state(before)}, starting anew" if before else name)
        run.set_status("created", job=job)
        config = _write_config(run, cfg, hydra_cfg)
        with composed(plain(config), config_dir_of(hydra_cfg)), _gpus(run, cfg, hydra_cfg):
            start.run_experiment(run)


def _has_checkpoint(run: RunDir) -> bool:
    return any((run.checkpoints / f"{kind}.pt").is_file() for kind in ("last", "previous"))


def _rehearse(job: RunDir, cfg: DictConfig, hydra_cfg: Any, name: str) -> None:
    """A dry run, in a folder of its own: that of the job may hold what an earlier run has left."""
    if _has_checkpoint(job):
        return
    say(name)
    with TemporaryDirectory() as folder:
        run = RunDir(Path(folder, job.path.name))
        run.path.mkdir()
        config = _write_config(run, cfg, hydra_cfg)
        with composed(plain(config), config_dir_of(hydra_cfg)), _gpus(run, cfg, hydra_cfg):
            start.run_experiment(run)


def _write_config(run: RunDir, cfg: DictConfig, hydra_cfg: Any) -> DictConfig:
    """The job's configuration, in its folder too. Raises ConfigError."""
    try:
        config = resolve_and_check(cfg, hydra_cfg)
    except ConfigError:
        write_atomic(run.config, OmegaConf.to_yaml(cfg))  # what failed, for the table
        raise
    if config.baseline == "auto":
        config.baseline = False  # a sweep names its own baselines
    if config.report == "auto":
        config.report = _page_of_job(config)
    if config.trainer.threads == "auto" and (threads := threads_of_job(hydra_cfg.launcher)):
        config.trainer.threads = threads
    if hydra_cfg.output_subdir is None:
        start.write_hydra(run, cfg, hydra_cfg)
    start.write_config(run, config, override_list(hydra_cfg.overrides.task))
    return config


def _page_of_job(config: DictConfig) -> str:
    """Pictures cost a second a job, and few are looked at: none where training takes no longer."""
    trainer = config.trainer
    return "text" if trainer.epochs is None and int(trainer.steps) <= SHORT else "light"


@contextmanager
def _gpus(run: RunDir, cfg: DictConfig, hydra_cfg: Any) -> Iterator[None]:
    """Nothing happens where there is no GPU."""
    trainer = cfg.trainer
    with reserve_gpus(hydra_cfg.job.num, str(trainer.device), int(trainer.devices)) as mine:
        if mine:
            run.set_status(run.read_status().get("state", "created"), gpus=mine)
        yield


def describe_state(state: str | None) -> str:
    """What became of a job that is not complete, for the line that tells of its next beginning."""
    return "failed before" if state == "failed" else "interrupted before"
