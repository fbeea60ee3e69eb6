"""Transfer-learning experiments: one source -> target pair, one backbone, one method.

from tlrun import load, run

summary = run(["method=dann", "data=digits_digitsm"])    # what the command `tlrun` does
model = load(RUN_DIR)                                     # an nn.Module with its preprocessing
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__version__ = "0.1.0"
__all__ = ["__version__", "load", "run"]


def run(
    overrides: Sequence[str] = (), *, config_dir: str | PathLike[str] | None = None
) -> dict[str, Any]:
    """Train and evaluate as `tlrun <overrides>` does, in this process; returns its summary."""
    from tlrun.cli.train import run_overrides

    return run_overrides(overrides, config_dir=None if config_dir is None else fspath(config_dir))


def load(
    run_dir: str | PathLike[str], checkpoint: str = "selected", *, trust: Sequence[str] = ()
) -> nn.Module:
    """The trained model of a run folder: images (B, C, H, W) -> logits (B, K).

    trust: modules of your own that the run was trained with, as in ["my_methods"].
    """
    from tlrun.inference.predict import load as load_model

    return load_model(fspath(run_dir), checkpoint, trust=trust)
