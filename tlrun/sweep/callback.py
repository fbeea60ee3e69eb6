"""Hydra's hooks before a run and a sweep, named under hydra.callbacks in conf/config.yaml."""

from __future__ import annotations

import sys
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, flag_override

from tlrun.run_folder.run_dir import HYDRA, standing
from tlrun.sweep.folder import open_sweep
from tlrun.sweep.progress import start_progress
from tlrun.sweep.slurm import ask_the_queue
from tlrun.sweep.state import current_sweep


class SweepCallback(Callback):
    """Opens the sweep's folder and its bar; what goes wrong there ends the command."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Of a single run, before Hydra makes its folder, which may be another run's already: what
        Hydra would write there, the run writes into the folder that it gets."""
        if (state := current_sweep()) is not None:
            state.stood = standing(config.hydra.run.dir)
        if config.hydra.output_subdir == HYDRA:
            with flag_override(config, ["struct", "readonly"], [False, False]):
                config.hydra.output_subdir = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        state = current_sweep()
        assert state is not None  # `cli.train.train` made it around Hydra
        try:
            open_sweep(config, state)
            if str(config.hydra.launcher.get("_target_")).endswith(".SlurmLauncher"):
                ask_the_queue()
            state.progress = start_progress(config)
        except Exception as error:  # Hydra would warn and go on
            state.problem = error
            sys.exit(1)
