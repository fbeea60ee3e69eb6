"""What launchers and searches need: installed extras, and how a machine's cores are divided.

Imports no torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from tlrun.errors import ConfigError
from tlrun.machine import cores

NEEDS = {  # what is chosen: (module, extra)
    "launcher=joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "launcher=submitit": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    "launcher=submitit_local": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    "launcher=ray": ("hydra_plugins.hydra_ray_launcher", "ray"),
    "search=optuna": ("optuna", "optuna"),
    "search=random": ("optuna", "optuna"),
}
ALSO = {"hydra/launcher=joblib": "launcher=joblib", "hydra/launcher=ray": "launcher=ray"} | {
    "hydra/launcher=submitit_slurm": "launcher=submitit",
    "hydra/launcher=submitit_local": "launcher=submitit_local",
}


def check_extras(overrides: Sequence[str], multirun: bool) -> None:
    """Raise ConfigError where a chosen launcher or search is not installed, or needs `-m`."""
    for override in overrides:
        if override == "hydra.launcher.n_jobs=0":
            raise ConfigError("launcher.n_jobs=0: give a number of jobs, or -1 for one per core")
        chosen = ALSO.get(override, override)
        if chosen not in NEEDS:
            continue
        module, extra = NEEDS[chosen]
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f'{override} needs an extra: pip install "tlrun[{extra}]"')
        if not multirun:
            raise ConfigError(f"{override} is for sweeps: add -m, as in tlrun -m {override} ...")


def trains_here(overrides: Sequence[str], nodes: int) -> bool:
    """Whether the command's own process trains, and not one of a launcher.

    Raises ConfigError for a launcher whose jobs cannot have so many machines.
    """
    chosen = {ALSO.get(override, override) for override in overrides}
    others = sorted(chosen & {name for name in NEEDS if name.startswith("launcher=")})
    if nodes > 1 and others not in ([], ["launcher=submitit"]):
        raise ConfigError(
            f"{others[0]} starts its jobs on one machine, and trainer.nodes={nodes}: "
            "launcher=submitit (each job asks Slurm for its nodes), or no launcher and the same "
            "command on each node"
        )
    return not others


def at_once(launcher: Any) -> int:
    """How many jobs a launcher (its config) runs at once, as far as it says."""
    jobs = launcher.get("n_jobs")
    if jobs is not None:
        return int(jobs) if int(jobs) > 0 else max(1, cores() + 1 + int(jobs))
    return int(launcher.get("array_parallelism") or 1)


def threads_of_job(launcher: Any) -> int | None:
    """What trainer.threads=auto means in a job of this launcher; None: all that it sees."""
    if launcher.get("n_jobs") is not None:
        return max(1, cores() // at_once(launcher))
    if launcher.get("cpus_per_task") is not None:
        return int(launcher.cpus_per_task)
    local = str(launcher.get("_target_")).endswith("submitit_launcher.LocalLauncher")
    return 1 if local else None  # it starts all of its jobs together
