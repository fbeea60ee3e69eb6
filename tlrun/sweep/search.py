"""`tlrun -m search=optuna`: settings that the selection rule likes best. Imports no torch.

A trial is a job of the sweep (with seed=0,1,2: one job per seed, the value is their mean). What was
asked for and what came of it is in the sweep's search.json, written after every trial; the same
command goes on from there (study.py).

Why not hydra-optuna-sweeper: it needs Optuna 2 and cannot go on (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tlrun.errors import Interrupted
from tlrun.messages import say
from tlrun.sweep.command import add_command
from tlrun.sweep.launchers import at_once
from tlrun.sweep.space import read_command
from tlrun.sweep.state import current_sweep
from tlrun.sweep.study import Settings, Study, Trial

DONE = ("completed", "guarded")  # states of a trial

Launch = Callable[[Sequence[Sequence[str]], int], Any]
Compose = Callable[[DictConfig, list[str]], DictConfig]


def is_search(config: DictConfig) -> bool:
    """Whether a sweep, by its config with the `hydra` node, is a search."""
    return str(config.hydra.sweeper.get("_target_")) == "hydra_plugins.tlrun_search.Search"


def run_search(
    settings: Settings,
    *,
    config: DictConfig,
    compose: Compose,
    launch: Launch,
    arguments: Sequence[str],
) -> None:
    """Ask, run and write down until `settings.trials` are tried. Raises ConfigError, RunError."""
    command = read_command(arguments, settings.space)
    base = compose(config, [*command.fixed, f"seed={command.seeds[0]}"])
    study = Study(settings, command, base, Path(config.hydra.sweep.dir))
    study.folder.mkdir(parents=True, exist_ok=True)
    with study.alone():
        study.read()
        _accept_command(study.folder)
        OmegaConf.save(config, study.folder / "multirun.yaml")
        at_a_time = settings.at_a_time(at_once(config.hydra.launcher))
        left = [trial for trial in study.trials if trial.state not in DONE]
        while batch := left[:at_a_time] or study.ask(at_a_time):
            left = left[at_a_time:]
            _run_trials(study, batch, config, compose, launch)
        say(study.verdict())


def _accept_command(folder: Path) -> None:
    """From now on `tlrun resume` gives this command: the search in the folder is the same one."""
    sweep = current_sweep()
    assert sweep is not None  # Hydra's sweeper runs where the command was given
    assert sweep.command is not None
    if not sweep.dry_run:
        add_command(folder, sweep.command)


def _run_trials(
    study: Study, batch: Sequence[Trial], config: DictConfig, compose: Compose, launch: Launch
) -> None:
    """The jobs of some trials together; what came of them is in search.json afterwards."""
    jobs = [(trial, overrides) for trial in batch for overrides in study.overrides(trial)]
    first = batch[0].number * len(study.command.seeds)
    for trial in batch:
        trial.jobs, trial.state = [], "running"
    for number, (trial, overrides) in enumerate(jobs, first):
        trial.jobs.append(_folder_of(compose(config, overrides), number))
    study.write()
    try:
        returns = launch([overrides for _, overrides in jobs], first)
    except Exception as error:  # its process died: the next settings may do better
        say(f"tlrun: error: {type(error).__name__}: {error}")
        returns = []
    for trial in batch:
        study.note(trial)
    study.write()
    for returned in returns:
        if isinstance(returned._return_value, Interrupted):  # in a launcher's process
            raise returned._return_value


def _folder_of(cfg: DictConfig, number: int) -> str:
    OmegaConf.set_readonly(cfg.hydra, False)
    OmegaConf.update(cfg, "hydra.job.num", number, force_add=True)
    return str(cfg.hydra.sweep.subdir)
