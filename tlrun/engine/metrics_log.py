"""What a run writes down while it trains: the rows of metrics.jsonl, and what they decide.

Scalars of a step stay on the device until a row is written: there is no `.item()` in the loop.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tlrun.engine.distributed import Process
from tlrun.errors import RunError
from tlrun.evaluate.figures import ACCURACY, CLUSTERS, IOU, kind_of, with_unit
from tlrun.evaluate.selection import score
from tlrun.loggers.base import Logger
from tlrun.loggers.make import make_logger
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)

Row = dict[str, Any]
SAID = (ACCURACY, CLUSTERS, IOU)  # kinds of figures that the line of an evaluation gives


@dataclass
class Logged:
    """A scalar of one step."""

    step: int
    name: str
    value: Tensor


class MetricsLog:
    """Train rows are means over the window since the last one; eval rows feed the selection.

    rules: the selection rules that keep a checkpoint, the deciding one first. Several processes
    call the same methods at the same steps; the first one writes.
    """

    def __init__(
        self, run_dir: RunDir, process: Process, device: torch.device, rules: list[str]
    ) -> None:
        self.run_dir, self.process, self.device = run_dir, process, device
        self.rules = rules
        self.window: list[Logged] = []
        self.rows: list[Row] = []  # every eval row so far: selection reads nothing else
        self._logger = Logger()

    def open(self, logger: Mapping[str, Any], saved: Mapping[str, Any] | None) -> None:
        """Begin, or go on from a checkpoint: rows after it are cut off."""
        if self.process.first:
            self.run_dir.truncate_metrics(int(saved["metrics_size"]) if saved else 0)
            self._logger = make_logger(logger, self.run_dir, int(saved["step"]) if saved else 0)
        self.process.wait()
        if saved is None:
            return
        window = saved["by_process"][self.process.rank]["window"]
        self.window = [Logged(step, name, value.to(self.device)) for step, name, value in window]
        self.rows = [row for row in self.run_dir.read_metrics() if row.get("split") == "eval"]

    def close(self) -> None:
        """After the last row of this process, however training ends: the logger writes out."""
        self._logger.close()
        self._logger = Logger()

    def state(self) -> list[tuple[int, str, Tensor]]:
        """The open window, for a checkpoint."""
        return [(entry.step, entry.name, entry.value.cpu()) for entry in self.window]

    def add(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Scalars of a step, for the next train row."""
        self.window += [Logged(step, name, value) for name, value in values.items()]

    def _read(self, entries: list[Logged]) -> Tensor:
        """Their values on the CPU: one transfer."""
        if not entries:
            return torch.zeros(0, dtype=torch.float64)
        return torch.stack([entry.value for entry in entries]).double().cpu()

    def check_finite(self) -> None:
        """Raise RunError at the first loss that is not finite, before anything is saved."""
        losses = [entry for entry in self.window if entry.name.startswith("loss/")]
        bad = (~torch.isfinite(self._read(losses))).nonzero().flatten()
        if not self.process.max(len(bad), self.device):
            return
        entry = losses[int(bad[0]) if len(bad) else -1]
        last = self.run_dir.checkpoints / "last.pt"
        kept = f"the checkpoint {last} is kept" if last.exists() else "none is saved yet"
        raise RunError(
            f"the loss '{entry.name.removeprefix('loss/')}' is {float(entry.value)} at step "
            f"{entry.step} (learning rate too high?); {kept}; try a smaller optimizer.lr, "
            "trainer.grad_clip=1 or trainer.precision=fp32"
        )

    def train_row(self, about: Row, after: Row) -> dict[str, str]:
        """Write the means of the window between `about` and `after`; returns the losses as text."""
        values = self.process.mean(self._read(self.window).to(self.device))
        by_name: dict[str, list[float]] = {}
        for entry, value in zip(self.window, values.tolist(), strict=True):
            by_name.setdefault(entry.name, []).append(value)
        self.window = []
        means = {name: sum(numbers) / len(numbers) for name, numbers in by_name.items()}
        self._write({**about, "split": "train", **means, **after})
        losses = {name: mean for name, mean in means.items() if name.startswith("loss/")}
        return {name.removeprefix("loss/"): f"{mean:.3f}" for name, mean in losses.items()}

    def eval_row(self, row: Row, *, quiet: bool) -> None:
        """Write an evaluation. quiet: a bar is shown."""
        self._write(row)
        self.rows.append(row)
        log.log(logging.DEBUG if quiet else logging.INFO, self.sentence(row))

    def sentence(self, row: Row) -> str:
        """Accuracies (of clusters where there is no other), the overlap of boxes and the deciding
        rule's own score."""
        figures = []
        for key, value in row.items():
            kind = kind_of(key)
            if kind not in SAID or value is None or key.startswith("validator/"):
                continue
            name = key.replace("/", " ").replace("_", " ").removesuffix(" accuracy")
            figures.append(
                f"{name.removesuffix(' iou')}{' IoU' if kind is IOU else ''} "
                f"{with_unit(value, kind.unit)}"
            )
        value = score(row, self.rules[0]) if self.rules else None
        figures += [] if value is None else [f"{self.rules[0].replace('_', ' ')} {value:.3f}"]
        where = f"{row['phase']} step {row['step']}"
        return f"{where}: {', '.join(figures)}" if figures else f"{where}: no labels to judge by"

    def _write(self, row: Row) -> None:
        if self.process.first:
            self.run_dir.append_metrics(row)
            self._logger(row)
