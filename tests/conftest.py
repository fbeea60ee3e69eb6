"""What all tests share: one thread, and a working folder of their own."""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Tests run beside each other, so each has one thread; its subprocesses inherit that.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A failing assert of a helper shows its values, as one in a test does.
pytest.register_assert_rewrite("helpers")

# The same examples each time, so that a change is what makes a test fail.
settings.register_profile(
    "default",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")


def pytest_collection_finish() -> None:
    """What was loaded up to here stays: the garbage collector need not look at it again, nor
    as often as it does by default, at what a composed configuration makes by the thousand."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def no_flush() -> Iterator[None]:
    """Files of tests need not outlive a power cut, which is all that waiting for the disk buys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes no page, which saves seconds."""
    page = importlib.import_module("tlrun.report.pages.write")
    monkeypatch.setattr(page, "write_report", lambda path, **_: Path(path) / "report.html")
    empty = importlib.import_module("tlrun.report.statistics.leaderboard").leaderboard_of([])
    monkeypatch.setattr(page, "write_leaderboard", lambda _: empty)


@pytest.fixture
def instead_of_training(
    in_tmp: Path, no_pages: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[..., Any]], None]:
    """Call it with what stands for the training of a job: a sweep then trains nothing."""
    monkeypatch.delenv("TLRUN_DEBUG", raising=False)
    return lambda execute: monkeypatch.setattr("tlrun.experiment.start.run_experiment", execute)
