"""Further places for the rows of metrics.jsonl. The file itself is always written.

Each is optional and imported only when chosen: `logger=tensorboard`, `wandb` or `mlflow`. A logger
that fails on the way says so once, and the run goes on without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tlrun.run_folder.run_dir import RunDir, is_sweep

Row = Mapping[str, Any]


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
