"""GPUs are dealt out to the jobs of sweeps: one each while they last, and never twice."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tlrun import machine
from tlrun.sweep import gpus


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "visible_gpus", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_jobs_get_a_gpu_each_then_share_evenly(two_gpus: None, tmp_path: Path) -> None:
    with (
        gpus.reserve_gpus(0, "auto", folder=tmp_path) as first,
        gpus.reserve_gpus(2, "cuda", folder=tmp_path) as second,
        gpus.reserve_gpus(2, "auto", folder=tmp_path) as third,
        gpus.reserve_gpus(3, "auto", folder=tmp_path) as fourth,
    ):
        assert (first, second) == ([0], [1])  # 0 was taken
        assert sorted(third + fourth) == [0, 1]
        assert machine.assigned_gpu() == fourth[0]
    assert machine.assigned_gpu() is None
    with gpus.reserve_gpus(7, "auto", folder=tmp_path) as again:
        assert again == [1]  # all are free: that of its number


def test_several_jobs_a_gpu_fill_one_place_of_each_first(two_gpus: None, tmp_path: Path) -> None:
    """launcher.jobs_per_gpu=2: four jobs at once, two on each, in the order of their numbers."""
    with ExitStack() as jobs:
        first = [
            jobs.enter_context(gpus.reserve_gpus(job, "auto", folder=tmp_path)) for job in range(4)
        ]
        assert first == [[0], [1], [0], [1]]
    assert gpus_of(range(4), tmp_path) == [[0], [1], [0], [1]]


def gpus_of(jobs: range, folder: Path) -> list[list[int]]:
    """Of jobs that run one after another."""
    found = []
    for job in jobs:
        with gpus.reserve_gpus(job, "auto", folder=folder) as mine:
            found.append(mine)
    return found


def test_a_job_of_two_processes_gets_two(two_gpus: None, tmp_path: Path) -> None:
    with gpus.reserve_gpus(0, "auto", devices=2, folder=tmp_path) as mine:
        assert sorted(mine) == [0, 1]
        assert [machine.assigned_gpu(rank) for rank in range(2)] == mine


def test_no_gpu_is_taken_where_none_is_wanted_or_there(
    two_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gpus.reserve_gpus(0, "cpu", folder=tmp_path) as mine:
        assert mine == []
    monkeypatch.setattr(machine, "visible_gpus", lambda: 0)
    with gpus.reserve_gpus(0, "auto", folder=tmp_path) as mine:
        assert mine == []
        assert machine.assigned_gpu() is None
    assert not list(tmp_path.iterdir())


HOLD = """
import sys, time
from pathlib import Path
from tlrun import machine
from tlrun.sweep import gpus
machine.visible_gpus = lambda: 2
with gpus.reserve_gpus(int(sys.argv[1]), "auto", folder=Path("locks")) as mine:
    Path(f"has_{sys.argv[1]}").write_text(str(mine[0]))
    while not Path("go").exists():
        time.sleep(0.02)
"""


def test_processes_never_hold_the_same_gpu_and_a_killed_one_gives_it_back(
    two_gpus: None, in_tmp: Path
) -> None:
    Path("locks").mkdir()
    both = [subprocess.Popen([sys.executable, "-c", HOLD, str(job)]) for job in (0, 2)]
    while len(list(Path().glob("has_*"))) < 2:
        assert [process.poll() for process in both] == [None, None]
        time.sleep(0.02)
    taken = {Path(f"has_{job}").read_text() for job in (0, 2)}
    assert taken == {"0", "1"}
    both[0].kill()
    both[0].wait()
    lost = int(Path("has_0").read_text())
    with gpus.reserve_gpus(lost, "auto", folder=Path("locks")) as mine:
        assert mine == [lost]
    Path("go").touch()
    both[1].wait()
