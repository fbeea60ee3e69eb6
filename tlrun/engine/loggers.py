"""Further places for the rows of metrics.jsonl. The file itself is always written.

Each is optional and imported only when chosen: `logger=tensorboard`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tlrun.errors import ConfigError
from tlrun.run_dir import RunDir

Row = Mapping[str, Any]


def make_logger(cfg: Mapping[str, Any], run_dir: RunDir, step: int = 0) -> Callable[[Row], None]:
    """A function that takes each row. step: where a resumed run goes on; later events are dropped.

    Raises ConfigError, naming what to install, if the package is missing.
    """
    if cfg["name"] == "none":
        return lambda row: None
    return _tensorboard(run_dir, step)


def _tensorboard(run_dir: RunDir, step: int) -> Callable[[Row], None]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "logger=tensorboard needs a package that is not installed: pip install tensorboard"
        ) from error
    writer = SummaryWriter(str(run_dir.path / "tensorboard"), purge_step=step or None)

    def write(row: Row) -> None:
        for key, value in row.items():
            if isinstance(value, float | int) and key not in ("step", "time"):
                writer.add_scalar(f"{row['split']}/{key}", value, row["step"])
        writer.flush()

    return write
