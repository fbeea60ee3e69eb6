"""`tlrun reproduce RUN_DIR`: run a saved config again in a new folder and compare.

Equal means: the same rows of metrics.jsonl but for "time", the same test figures and bit-equal
weights; on another machine, closing figures within a tolerance (tlrun/experiment/compare.py).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from tlrun.config.build import plain
from tlrun.config.saved import load_config
from tlrun.config.saved_code import composed
from tlrun.errors import ConfigError, Interrupted, TlrunError
from tlrun.experiment import start
from tlrun.experiment.baselines import is_baseline
from tlrun.experiment.compare import Comparison, compare_runs
from tlrun.run_folder.run_dir import RunDir, is_run_dir, is_sweep, runs_in

log = logging.getLogger(__name__)

SUFFIX = "_reproduced"


def reproduce(path: Path, overrides: Sequence[str] = (), tolerance: float | None = None) -> int:
    """Run RUN_DIR's config (with overrides) again and print what differs: 0 if nothing, else 1.

    tolerance: of the closing figures, on any machine; None = equal bits, or on another machine
    compare.TOLERANCE. Of a sweep folder: every completed job.
    """
    if tolerance is not None and not 0 <= tolerance < 1:
        raise ConfigError(f"--tolerance {tolerance:g}: give a share of at least 0 and below 1")
    path = Path(os.path.abspath(path))
    if not is_run_dir(path) and path.is_dir() and runs_in(path):
        return _reproduce_sweep(path, overrides, tolerance)
    return 0 if _reproduce(RunDir.open(path), overrides, tolerance).equal else 1


def _reproduce(old: RunDir, overrides: Sequence[str], tolerance: float | None) -> Comparison:
    status = old.read_status()
    if status.get("state") != "completed":
        raise ConfigError(f"{old.path} is not complete; finish it first: tlrun resume {old.path}")
    last = old.checkpoints / "last.pt"
    for file, content in ((last, "weights"), (old.metrics, "figures"), (old.summary, "figures")):
        if not file.is_file():
            name = file.relative_to(old.path)
            raise ConfigError(f"{old.path} has no {name} left to compare {content} with")
    cfg = load_config(old.config, list(overrides))
    if cfg.dry_run:  # which leaves nothing to compare
        raise ConfigError("reproduce trains all of it again: dry_run=false")
    OmegaConf.set_struct(cfg, False)
    cfg.baseline = False
    if not any(word.startswith("logger") for word in overrides):
        cfg.logger = {"name": "none"}  # no second run among those that are being compared there
    compare_runs(old, old)  # what cannot be read is told now, not when all is trained again
    new = RunDir.create(folder_beside(old))
    OmegaConf.save(cfg, new.config)
    OmegaConf.save(OmegaConf.create(list(overrides)), new.overrides)
    composed_now = composed(plain(cfg))  # what the overrides name was typed now
    with start.nothing_left_if_refused(new), composed_now:
        start.run_experiment(new)
    comparison = compare_runs(old, new, tolerance)
    if not comparison.exact and (longer := status.get("resumed_with")):
        comparison.notes.append(
            f"the run was resumed with {' '.join(longer)}; here it is trained in one go"
        )
    print("\n".join([*comparison.lines(), f"  before: {old.path}", f"  again:  {new.path}"]))
    return comparison


def folder_beside(old: RunDir) -> Path:
    """Beside the run; of a job, in a folder beside its sweep, whose leaderboard counts jobs. A
    baseline is taken out of the run that it lies in: RUN_baseline."""
    run = run_of(old)
    name, folder = "_".join((run.name, *old.path.relative_to(run).parts)), run.parent
    job = is_sweep(folder) or (folder / "leaderboard.csv").is_file()
    if job or "job" in RunDir(run).read_status():
        return folder.with_name(folder.name + SUFFIX) / name
    return folder / (name + SUFFIX)


def run_of(run: RunDir) -> Path:
    """The folder of the run that a baseline belongs to; of any other run its own."""
    if not is_baseline(run):
        return run.path
    parents = run.path.parents[:2]
    return next((folder for folder in parents if is_run_dir(folder)), run.path)


def _reproduce_sweep(path: Path, overrides: Sequence[str], tolerance: float | None) -> int:
    """Every completed job, one after the other. 0 if all of them were reproduced."""
    counts = {"exactly": 0, "within the tolerance": 0, "not": 0, "left out (not complete)": 0}
    for job in map(RunDir, runs_in(path)):
        if job.read_status().get("state") != "completed":
            counts["left out (not complete)"] += 1
            continue
        try:
            comparison = _reproduce(job, overrides, tolerance)
        except Interrupted:
            raise
        except TlrunError as error:
            print(f"{job.path}: {error}")
            counts["not"] += 1
            continue
        within = "within the tolerance" if comparison.equal else "not"
        counts["exactly" if comparison.exact else within] += 1
    done = sum(counts.values()) - counts["left out (not complete)"]
    if not done:
        raise ConfigError(f"no job of {path} is complete; finish it first: tlrun resume {path}")
    outcome = ", ".join(f"{number} {kind}" for kind, number in counts.items() if number)
    print(f"jobs of {path} reproduced: {outcome}")
    return 1 if counts["not"] else 0
