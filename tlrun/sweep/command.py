"""A command that was saved in sweep.yaml, checked before it is given again (docs/security.md).

Hydra's own keys can name any class, any file and any shell command (`hydra.launcher._target_`,
`hydra.searchpath`, submitit's `setup`), so of these only the harmless ones are taken from a file;
the others must be typed. What the command composes is checked as every configuration of a file is.
Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from tlrun.config import trust
from tlrun.config.packaged import conf_dir
from tlrun.errors import ConfigError
from tlrun.sweep.launchers import ALSO

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


def checked_command(saved: Any, folder: Path) -> dict[str, Any]:
    """{"overrides", "config_dir", "config_name", "folder"} as `sweep.jobs.remember` wrote them.

    folder: the sweep's. Raises ConfigError for anything that could run code, or read configuration
    from where this command does not say.
    """
    origin = f"{folder / 'sweep.yaml'}"
    kinds = {"overrides": list, "config_dir": str | None, "config_name": str, "folder": str}
    if not isinstance(saved, dict) or any(
        not isinstance(saved.get(key), kind) for key, kind in kinds.items()
    ):
        raise ConfigError(f"{origin} is damaged: a command has {', '.join(kinds)}")
    if saved["config_dir"] and trust.current().config_dir is None:
        raise ConfigError(
            f"the sweep was started with --config-dir {saved['config_dir']}, and files there may "
            "name any code: if it is yours, give it again: "
            f"tlrun resume {folder} --config-dir {saved['config_dir']}"
        )
    if not re.fullmatch(r"\w[\w/-]*", saved["config_name"]):
        raise ConfigError(f"{origin}: config_name {saved['config_name']!r} is no name")
    return saved


def check_words(words: list[Any], folder: Path) -> None:
    """Raise ConfigError for a saved override that could run code before the job is checked."""
    for word in words:
        if why := _refused(word):
            raise ConfigError(
                f"{folder / 'sweep.yaml'} holds {str(word)[:80]!r}, {why}: it is not taken from a "
                "file; if the sweep is yours, give its command again instead of resume"
            )


def _refused(word: Any) -> str:
    """Why a word of a saved command is not given again; "" if it is harmless."""
    if not isinstance(word, str) or word.startswith("-"):
        return "which is no key=value"
    if not word.isprintable():
        return "with a control character"
    try:
        override = OverridesParser.create().parse_overrides([word])[0]
    except Exception:
        return "which Hydra cannot read"
    if RESOLVER.search(word):
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
