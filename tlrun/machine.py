"""What this machine has: cores and GPUs, and which of these are this job's. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

ASSIGNED_GPUS = (
    "TLRUN_GPUS"  # environment, of a job and its processes: "1" or "2,3", of those visible
)
COUNT = "TLRUN_GPU_COUNT"  # environment: how many there are, for tests without one


def cores() -> int:
    """Those that this process may use, by affinity and cgroup."""
    import joblib  # it comes with scikit-learn

    return int(joblib.cpu_count())


def parallel_jobs() -> int:
    """How many jobs a machine takes at once: one per GPU, else one per core."""
    return visible_gpus() or cores()


def visible_gpus() -> int:
    """How many GPUs PyTorch can use here. Imports torch only where the system shows a device."""
    if COUNT in os.environ:
        return int(os.environ[COUNT])
    if not [
        *Path("/dev").glob("nvidia[0-9]*"),
        *Path("/dev").glob("kfd"),
        *Path("/dev").glob("dxg"),
    ]:
        return 0
    import torch

    return torch.cuda.device_count()


def assigned_gpu(rank: int = 0) -> int | None:
    """The GPU of a job's process; None: none was reserved, PyTorch's own choice holds."""
    mine = [int(gpu) for gpu in os.environ.get(ASSIGNED_GPUS, "").split(",") if gpu]
    return mine[rank % len(mine)] if mine else None
