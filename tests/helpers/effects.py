"""Runs from configuration to summary, as the command makes them, short enough to be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tlrun.config.compose import compose
from tlrun.experiment.start import create_run_folder, run_experiment

SEED = "seed=1"  # of the fine-tuned runs, as of the source model that they start from
SHORT = (
    "select=last",
    "backbone.width=0.25",
    "optimizer.lr=3e-3",
    "trainer.threads=1",
    "trainer.device=cpu",
    "trainer.precision=fp32",
    "trainer.features_cache_gb=0",
    "baseline=false",
    "report=none",
    "logger=none",
)


def summary_of(folder: Path, *words: str, short: tuple[str, ...] = SHORT) -> dict[str, Any]:
    """What `tlrun WORDS` writes to the summary.json of the run in `folder`."""
    command = [*short, *words]
    return run_experiment(create_run_folder(compose(command), folder, command))


def figure(summary: dict[str, Any], key: str = "target_test/accuracy") -> float:
    """Of the selected checkpoint, which is the last."""
    return float(summary["selected"][key])


def steps(count: int) -> tuple[str, str]:
    """So many, and one evaluation at their end."""
    return f"trainer.steps={count}", f"trainer.eval_every={count}"
