"""What this machine has: cores, GPUs and living processes. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# In the environment of a job and its processes: "1" or "2,3", of the GPUs that are visible.
ASSIGNED_GPUS = "TLRUN_GPUS"


def cores() -> int:
    """Those that this process may use, by affinity and cgroup."""
    import joblib  # it comes with scikit-learn

    return int(joblib.cpu_count())


def parallel_jobs(jobs_per_gpu: int = 1) -> int:
    """How many jobs a machine takes at once: so many on each GPU, without GPUs one per core."""
    return visible_gpus() * jobs_per_gpu or cores()


def visible_gpus() -> int:
    """How many GPUs PyTorch can use here. Imports torch only where the system shows a device."""
    if not any(any(Path("/dev").glob(name)) for name in ("nvidia[0-9]*", "kfd", "dxg")):
        return 0
    import torch

    return torch.cuda.device_count()


def assigned_gpu(rank: int = 0) -> int | None:
    """The GPU of a job's process; None: none was reserved, PyTorch's own choice holds."""
    mine = [int(gpu) for gpu in os.environ.get(ASSIGNED_GPUS, "").split(",") if gpu]
    return mine[rank % len(mine)] if mine else None


def in_slurm() -> bool:
    """Whether this process belongs to a job that submitit gave to Slurm."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


def in_slurm_step() -> bool:
    """Whether srun began this process: a signal of Slurm's goes to all processes of the step."""
    return "SLURM_STEP_ID" in os.environ


def is_alive(pid: Any) -> bool:
    """Whether a process of this number lives on this machine."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:  # another user's
        return True
    except (OSError, OverflowError, ValueError, TypeError):
        return False
    return True
