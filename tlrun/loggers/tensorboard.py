"""`logger=tensorboard`: events in RUN_DIR/tensorboard."""

from __future__ import annotations

from torch.utils.tensorboard import SummaryWriter

from tlrun.loggers.base import Logger, Row, numbers
from tlrun.run_folder.run_dir import RunDir


class TensorBoard(Logger):
    """Events in RUN_DIR/tensorboard."""

    def __init__(self, run_dir: RunDir, step: int) -> None:
        self.writer = SummaryWriter(str(run_dir.path / "tensorboard"), purge_step=step or None)

    def __call__(self, row: Row) -> None:
        for key, value in numbers(row).items():
            self.writer.add_scalar(key, value, row["step"])
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
