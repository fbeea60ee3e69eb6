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
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from tlrun import machine
from tlrun.files.locks import LockTaken, file_lock


@contextmanager
def reserve_gpus(
    job: int, device: str, devices: int = 1, folder: Path | None = None
) -> Iterator[list[int]]:
    """While it is open, `devices` GPUs are this job's; their indices, [] where it needs none.

    job: its number in the sweep. device: its `trainer.device`. folder: of the locks.
    """
    visible = machine.visible_gpus() if device in ("auto", "cuda") else 0
    if visible == 0:
        yield []
        return
    with ExitStack() as locks:
        reserved: list[int] = []
        for number in range(devices):
            free = [gpu for gpu in range(visible) if gpu not in reserved] or list(range(visible))
            first = (job * devices + number) % len(free)
            in_order = free[first:] + free[:first]
            reserved.append(_take(in_order, folder or _folder(), locks))
        with _in_environment(machine.ASSIGNED_GPUS, ",".join(map(str, reserved))):
            yield reserved


@contextmanager
def _in_environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _take(gpus: list[int], folder: Path, locks: ExitStack) -> int:
    """Lock the first free place of the first GPU that has one."""
    for place in count():
        for gpu in gpus:
            with suppress(LockTaken):
                locks.enter_context(file_lock(folder / f"{_name(gpu)}.{place}", seconds=0))
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
