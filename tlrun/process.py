"""Settings of this process before it trains: threads, memory, determinism, start method."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from typing import Any

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")  # whoever sets these has the last word


def prepare_process(cfg: dict[str, Any], rank: int = 0, world: int = 1) -> None:
    """As `trainer.threads`, `trainer.deterministic` and the machine ask for."""
    if multiprocessing.get_start_method(allow_none=True) == "loky":
        # joblib's launcher leaves its own start method behind, under which DataLoader workers crash
        multiprocessing.set_start_method("spawn", force=True)
    threads = cfg["trainer"]["threads"]
    if threads != "auto":
        torch.set_num_threads(max(1, int(threads) // world))
    keep_freed_memory()
    if cfg["trainer"]["deterministic"] and torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def keep_freed_memory() -> bool:
    """Let glibc reuse the blocks that a step frees; False where there is no glibc.

    By itself it gives those above 32 MB back to the kernel, which then zeroes each page again in
    the next step: a third of a step of `conv4` on a CPU, half of an evaluation (docs/decisions.md).
    """
    if any(name in os.environ for name in KEPT):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 2**30) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
