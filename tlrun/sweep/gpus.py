"""The GPUs of a machine, dealt out to the jobs of sweeps: one each while they last.

A GPU has places, taken in order by a lock each (`flock`): a job takes the first place of any GPU
that is free, beginning with the GPU of its own number, then a second place, and so on. So jobs
share only when there are more of them than GPUs, and evenly. The kernel frees a place when its
process ends. Jobs of all sweeps of a user on the machine see each other; single runs take no part.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

DEALT = "TLRUN_GPUS"  # environment, of a job and its processes: "1" or "2,3", of those visible
COUNT = "TLRUN_GPU_COUNT"  # environment: how many there are, for tests without one


def visible() -> int:
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


@contextmanager
def dealt(
    job: int, device: str, devices: int = 1, folder: Path | None = None
) -> Iterator[list[int]]:
    """While it is open, `devices` GPUs are this job's; their indices, [] where it needs none.

    job: its number in the sweep. device: its `trainer.device`. folder: of the locks.
    """
    gpus = visible() if device in ("auto", "cuda") else 0
    if gpus == 0:
        yield []
        return
    with ExitStack() as held:
        found: list[int] = []
        for place in range(devices):
            free = [gpu for gpu in range(gpus) if gpu not in found] or list(range(gpus))
            at = (job * devices + place) % len(free)
            found.append(_take(free[at:] + free[:at], folder or _folder(), held))
        before = os.environ.get(DEALT)
        os.environ[DEALT] = ",".join(map(str, found))
        try:
            yield found
        finally:
            if before is None:
                del os.environ[DEALT]
            else:
                os.environ[DEALT] = before


def index(rank: int = 0) -> int | None:
    """The GPU of a job's process; None: nobody dealt any out, PyTorch's own choice holds."""
    mine = [int(gpu) for gpu in os.environ.get(DEALT, "").split(",") if gpu]
    return mine[rank % len(mine)] if mine else None


def _take(gpus: list[int], folder: Path, held: ExitStack) -> int:
    """Lock the first free place of the first GPU that has one."""
    import filelock

    for place in count():
        for gpu in gpus:
            lock = filelock.FileLock(folder / f"{_name(gpu)}.{place}")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                continue
            held.callback(lock.release)
            return gpu
    raise AssertionError  # places do not end


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"tlrun-gpus-{os.getuid() if os.name == 'posix' else 0}"
    folder.mkdir(exist_ok=True)
    return folder


def _name(gpu: int) -> str:
    """Of a GPU, the same in every process: CUDA_VISIBLE_DEVICES may number them otherwise."""
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return names[gpu].replace("/", "-") if gpu < len(names) else str(gpu)
