"""Hydra's hook for `search=optuna`: plugins must lie in `hydra_plugins`. See tlrun/sweep/search.py.

Hydra imports this file at the start of every command, so it imports nothing heavy.
"""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

ConfigStore.instance().store(
    group="hydra/sweeper",
    name="tlrun_search",
    node={  # the settings are those of conf/search/
        "_target_": "hydra_plugins.tlrun_search.Search",
        "sampler": "tpe",
        "trials": 20,
        "seed": 0,
        "start": True,
        "parallel": "auto",
        "space": {},
    },
    provider="tlrun",
)


class Search(Sweeper):
    """settings: conf/search/optuna.yaml."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.launcher: Launcher | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from tlrun.sweep.search import Settings, run_search

        assert self.launcher is not None
        return run_search(
            Settings(**self.settings),
            config=self.config,
            compose=self.hydra_context.config_loader.load_sweep_config,
            launch=self.launcher.launch,
            arguments=arguments,
        )
