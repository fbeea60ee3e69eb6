"""Models that are trained for comparison, inside the folder of the run that they belong to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tlrun.config.build import plain
from tlrun.config.hashes import settings
from tlrun.config.packaged import conf_dir
from tlrun.config.saved import load_config
from tlrun.errors import ConfigError, Interrupted
from tlrun.experiment.session import Session
from tlrun.experiment.wall_time import with_part
from tlrun.files.atomic import write_atomic
from tlrun.run_folder.record import recorded
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)

BASELINE = "baseline"  # the folder of one, or of all of them, inside a run folder
Execute = Callable[[Path], Any]


def is_baseline(run_dir: RunDir) -> bool:
    """Whether it is only there for comparison: its figures stand on the page of its run."""
    return BASELINE in (run_dir.path.name, run_dir.path.parent.name)


def has_baseline(asked: bool | str, session: Session, cfg: DictConfig) -> bool:
    """Whether models are trained for comparison; `auto` where the method names any.

    A run that is its own baseline (`source_only`) has none. Raises ConfigError where they were
    asked for (true) and the method names none.
    """
    named = session.method.baselines(session.data) if asked else {}
    if asked is True and not named:
        raise ConfigError("there is no baseline to train beside this method: baseline=false")
    own = settings(plain(cfg))
    return any(settings(plain(with_changes(cfg, it))) != own for it in named.values())


def train_baselines(
    session: Session,
    cfg: DictConfig,
    summary: dict[str, Any],
    execute: Execute,
    into: RunDir | None = None,
) -> dict[str, Any]:
    """Train what the method names as its baselines; the summary with what the comparison says.

    execute: trains, tests and reports a run folder. into: another folder for what is written.
    """
    run_dir, into = session.run_dir, into or session.run_dir
    summaries = {}
    for name, changes in session.method.baselines(session.data).items():
        baseline = RunDir(run_dir.path / name)
        try:
            train_baseline(baseline, cfg, changes, execute)
        except Interrupted as stop:  # to resume the baseline alone would leave the run without page
            how = f"go on with: tlrun resume {run_dir.path}"
            raise Interrupted(f"stopped in the {name}; {how}", stop.exit_code) from None
        summaries[name] = baseline.read_json(baseline.summary)
    summary = session.evaluator.compare(into, summary, summaries)
    # what they took in all sittings, by their own word; what was trained elsewhere, nothing
    trained = [s for s in summaries.values() if "taken_from" not in s]
    seconds = [(s.get("wall_seconds") or {}).get("total", 0.0) for s in trained]
    summary = with_part(summary, "baseline", sum(seconds))
    summary["files"] = into.left()
    into.write_json(into.summary, summary)
    return summary


def train_baseline(
    baseline: RunDir, cfg: DictConfig, changes: Mapping[str, Any], execute: Execute
) -> None:
    """Train the config with `changes`, with the same net, augmentation and steps."""
    if baseline.read_status().get("state") == "completed":
        had = load_config(baseline.config).trainer
        if (had.steps, had.epochs) == (cfg.trainer.steps, cfg.trainer.epochs):
            return  # else the run was resumed for longer: as many steps for both
    other = with_changes(cfg, changes)
    baseline.path.mkdir(parents=True, exist_ok=True)
    write_atomic(baseline.config, OmegaConf.to_yaml(other))
    log.info(
        "for comparison: %s with as many steps in %s (baseline=false leaves it out)",
        other.choices.method,
        baseline.path,
    )
    with recorded(baseline):
        execute(baseline.path)


def with_changes(cfg: DictConfig, changes: Mapping[str, Any]) -> DictConfig:
    """The configuration of a baseline; a group's option by its name, with its defaults."""
    other = cfg.copy()
    OmegaConf.set_struct(other, False)
    other.baseline = False
    for key, value in changes.items():
        option = conf_dir() / key / f"{value}.yaml"
        if option.is_file():
            other.choices[key], value = value, OmegaConf.load(option)
        OmegaConf.update(other, key, value, merge=False)
    return other
