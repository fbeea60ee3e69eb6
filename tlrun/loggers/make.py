"""The logger that `logger=` names, imported only when chosen."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tlrun.errors import ConfigError, TlrunError
from tlrun.loggers.base import Logger, Row, flat_numbers
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)

PACKAGES = {  # name -> what must be there to import
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}


def check_installed(name: str) -> None:
    """Raises ConfigError, naming what to install, if the package of a logger is missing."""
    for package in PACKAGES.get(name, ()):
        if importlib.util.find_spec(package) is None:
            raise missing(name)


def missing(name: str) -> ConfigError:
    return ConfigError(
        f'logger={name} needs a package that is not installed: pip install "tlrun[{name}]" '
        f"(pip install {' '.join(PACKAGES[name])})"
    )


def make_logger(cfg: Mapping[str, Any], run_dir: RunDir, step: int = 0) -> Logger:
    """cfg: the group `logger`. step: where a resumed run goes on; later events are dropped.

    Raises ConfigError, naming what to install, if the package is missing.
    """
    name = str(cfg["name"])
    if name == "none":
        return Logger()
    try:
        if name == "tensorboard":
            from tlrun.loggers.tensorboard import TensorBoard

            return Guarded(name, TensorBoard(run_dir, step))
        if name == "wandb":
            from tlrun.loggers.wandb import WeightsAndBiases

            return Guarded(name, WeightsAndBiases(cfg, run_dir))
        from tlrun.loggers.mlflow import MLflow

        return Guarded(name, MLflow(cfg, run_dir))
    except ImportError as error:
        raise missing(name) from error


def log_summary(cfg: Mapping[str, Any], run_dir: RunDir, summary: Mapping[str, Any]) -> None:
    """Add the closing figures to what the logger holds of a run."""
    if cfg["name"] in ("none", "tensorboard"):
        return
    try:
        logger = make_logger(cfg, run_dir, int(summary["steps"]))
    except TlrunError as error:  # the run is complete: that must not be lost
        log.warning("the closing figures did not reach the logger: %s", error)
        return
    logger.summary(dict(flat_numbers(summary)))
    logger.close()


class Guarded(Logger):
    """A logger whose failure (a full disk, no network) does not end the run."""

    def __init__(self, name: str, inner: Logger) -> None:
        self.name, self.inner = name, inner

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            what = " ".join(str(error).split())[:300]
            log.warning(
                "logger=%s failed (%s: %s); the run goes on without it, metrics.jsonl has all rows",
                self.name,
                type(error).__name__,
                what,
            )
            self.inner = Logger()

    def __call__(self, row: Row) -> None:
        with self._guard():
            self.inner(row)

    def summary(self, figures: Mapping[str, float]) -> None:
        with self._guard():
            self.inner.summary(figures)

    def close(self) -> None:
        with self._guard():
            self.inner.close()
