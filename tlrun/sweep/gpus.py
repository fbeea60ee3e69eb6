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

from tlrun.machine import ASSIGNED_GPUS, visible_gpus


@contextmanager
def reserve_gpus(
    job: int, device: str, devices: int = 1, folder: Path | None = None
) -> Iterator[list[int]]:
    """While it is open, `devices` GPUs are this job's; their indices, [] where it needs none.

    job: its number in the sweep. device: its `trainer.device`. folder: of the locks.
    """
    gpus = visible_gpus() if device in ("auto", "cuda") else 0
    if gpus == 0:
        yield []
        return
    with ExitStack() as held:
        found: list[int] = []
        for place in range(devices):
            free = [gpu for gpu in range(gpus) if gpu not in found] or list(range(gpus))
            at = (job * devices + place) % len(free)
            found.append(_take(free[at:] + free[:at], folder or _folder(), held))
        before = os.environ.get(ASSIGNED_GPUS)
        os.environ[ASSIGNED_GPUS] = ",".join(map(str, found))
        try:
            yield found
        finally:
            if before is None:
                del os.environ[ASSIGNED_GPUS]
            else:
                os.environ[ASSIGNED_GPUS] = before


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
