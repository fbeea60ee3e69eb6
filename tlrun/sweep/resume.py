"""`tlrun resume SWEEP_DIR`: give the sweep's commands again. Imports no torch by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tlrun.config import trust
from tlrun.config.overrides import key_of, open_keys
from tlrun.config.saved import command_to_type, saved_config
from tlrun.config.saved_code import FormerName
from tlrun.errors import ConfigError, RunError
from tlrun.experiment.nodes import code_of_node_0, on_nodes, saved_configs
from tlrun.files.yaml_file import read_yaml
from tlrun.messages import report_error
from tlrun.run_folder.run_dir import runs_in
from tlrun.sweep.command import SweepCommand, check_overrides, checked_command, saved_commands
from tlrun.sweep.folder import close_sweep, quoted


def resume_sweep(
    folder: Path, overrides: Sequence[str] = (), *, train: Callable[[list[str]], int]
) -> int:
    """Give every command of the sweep again. Returns the exit code.

    overrides: how to run it (`sweep.*`, `launcher=`, `hydra.*`). Others change the runs themselves,
    so they go to the jobs that have begun, as they would in `tlrun resume RUN_DIR`. train: what
    runs a command (`tlrun -m ...`) and returns its exit code.
    """
    folder, overrides = folder.absolute(), open_keys(overrides)
    if any(_changes_runs(key_of(word)) for word in overrides):

        def resume_here() -> int:
            from tlrun.experiment.resume import resume_jobs  # torch comes in here

            try:
                resume_jobs(runs_in(folder), overrides)
            except RunError as error:
                return close_sweep(folder, failed=report_error(error))
            return close_sweep(folder, failed=0)

        return on_nodes(saved_configs(folder, overrides), resume_here, code_of_node_0)
    code, commands = 0, _commands_to_give(folder, {key_of(word) for word in overrides})
    _refuse_former_names(folder, commands)
    for command in commands:
        arguments = [*command.overrides, *overrides, f"hydra.sweep.dir={quoted(str(folder))}"]
        if command.config_dir and (config_dir := trust.current().config_dir):
            arguments += ["--config-dir", config_dir]
        with trust.trusting(received=True), working_folder(Path(command.folder)):
            code = max(code, train(["-m", *arguments, "--config-name", command.config_name]))
    return code


def _commands_to_give(folder: Path, given: set[str]) -> list[SweepCommand]:
    """The saved commands without the keys that are given now. All are checked before any is run."""
    checked = [checked_command(*entry, folder) for entry in saved_commands(folder).items()]
    commands = []
    for command in checked:
        overrides = _without(command.overrides, given)
        check_overrides(overrides, folder)
        commands.append(replace(command, overrides=overrides))
    return commands


def _refuse_former_names(folder: Path, commands: Sequence[SweepCommand]) -> None:
    """Raise ConfigError for jobs of an earlier tlrun, whose modules had other names.

    A job's folder is named by its config, so each of them would be trained again beside itself.
    """
    for job in runs_in(folder)[:1]:
        try:
            saved_config(read_yaml(job / "config.yaml"), str(folder))
        except FormerName as error:
            again = (command_to_type([*c.overrides, "sweep.new=true"], "-m") for c in commands)
            raise ConfigError(f"{error}{next(again, '')}") from error
        except ConfigError:
            return  # the job itself says what is wrong


def _without(overrides: list[str], given: set[str]) -> list[str]:
    """Those whose keys are not given now; another launcher has other keys."""
    left = [word for word in overrides if key_of(str(word)) not in given]
    if given & {"launcher", "hydra/launcher"}:
        of_launcher = ("hydra/l", "hydra.l", "launcher")
        left = [word for word in left if not key_of(str(word)).startswith(of_launcher)]
    return left


def _changes_runs(key: str) -> bool:
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
