"""sweep.yaml: the commands of a sweep's folder, checked before one is given again (security.md).

Hydra's own keys can name any class, any file and any shell command (`hydra.launcher._target_`,
`hydra.searchpath`, submitit's `setup`), so of these only the harmless ones are taken from a file;
the others must be typed. What the command composes is checked as every configuration of a file is.
Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from tlrun.config import trust
from tlrun.config.hashes import command_hash, config_dir_of
from tlrun.config.overrides import key_of, override_list
from tlrun.config.packaged import conf_dir
from tlrun.config.value_types import matches
from tlrun.errors import ConfigError
from tlrun.files.atomic import write_atomic
from tlrun.files.yaml_file import read_yaml
from tlrun.run_folder.json_file import Damaged
from tlrun.run_folder.locks import locked
from tlrun.run_folder.run_dir import COMMANDS
from tlrun.sweep.launchers import ALSO

NOT_SAVED = ("hydra.mode", "hydra.sweep.dir", "sweep.new")  # keys of a command
SWEEPER = ("sampler", "trials", "seed", "start", "parallel", "max_batch_size")
LAUNCHER = (  # numbers and names; not setup, python, srun_args, additional_parameters, ...
    *("n_jobs", "verbose", "timeout_min", "cpus_per_task", "gpus_per_node", "gpus_per_task"),
    *("mem_gb", "mem_per_gpu", "mem_per_cpu", "nodes", "tasks_per_node", "array_parallelism"),
    *("signal_delay_s", "max_num_timeout", "partition", "qos", "account", "constraint", "gres"),
    *("comment", "exclude", "exclusive", "name"),
)
HYDRA = {
    *("launcher", "search", "search/space", "hydra/launcher", "hydra/sweeper"),
    *("hydra.output_subdir", "hydra.verbose", "hydra.sweep.subdir", "hydra.sweep.dir"),
    *(f"hydra.sweeper.{key}" for key in SWEEPER),
    *(f"hydra.launcher.{key}" for key in LAUNCHER),
}
RESOLVER = re.compile(r"\$\{\s*(?:[^{}:]*\$|(?!tlrun\.|now\b|hydra\b)[^{}:]*:)")


@dataclass(frozen=True)
class SweepCommand:
    """A command as it was typed. folder: the working folder. Its key in the file is its hash."""

    key: str
    overrides: list[str]
    config_dir: str | None
    config_name: str
    folder: str


def command_of(config: DictConfig) -> SweepCommand:
    """The command of a sweep, from its config with the `hydra` node, as Hydra composed it."""
    overrides = config.hydra.overrides
    typed = [*override_list(overrides.hydra), *override_list(overrides.task)]
    return SweepCommand(
        key=command_hash(config),
        overrides=[override for override in typed if key_of(override) not in NOT_SAVED],
        config_dir=config_dir_of(config.hydra),
        config_name=config.hydra.job.config_name,
        folder=str(Path.cwd()),
    )


def add_command(folder: Path, command: SweepCommand) -> None:
    """Write the command into sweep.yaml. A folder that the user named may hold several."""
    entry = asdict(command)
    with locked(folder, wait=True):
        commands = {**saved_commands(folder), entry.pop("key"): entry}
        text = OmegaConf.to_yaml(OmegaConf.create({"commands": commands}))
        write_atomic(folder / COMMANDS, text)


def saved_commands(folder: Path) -> dict[str, Any]:
    """{key: the other fields of a SweepCommand}, not checked yet. Raises Damaged."""
    file = folder / COMMANDS
    tree: Any = read_yaml(file) if file.is_file() else {}
    commands = tree.get("commands", {}) if isinstance(tree, dict) else tree
    if not matches(commands, dict[str, dict]):
        raise Damaged(f"{file} is damaged: it should hold the sweep's commands; move it away")
    return dict(commands)


# ---- checks -------------------------------------------------------------------------------------


def checked_command(key: str, saved: dict[str, Any], folder: Path) -> SweepCommand:
    """A command that `add_command` wrote; its overrides are checked by `check_overrides`.

    folder: the sweep's. Raises ConfigError for anything that could run code, or read configuration
    from where this command does not say.
    """
    origin = f"{folder / 'sweep.yaml'}"
    kinds = {"overrides": list, "config_dir": str | None, "config_name": str, "folder": str}
    if not all(matches(saved.get(name, 0), kind) for name, kind in kinds.items()):
        raise ConfigError(f"{origin} is damaged: a command has {', '.join(kinds)}")
    if saved["config_dir"] and trust.current().config_dir is None:
        raise ConfigError(
            f"the sweep was started with --config-dir {saved['config_dir']}, and files there may "
            "name any code: if it is yours, give it again: "
            f"tlrun resume {folder} --config-dir {saved['config_dir']}"
        )
    if not re.fullmatch(r"\w[\w/-]*", saved["config_name"]):
        raise ConfigError(f"{origin}: config_name {saved['config_name']!r} is no name")
    return SweepCommand(key, **{name: saved[name] for name in kinds})


def check_overrides(overrides: list[Any], folder: Path) -> None:
    """Raise ConfigError for a saved override that could run code before the job is checked."""
    for saved in overrides:
        if why := _refused(saved):
            raise ConfigError(
                f"{folder / 'sweep.yaml'} holds {str(saved)[:80]!r}, {why}: it is not taken from a "
                "file; if the sweep is yours, give its command again instead of resume"
            )


def _refused(saved: Any) -> str:
    """Why an override of a saved command is not given again; "" if it is harmless."""
    if not isinstance(saved, str) or saved.startswith("-"):
        return "which is no key=value"
    if not saved.isprintable():
        return "with a control character"
    try:
        override = OverridesParser.create().parse_overrides([saved])[0]
    except Exception:
        return "which Hydra cannot read"
    if RESOLVER.search(saved):
        return "which reads something else than the experiment"
    key = override.key_or_group
    of_hydra = key.startswith(("hydra", "launcher")) or key.partition("/")[0] in ("search",)
    if of_hydra and key not in HYDRA:
        return "a setting of Hydra that can run code or read other files"
    if override.package and (key, override.package) != ("search/space", "space"):
        return "which puts a group into another place"
    values = list(_values(override))
    if key == "hydra/launcher" and any(f"{key}={v}" not in (*ALSO, f"{key}=basic") for v in values):
        return "a launcher that tlrun does not know"
    if key == "hydra/sweeper" and values != ["tlrun_search"]:
        return "a sweeper that tlrun does not know"
    is_file = (conf_dir() / key).is_dir() or key.startswith("hydra.sweep.")
    if is_file and any(
        Path(part).is_absolute() or ".." in Path(part).parts
        for value in values
        for part in [value.split("=")[-1]]
    ):
        return "a place outside of its folder"
    return ""


def _values(override: Override) -> Iterator[str]:
    """Every value of an override, as text."""
    if override.is_sweep_override() and override.is_discrete_sweep():
        yield from map(str, override.sweep_string_iterator())
        return
    value = override.value()
    yield from map(str, value if isinstance(value, list) else [value])
