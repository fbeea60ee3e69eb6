"""The folder of a sweep: found or made before its jobs, closed with a leaderboard after them.

It is named by the sweep's command, and the folder of a job by its config. So the same command finds
what is there.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig, flag_override

from tlrun.config import trust
from tlrun.config.overrides import override_list
from tlrun.errors import ConfigError
from tlrun.messages import plural, say
from tlrun.run_folder.locks import LOCK, held_by_another, locked
from tlrun.run_folder.run_dir import (
    HYDRA,
    RunDir,
    is_run_dir,
    is_sweep,
    numbered,
    remove_empty,
    runs_in,
    standing,
)
from tlrun.sweep.command import add_command, command_of
from tlrun.sweep.own_targets import SKIP, skipped_jobs, sweeps_over_pairs
from tlrun.sweep.search import is_search
from tlrun.sweep.state import SweepState
from tlrun.sweep.study import FILE, SEARCH_LOCK

SWEEPER = "hydra_plugins.tlrun_jobs.Jobs"  # Hydra takes sweepers of this package alone
MULTIRUN = "multirun.yaml"  # which Hydra writes
STOPPED = ".stopped"  # in a sweep's folder: a job failed and sweep.fail_fast=true
TABLES = ("leaderboard.csv", "leaderboard.md", "leaderboard_by_data.csv", "report.html", "plots")
LEFT_BY_DRY_RUN = (STOPPED, LOCK, FILE, SEARCH_LOCK, MULTIRUN)


def open_sweep(config: DictConfig, state: SweepState) -> None:
    """Make or find the sweep's folder, write sweep.yaml, and tell every job where it is.

    A search has yet to accept its command, and then writes it itself.
    """
    folder = Path(config.hydra.sweep.dir)
    state.stood = standing(folder)
    if config.sweep.new:
        folder = claim_new(folder)
    check_whose(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state.folder = folder  # by now there is one
    state.dry_run = bool(config.dry_run)
    state.command = command_of(config)
    if not is_search(config) and not state.dry_run:
        add_command(folder, state.command)
    (folder / STOPPED).unlink(missing_ok=True)
    if jobs := runs_in(folder):
        done = sum(RunDir(job).is_finished() for job in jobs)
        say(f"going on with {folder}: {done} of its {plural(len(jobs), 'job')} completed")
    overrides = override_list(config.hydra.overrides.task)
    if skipped := skipped_jobs(overrides):
        say(f"{skipped} of the jobs skipped: the source is the target")
    _tell_jobs(folder.absolute(), config, pairs=sweeps_over_pairs(overrides))


def check_whose(folder: Path) -> None:
    """Raise ConfigError for the folder of a run, or one with somebody's files where a sweep writes
    its own: they would be written over."""
    if is_run_dir(folder):
        raise ConfigError(f"{folder} is the folder of a run: name another one for the sweep")
    if not folder.is_dir() or is_sweep(folder) or runs_in(folder):
        return
    names = [name for name in TABLES if os.path.lexists(folder / name)]
    with suppress(FileNotFoundError):
        text = (folder / MULTIRUN).read_text(encoding="utf-8", errors="replace")
        names += [] if "tlrun." in text else [MULTIRUN]  # a dry run that was killed left its own
    if names:
        raise ConfigError(
            f"{folder} is no sweep's folder, and a sweep would write over {', '.join(names)} in "
            "it: name another folder"
        )


def _tell_jobs(folder: Path, config: DictConfig, *, pairs: bool) -> None:
    """Add overrides to the command: these reach the jobs under every launcher."""
    more = [f"hydra.sweep.dir={quoted(str(folder))}"]
    if config.hydra.output_subdir == HYDRA:
        more.append("hydra.output_subdir=null")  # Hydra would write .hydra of finished jobs too
    if str(config.hydra.sweeper.get("_target_")).endswith(".BasicSweeper"):
        with flag_override(config, ["struct", "readonly"], [False, False]):
            config.hydra.sweeper._target_ = SWEEPER
    if pairs:
        more.append(f"++hydra.job.env_set.{SKIP}='1'")
    if trust.current() != trust.Trust():  # to the processes of a launcher; no reader asks for it
        variables = trust.as_environment().items()
        more += [f"++hydra.job.env_set.{name}={quoted(value)}" for name, value in variables]
    with flag_override(config, ["struct", "readonly"], [False, False]):
        config.hydra.sweep.dir = str(folder)
        config.hydra.overrides.hydra = [*override_list(config.hydra.overrides.hydra), *more]


def claim_new(folder: Path) -> Path:
    """`folder`, or "<name>_2" and so on: the first that was not there and now is ours."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for candidate in numbered(folder):
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            continue
    raise AssertionError  # numbers do not end


def quoted(value: str) -> str:
    """A value that Hydra reads as it is, whatever is in it."""
    return "'" + value.replace("'", "\\'") + "'"


def discard_dry_run(folder: Path, stood: Path) -> None:
    """Leave nothing of a sweep's folder after a dry run, unless it holds jobs or a command. stood:
    as `SweepState.stood`."""
    with suppress(OSError):
        if not runs_in(folder) and not is_sweep(folder):
            for name in LEFT_BY_DRY_RUN:
                (folder / name).unlink(missing_ok=True)
            remove_empty(folder, stood)


def close_sweep(folder: Path, failed: int) -> int:
    """The leaderboard, one closing line, and the exit code: 1 if a job failed or was left over."""
    table = ""
    with locked(folder, wait=True):  # the last of several processes writes the whole table
        runs = [RunDir(path) for path in runs_in(folder)]
        if runs:
            from tlrun.report.pages.terminal import sweep_table
            from tlrun.report.pages.write import write_leaderboard  # matplotlib comes in here

            table = sweep_table(write_leaderboard(folder), folder)
    if table and any(run.is_finished() for run in runs):
        print(table)
    left = [run for run in runs if run.read_status().get("state") != "completed"]
    elsewhere = [run for run in left if held_by_another(run)]
    note = f" ({len(elsewhere)} run by another process)" if elsewhere else ""
    say(f"{len(runs) - len(left)} of {plural(len(runs), 'job')} completed{note}: {folder}")
    if (folder / STOPPED).exists():
        say("sweep.fail_fast=true: jobs after the failure did not begin")
    return 1 if failed or len(left) > len(elsewhere) else 0
