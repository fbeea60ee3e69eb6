"""What names an experiment, a job and a sweep: hashes of configs and commands. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tlrun.config.build import plain
from tlrun.config.overrides import key_of, override_list

PATH_KEYS = {"root", "roots", "list", "path", "paths", "file", "files", "test", "cache"}
NOT_IN_HASH = ("logger", "report", "baseline", "tags", "choices", "dry_run", "sweep")
NOT_IN_HASH_OF_JOB = ("report", "tags", "choices", "dry_run", "sweep", "hydra")
NOT_IN_HASH_OF_TRAINER = (
    "device",
    "devices",
    "nodes",
    "threads",
    "workers",
    "features",
    "features_gb",
    "features_cache_gb",
    "precision",
    "log_every",
)
NOT_REPEATED = (
    "seed",
    "hydra",
    "search",
    "launcher",
    "sweep.",
    "evaluate.target_test",
)


def config_hash(cfg: DictConfig | Mapping[str, Any]) -> str:
    """12 hex digits that two configs share iff they mean the same experiment.

    Left out: where the data lie, devices, nodes, threads, loggers, cadence of logs, report,
    baseline, tags.
    """
    tree = settings(plain(cfg))
    trainer = tree.get("trainer", {})
    tree["trainer"] = {k: v for k, v in trainer.items() if k not in NOT_IN_HASH_OF_TRAINER}
    tree["data"] = _without_paths(tree.get("data", {}))
    return _hash(tree)


def settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what does not change the figures, all else as it is."""
    return {key: value for key, value in tree.items() if key not in (*NOT_IN_HASH, "hydra")}


def job_hash(cfg: DictConfig) -> str:
    """Names a job of a sweep, from its composed config: two jobs that were typed apart differ.

    Unlike `config_hash` it counts devices, nodes, precision and paths (as typed: a moved project
    finds its sweeps again), since these may be what is swept. An invalid config has a hash too.
    """
    tree: Any = OmegaConf.to_container(cfg, resolve=False)
    tree = OmegaConf.create({k: v for k, v in tree.items() if k not in NOT_IN_HASH_OF_JOB})
    with suppress(OmegaConfBaseException):  # the job itself says what is wrong
        OmegaConf.resolve(tree)
    return _hash(OmegaConf.to_container(tree, resolve=False))


def command_hash(cfg: DictConfig) -> str:
    """Names a sweep: the same for the same overrides in any order, however they are run.

    cfg: as composed, with its `hydra` node. Of one key given twice the last word counts.
    """
    typed = [*override_list(cfg.hydra.overrides.hydra), *override_list(cfg.hydra.overrides.task)]
    naming = sorted((override for override in typed if names_jobs(key_of(override))), key=key_of)
    folder = config_dir_of(cfg.hydra)
    return _hash([naming, folder and os.path.relpath(folder), cfg.hydra.job.config_name])


def names_jobs(key: str) -> bool:
    """Not so: where a sweep lies, which launcher runs it, how long a search goes on, its pages."""
    if key in ("report", "launcher", "hydra.sweeper.trials", "hydra.sweeper.parallel"):
        return False
    of_hydra = key.startswith(("hydra.sweeper", "hydra/sweeper", "hydra.searchpath"))
    return of_hydra or not key.startswith(("hydra.", "hydra/", "sweep."))


def config_dir_of(hydra_cfg: Any) -> str | None:
    """The folder given by --config-dir."""
    sources = hydra_cfg.runtime.config_sources
    return next((s.path for s in sources if s.provider == "command-line"), None)


def _hash(node: Any) -> str:
    text = json.dumps(_numbers_alike(node), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _without_paths(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {k: _without_paths(v) for k, v in node.items() if k not in PATH_KEYS}
    return [_without_paths(v) for v in node] if isinstance(node, list) else node


def _numbers_alike(node: Any) -> Any:
    """1.0 and 1 are the same learning rate."""
    if isinstance(node, Mapping):
        return {str(k): _numbers_alike(v) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [_numbers_alike(v) for v in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node


def fresh_seeds_command(overrides: Sequence[str], used: Iterable[int]) -> str:
    """The command that runs a trial's setting with three seeds that its search did not use.

    overrides: of a job of the trial. Target test is for then, so it is not left out.
    """
    typed = [word for word in overrides if not key_of(word).startswith(NOT_REPEATED)]
    first = max(used, default=-1) + 1
    return shlex.join(["tlrun", "-m", *typed, f"seed={first},{first + 1},{first + 2}"])
