"""From overrides to a checked configuration. Imports no torch.

cfg = compose(["method=dann", "trainer.steps=100"])      # resolved, checked, self-contained
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from tlrun import machine
from tlrun.config import schema
from tlrun.config.build import plain
from tlrun.config.data_names import folder_title
from tlrun.config.domains import settle_domains
from tlrun.config.explain import explain
from tlrun.config.hashes import PATH_KEYS, command_hash, config_hash, job_hash
from tlrun.config.overrides import key_of, open_keys, override_list, parse_overrides
from tlrun.config.packaged import conf_dir
from tlrun.config.value_types import show
from tlrun.config.weight_files import is_weight_file
from tlrun.config.world_size import world_size
from tlrun.errors import ConfigError, TlrunError

NO_CHOICE = ("hydra/", "launcher", "search")  # groups that are no part of the experiment


def version_base() -> dict[str, str]:
    """Hydra 1.3 warns when `version_base` is not given, 1.4 when it is."""
    major, minor = (int(part) for part in hydra.__version__.split(".")[:2])
    return {"version_base": "1.3"} if (major, minor) < (1, 4) else {}


# ---- composing ------------------------------------------------------------------------------


def compose(
    overrides: Sequence[str] = (),
    *,
    config_dir: str | Path | None = None,
    config_name: str = "config",
    keep_hydra: bool = False,
) -> DictConfig:
    """The checked configuration for a list of overrides as typed on the command line.

    config_dir: a further folder of config groups (`--config-dir`). keep_hydra: leave the `hydra`
    node in, for the run folder's name. Raises ConfigError, one sentence.
    """
    overrides = open_keys(overrides)
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigError(f"--config-dir {config_dir}: there is no such folder")
        overrides.append(f"hydra.searchpath=['file://{Path(config_dir).absolute()}']")
    register_resolvers()
    try:
        with initialize_config_dir(config_dir=str(conf_dir()), **version_base()):
            cfg = hydra_compose(config_name, overrides=overrides, return_hydra_config=True)
        job = resolve_and_check(cfg, cfg.hydra)
    except Exception as error:
        if isinstance(error, TlrunError):
            raise
        explained = explain(error, search=[conf_dir(), *([Path(config_dir)] if config_dir else [])])
        if explained is None:
            raise
        raise explained from error
    if keep_hydra:
        with open_dict(job):
            job.hydra = cfg.hydra
    return job


def resolve_and_check(cfg: DictConfig, hydra_cfg: Any) -> DictConfig:
    """What Hydra composed and its `hydra` node -> the experiment alone: resolved, checked, with the
    names of the chosen groups."""
    job = _resolved(cfg)
    _make_paths_absolute(job)
    chosen = hydra_cfg.runtime.choices.items()
    job.choices = {group: option for group, option in chosen if not group.startswith(NO_CHOICE)}
    typed = override_list(hydra_cfg.overrides.task)
    _refuse_a_term_twice(typed)
    settle_budget(job, typed)
    settle_domains(job)
    validate(job)
    OmegaConf.set_struct(job, True)
    return job


def _refuse_a_term_twice(typed: Sequence[str]) -> None:
    """Hydra would take the second for the first: `terms` is a mapping by names."""
    for override in parse_overrides(word for word in typed if key_of(word) == "terms"):
        names = override.value()
        if isinstance(names, list) and len(set(map(str, names))) < len(names):
            raise ConfigError(f"terms={show([str(name) for name in names])}: a term is named once")


def _resolved(cfg: DictConfig) -> DictConfig:
    """Without the `hydra` node and without references. Raises ConfigError for a missing value."""
    tree: Any = OmegaConf.to_container(cfg)
    tree.pop("hydra", None)
    job = OmegaConf.create(tree)
    missing = sorted(OmegaConf.missing_keys(job))
    if missing:
        raise ConfigError(f"{missing[0]} has no value: give {missing[0]}=...")
    OmegaConf.resolve(job)
    return job


def _make_paths_absolute(job: DictConfig) -> None:
    """A run folder is used from other folders too."""
    job.data = _absolute_paths(plain(job.data))
    if job.get("init") not in (None, *schema.INITS):
        job.init = _absolute(str(job.init))
    weights = job.backbone.get("weights") if isinstance(job.get("backbone"), DictConfig) else None
    if is_weight_file(weights):
        job.backbone.weights = _absolute(weights)
    if job.get("logger", {}).get("folder") is not None:
        job.logger.folder = _absolute(str(job.logger.folder))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _absolute_paths(node: Any) -> Any:
    """The keys of the data that name paths, at any depth."""
    if not isinstance(node, Mapping):
        return node
    return {
        key: _absolute(value)
        if key in PATH_KEYS and isinstance(value, str)
        else _absolute_paths(value)
        for key, value in node.items()
    }


def settle_budget(cfg: DictConfig, typed: Sequence[str]) -> None:
    """Leave one of `trainer.steps` and `trainer.epochs`: the typed one, else epochs if given."""
    keys = {key_of(override) for override in typed}
    trainer = cfg.trainer
    if trainer.get("steps") is None or trainer.get("epochs") is None:
        return
    if {"trainer.steps", "trainer.epochs"} <= keys:
        raise ConfigError(
            "trainer.steps and trainer.epochs are two ways to say the same: give only one of them"
        )
    trainer["epochs" if "trainer.steps" in keys else "steps"] = None


def validate(cfg: DictConfig) -> None:
    """Types, ranges, unknown keys and impossible combinations. Raises ConfigError, one sentence."""
    tree: Any = plain(cfg)
    schema.check(tree)
    trainer = tree["trainer"]
    if trainer["steps"] is None and trainer["epochs"] is None:
        raise ConfigError("how long to train? give trainer.steps=2000 or trainer.epochs=10")
    parts = world_size(tree) * trainer["accumulate"]
    if trainer["batch_size"] % parts:
        nodes = "trainer.nodes x " if trainer["nodes"] > 1 else ""
        raise ConfigError(
            f"trainer.batch_size={trainer['batch_size']} must be a multiple of {nodes}"
            f"trainer.devices x trainer.accumulate = {parts}: try "
            f"{parts * max(1, trainer['batch_size'] // parts)}"
        )
    if trainer["precision"] == "fp16" and trainer["device"] == "cpu":
        raise ConfigError(
            "trainer.precision=fp16 needs a GPU: on a CPU choose trainer.precision=bf16"
        )
    for group in ("method", "data", "backbone"):
        if not tree[group]:
            raise ConfigError(f"no {group} is chosen: give {group}=..., see `tlrun list`")
        schema.check_like(
            tree[group], packaged_option(group, str(tree["choices"].get(group))), group
        )


@cache
def packaged_option(group: str, option: str) -> Any:
    """The option's own file, {} if it is not of the package: its values tell the types cheaply."""
    file = conf_dir() / group / f"{option}.yaml"
    return OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else {}


def register_resolvers() -> None:
    """Resolvers for the names of folders: tlrun.choice:GROUP, the data and the hashes above."""

    def choice(group: str, *, _root_: DictConfig) -> str:
        return str(_root_.hydra.runtime.choices[group]).replace("/", "-")

    def title_of_data(*, _root_: DictConfig) -> str:
        data: Any = OmegaConf.to_container(_root_.data, resolve=False)
        return folder_title({"data": data}, str(_root_.hydra.runtime.choices["data"]))

    def hash_of_config(*, _root_: DictConfig) -> str:
        try:
            return config_hash(resolve_and_check(_root_, _root_.hydra))[:6]
        except ConfigError:  # the job itself says what is wrong
            return "invalid"

    def hash_of_job(*, _root_: DictConfig) -> str:
        return job_hash(_root_)[:8]

    def hash_of_command(*, _root_: DictConfig) -> str:
        return command_hash(_root_)[:8]

    def parallel_jobs(jobs_per_gpu: int) -> int:
        return machine.parallel_jobs(jobs_per_gpu)

    OmegaConf.register_new_resolver("tlrun.parallel_jobs", parallel_jobs, replace=True)
    OmegaConf.register_new_resolver("tlrun.choice", choice, replace=True)
    OmegaConf.register_new_resolver("tlrun.data_title", title_of_data, replace=True)
    OmegaConf.register_new_resolver("tlrun.config_hash", hash_of_config, replace=True)
    OmegaConf.register_new_resolver("tlrun.job_hash", hash_of_job, replace=True)
    OmegaConf.register_new_resolver("tlrun.command_hash", hash_of_command, replace=True)
