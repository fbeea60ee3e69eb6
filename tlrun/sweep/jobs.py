"""Sweeps that finish what is missing. Imports no torch.

The folder of a sweep is named by its command, the folder of a job by its config. So the same
command finds what is there: finished jobs are left alone, the others go on, start anew or begin. A
job belongs to whoever holds the lock of its folder, which the kernel takes back when that process
dies.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override

from tlrun.config import trust
from tlrun.config.build import plain
from tlrun.config.compose import finish, open_keys
from tlrun.config.hashes import command_hash, config_dir_of, job_hash, key_of, words_of
from tlrun.config.saved_code import composed
from tlrun.config.schema import matches
from tlrun.errors import ConfigError, Interrupted, RunError
from tlrun.experiment import start
from tlrun.files.yaml_file import read_yaml
from tlrun.messages import report_error, say
from tlrun.run_folder.run_dir import (
    COMMANDS,
    Busy,
    Damaged,
    RunDir,
    held_by_another,
    locked,
    runs_in,
    write_atomic,
)
from tlrun.sweep.command import check_words, checked_command
from tlrun.sweep.gpus import reserve_gpus
from tlrun.sweep.launchers import threads_of_job

if TYPE_CHECKING:
    from tlrun.sweep.progress import Watch


STOPPED = ".stopped"  # in a sweep's folder: a job failed and sweep.fail_fast=true
NOT_REMEMBERED = ("hydra.mode", "hydra.sweep.dir", "sweep.new")  # of a command


class Sweep(Callback):
    """What this process knows of its jobs (named under hydra.callbacks in conf/config.yaml)."""

    folder: Path | None = None  # of the sweep; None: a single run
    failures: list[Exception] | None = None  # of the jobs run here; None: in a launcher's process
    problem: Exception | None = None  # why no job was begun
    added: tuple[str, Any] | None = None  # to sweep.yaml: the command's hash, what it had there
    watch: Watch | None = None  # of the process that began the sweep

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        try:
            open_sweep(config)
            start_watch(config)
        except Exception as error:  # Hydra would warn and go on
            Sweep.problem = error
            sys.exit(1)


# ---- the folder of a sweep ------------------------------------------------------------------


def open_sweep(config: DictConfig) -> None:
    """Make or find the sweep's folder, write sweep.yaml, and tell every job where it is."""
    folder = Path(config.hydra.sweep.dir)
    if config.sweep.new:
        folder = claim_new(folder)
    folder.mkdir(parents=True, exist_ok=True)
    Sweep.folder = folder  # by now there is one
    remember(folder, config)
    (folder / STOPPED).unlink(missing_ok=True)
    if jobs := runs_in(folder):
        done = sum(is_finished(RunDir(job)) for job in jobs)
        say(f"going on with {folder}: {done} of its {len(jobs)} jobs are completed")
    # Overrides reach the jobs under every launcher. Hydra would write .hydra of finished jobs too.
    more = [f"hydra.sweep.dir={quoted(str(folder.absolute()))}"]
    if config.hydra.output_subdir == ".hydra":
        more.append("hydra.output_subdir=null")
    if trust.current() != trust.Trust():  # to the processes of a launcher; no reader asks for it
        variables = trust.as_environment().items()
        more += [f"++hydra.job.env_set.{name}={quoted(value)}" for name, value in variables]
    with flag_override(config, ["struct", "readonly"], [False, False]):
        config.hydra.sweep.dir = str(folder.absolute())
        config.hydra.overrides.hydra = [*words_of(config.hydra.overrides.hydra), *more]


def start_watch(config: DictConfig) -> None:
    from tlrun.sweep.progress import Watch, jobs_of

    kind = str(config.hydra.launcher.get("_target_"))
    Sweep.watch = Watch(
        Path(config.hydra.sweep.dir),
        jobs_of(config),
        elsewhere=not kind.endswith("BasicLauncher"),
        silent="submitit" in kind,  # it keeps the output of jobs in files
    )
    Sweep.watch.__enter__()


@contextmanager
def watched() -> Iterator[None]:
    """Around a command that may be a sweep: its bar goes away whatever happens."""
    try:
        yield
    finally:
        watch, Sweep.watch = Sweep.watch, None
        if watch is not None:
            watch.__exit__()


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


def numbered(path: Path) -> Iterator[Path]:
    yield path
    for number in count(2):
        yield path.with_name(f"{path.name}_{number}")


def remember(folder: Path, config: DictConfig) -> None:
    """Add the command to sweep.yaml. A folder that the user named may hold several."""
    overrides = config.hydra.overrides
    words = [*words_of(overrides.hydra), *words_of(overrides.task)]
    command = {
        "overrides": [word for word in words if key_of(word) not in NOT_REMEMBERED],
        "config_dir": config_dir_of(config.hydra),
        "config_name": config.hydra.job.config_name,
        "folder": str(Path.cwd()),
    }
    with locked(folder, wait=True):
        before, key = commands_of(folder), command_hash(config)
        Sweep.added = key, before.get(key)
        _write_commands(folder, {**before, key: command})


def forget(folder: Path) -> None:
    """Take back what `remember` wrote: the command was refused, so `resume` shall not give it."""
    if Sweep.added is None:
        return
    key, before = Sweep.added
    with locked(folder, wait=True):
        commands = {k: v for k, v in commands_of(folder).items() if k != key}
        if before is not None:
            commands[key] = before
        _write_commands(folder, commands)


def _write_commands(folder: Path, commands: dict[str, Any]) -> None:
    write_atomic(folder / COMMANDS, OmegaConf.to_yaml(OmegaConf.create({"commands": commands})))


def commands_of(folder: Path) -> dict[str, Any]:
    """{hash: {"overrides", "config_dir", "config_name", "folder" it was typed in}}."""
    file = folder / COMMANDS
    found: Any = read_yaml(file) if file.is_file() else {}
    commands = found.get("commands", {}) if isinstance(found, dict) else found
    if not matches(commands, dict[str, dict]):
        raise Damaged(f"{file} is damaged: it should hold the sweep's commands; move it away")
    return dict(commands)


def finish_sweep(folder: Path, failed: int) -> int:
    """The leaderboard, one closing line, and the exit code: 1 if a job failed or was left over."""
    with locked(folder, wait=True):  # the last of several processes writes the whole table
        runs = [RunDir(path) for path in runs_in(folder)]
        if runs:
            from tlrun.report.pages.page import write_report

            write_report(folder)
    left = [run for run in runs if run.read_status().get("state") != "completed"]
    elsewhere = [run for run in left if held_by_another(run)]
    note = f" ({len(elsewhere)} run by another process)" if elsewhere else ""
    say(f"{len(runs) - len(left)} of {len(runs)} jobs completed{note}: {folder}")
    if (folder / STOPPED).exists():
        say("sweep.fail_fast=true: jobs after the failure did not begin")
    return 1 if failed or len(left) > len(elsewhere) else 0


def resume_sweep(
    folder: Path, overrides: Sequence[str] = (), *, train: Callable[[list[str]], int]
) -> int:
    """Give the sweep's command again. Returns the exit code.

    overrides: how to run it (`sweep.*`, `launcher=`, `hydra.*`). Others change the runs themselves,
    so they go to the jobs that have begun, as they would in `tlrun resume RUN_DIR`. train: what
    runs a command (`tlrun -m ...`) and returns its exit code.
    """
    folder, overrides = folder.absolute(), open_keys(overrides)
    if any(_names_runs(key_of(word)) for word in overrides):
        from tlrun.experiment.resume import resume_jobs

        try:
            resume_jobs(runs_in(folder), overrides)
        except RunError as error:
            return finish_sweep(folder, failed=report_error(error))
        return finish_sweep(folder, failed=0)
    code, given = 0, {key_of(word) for word in overrides}
    config_dir = trust.current().config_dir
    commands = [checked_command(saved, folder) for saved in commands_of(folder).values()]
    for command in commands:  # all are checked before any is run
        command["overrides"] = _without(command["overrides"], given)
        check_words(command["overrides"], folder)
    for command in commands:
        words = [*command["overrides"], *overrides, f"hydra.sweep.dir={quoted(str(folder))}"]
        if command["config_dir"] and config_dir:
            words += ["--config-dir", config_dir]
        with trust.trusting(received=True), working_folder(Path(command["folder"])):
            code = max(code, train(["-m", *words, "--config-name", command["config_name"]]))
    return code


def _without(words: list[str], given: set[str]) -> list[str]:
    """The words of a saved command, but for what is given now; another launcher has other keys."""
    left = [word for word in words if key_of(str(word)) not in given]
    if given & {"launcher", "hydra/launcher"}:
        of_launcher = ("hydra/l", "hydra.l", "launcher")
        left = [word for word in left if not key_of(str(word)).startswith(of_launcher)]
    return left


def _names_runs(key: str) -> bool:
    return not key.startswith(("sweep.", "hydra", "launcher", "search."))


@contextmanager
def working_folder(path: Path) -> Iterator[None]:
    """Where relative paths of the command hold; if it is gone, the present one."""
    before = Path.cwd()
    if path.is_dir():
        os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def quoted(value: str) -> str:
    """A value that Hydra reads as it is, whatever is in it."""
    return "'" + value.replace("'", "\\'") + "'"


# ---- a job ----------------------------------------------------------------------------------


def run_job(cfg: DictConfig, hydra_cfg: Any) -> dict[str, Any] | None:
    """Do what is missing of one job; its summary, or None.

    A failure is reported at once and written into the folder, and the other jobs go on. An
    interruption ends the sweep.
    """
    name = f"#{hydra_cfg.job.num} {hydra_cfg.runtime.output_dir}"
    stopped = Path(hydra_cfg.sweep.dir) / STOPPED
    if Sweep.failures is None:
        _speak_softly()
    if cfg.sweep.fail_fast and stopped.exists():
        with suppress(OSError):
            Path(hydra_cfg.runtime.output_dir).rmdir()  # Hydra made it
        return None
    try:
        return _claim_and_run(cfg, hydra_cfg, name)
    except Interrupted as error:
        if Sweep.failures is None:
            from tlrun.engine.interrupt import queue_again

            queue_again()
            raise  # for the launcher to pass on
        say(f"to go on with the sweep: tlrun resume {hydra_cfg.sweep.dir}")
        sys.exit(report_error(error))
    except Exception as error:
        report_error(error, where=name)
        if cfg.sweep.fail_fast:
            stopped.touch()
        if Sweep.failures is not None:
            Sweep.failures.append(error)
        elif not getattr(error, "tlrun_recorded", False):
            raise  # else the process that began the sweep would never know
        return None
    finally:
        if Sweep.watch is not None:
            Sweep.watch.look()


def _speak_softly() -> None:
    """In a launcher's process beside a bar: what it says is in run.log, the bar's process tells."""
    if os.environ.get("TLRUN_QUIET"):
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # until the process ends


def _claim_and_run(cfg: DictConfig, hydra_cfg: Any, name: str) -> dict[str, Any] | None:
    job = job_hash(cfg)
    for path in numbered(Path(hydra_cfg.runtime.output_dir)):
        run = RunDir(path)
        if is_finished(run) and _belongs(run, job):
            say(f"{name}: finished before")
            _ensure_whole(run)
            return run.read_summary()
        path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(run))
            except Busy:
                if not _belongs(run, job):
                    continue
                say(f"{name}: run by another process, left to it")
                return None
            if not _belongs(run, job):
                continue  # another config under the same name (hydra.sweep.subdir=...)
            if is_finished(run):  # by another process, a moment ago
                return run.read_summary()
            return _run(run, job, cfg, hydra_cfg, name)
    raise AssertionError  # numbers do not end


def _belongs(run: RunDir, job: str) -> bool:
    """Whether the folder is this job's, or nobody's yet."""
    owner = run.read_status().get("job")
    return owner == job or (owner is None and not run.config.is_file())


def is_finished(run: RunDir) -> bool:
    return run.read_status().get("state") == "completed" and run.summary.is_file()


def _ensure_whole(run: RunDir) -> None:
    """A job that was killed after its training is complete, but may lack its page or more.

    Without checkpoints (removed to save space) only the page can be made.
    """
    weights = (run.checkpoints / "last.pt").is_file()
    missing = run.missing() if weights else not run.report.is_file()
    if missing and not held_by_another(run):
        from tlrun.experiment.lifecycle import complete, show

        if weights:
            complete(run)
            return
        with locked(run), run.logging():
            show(run)


def _run(
    run: RunDir, job: str, cfg: DictConfig, hydra_cfg: Any, name: str
) -> dict[str, Any] | None:
    """From the last checkpoint if there is one, else from the start."""
    before = run.read_status().get("state")
    with run.recorded():
        if any((run.checkpoints / f"{kind}.pt").is_file() for kind in ("last", "previous")):
            if cfg.dry_run:
                return None
            say(f"{name}: {_was(before)}, going on from its checkpoint")
            from tlrun.experiment.resume import resume

            asked = plain(finish(cfg, hydra_cfg))
            with composed(asked, config_dir_of(hydra_cfg)), _gpus(run, cfg, hydra_cfg):
                return resume(run.path)
        say(f"{name}: {_was(before)}, starting anew" if before else name)
        run.set_status("created", job=job)
        try:
            config = finish(cfg, hydra_cfg)
        except ConfigError:
            write_atomic(run.config, OmegaConf.to_yaml(cfg))  # what failed, for the table
            raise
        if config.baseline == "auto":
            config.baseline = False  # a sweep names its own baselines
        if config.trainer.threads == "auto" and (threads := threads_of_job(hydra_cfg.launcher)):
            config.trainer.threads = threads
        if hydra_cfg.output_subdir is None:
            _write_hydra(run.path / ".hydra", cfg, hydra_cfg)
        start.write_config(run, config, words_of(hydra_cfg.overrides.task))
        with composed(plain(config), config_dir_of(hydra_cfg)), _gpus(run, cfg, hydra_cfg):
            return start.run_experiment(run)


@contextmanager
def _gpus(run: RunDir, cfg: DictConfig, hydra_cfg: Any) -> Iterator[None]:
    """Nothing happens where there is no GPU."""
    trainer = cfg.trainer
    with reserve_gpus(hydra_cfg.job.num, str(trainer.device), int(trainer.devices)) as mine:
        if mine:
            run.set_status(run.read_status().get("state", "created"), gpus=mine)
        yield


def _was(state: str | None) -> str:
    return "failed before" if state == "failed" else "interrupted before"


def _write_hydra(folder: Path, cfg: DictConfig, hydra_cfg: Any) -> None:
    """What Hydra's own output_subdir would hold, written only where the job is this process's."""
    folder.mkdir(exist_ok=True)
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(cfg))
    write_atomic(folder / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra_cfg})))
    write_atomic(folder / "overrides.yaml", OmegaConf.to_yaml(hydra_cfg.overrides.task))
