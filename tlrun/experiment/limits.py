"""The limits of a machine, said in one sentence with the way out."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

import torch

from tlrun.errors import ConfigError, RunError
from tlrun.run_folder.run_dir import RunDir


@contextlib.contextmanager
def explain_limits(run_dir: RunDir) -> Iterator[None]:
    """Too little memory, space on the disk or images in a batch, said in one sentence."""
    try:
        yield
    except Exception as error:
        if isinstance(
            error, torch.OutOfMemoryError | MemoryError
        ) or "can't allocate memory" in str(error):
            raise RunError(
                "out of memory: try a smaller trainer.batch_size, or trainer.accumulate=2 "
                "(less memory, the same gradient but for batch norm)"
            ) from error
        if "Expected more than 1 value per channel" in str(error):  # torch's batch norm
            raise ConfigError(
                "batch norm needs at least two images in each batch of a process and micro-batch: "
                "give a larger trainer.batch_size (or fewer trainer.devices, trainer.accumulate)"
            ) from error
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"cannot write to {error.filename or run_dir.path}: {error.strerror}; free some "
                f"space, then `tlrun resume {run_dir.path}`"
            ) from error
        raise
