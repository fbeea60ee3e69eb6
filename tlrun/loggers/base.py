"""Further places for the rows of metrics.jsonl. The file itself is always written.

Each is optional and imported only when chosen: `logger=tensorboard`, `wandb` or `mlflow`. A logger
that fails on the way says so once, and the run goes on without it.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tlrun.errors import ConfigError, TlrunError
from tlrun.run_folder.run_dir import RunDir, is_sweep

log = logging.getLogger(__name__)

Row = Mapping[str, Any]
PACKAGES = {  # name -> what must be there to import
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}


class Logger:
    """Takes the rows of a run. This one does nothing with them.

    summary: flat figures of summary.json, once, after training. close: no row comes after it.
    """

    def __call__(self, row: Row) -> None:
        """Write a row of metrics.jsonl."""

    def summary(self, figures: Mapping[str, float]) -> None:
        """Write the closing figures."""

    def close(self) -> None:
        """Write out what is held back."""


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


class TensorBoard(Logger):
    """Events in RUN_DIR/tensorboard."""

    def __init__(self, run_dir: RunDir, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run_dir.path / "tensorboard"), purge_step=step or None)

    def __call__(self, row: Row) -> None:
        for key, value in numbers(row).items():
            self.writer.add_scalar(key, value, row["step"])
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


# ---- what they share ------------------------------------------------------------------------


def numbers(row: Row) -> dict[str, float]:
    """The figures of a row: "train/loss/domain", "eval/source_val/accuracy"."""
    return {
        f"{row['split']}/{key}": value
        for key, value in row.items()
        if isinstance(value, float | int) and key not in ("step", "time")
    }


def flat_numbers(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """("selected/target_test/accuracy", 0.93) of a nested summary."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat_numbers(value, f"{prefix}{key}/")
        elif isinstance(value, float | int) and not isinstance(value, bool):
            yield f"{prefix}{key}", value


def title(run_dir: RunDir) -> str:
    """How a run is called there: by its folder; a baseline with that of its run."""
    path = Path(run_dir.path).absolute()
    inside = (path.parent / "config.yaml").is_file()
    return f"{path.parent.name}/{path.name}" if inside else path.name


def sweep_of(run_dir: RunDir) -> str | None:
    """The name of the sweep that a run is a job of."""
    folder = Path(run_dir.path).absolute().parent
    return folder.name if is_sweep(folder) else None
