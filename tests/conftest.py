"""What all tests share: one thread, and a working folder of their own."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tests run beside each other; subprocesses inherit it

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


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page is written: seconds saved."""
    page = importlib.import_module("tlrun.report.pages.write")
    monkeypatch.setattr(page, "write_report", lambda path: Path(path) / "report.html")


@pytest.fixture
def instead_of_training(
    in_tmp: Path, no_pages: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[..., Any]], None]:
    """Give it what stands for `tlrun.cli.train.execute`: the jobs of a sweep train nothing."""
    monkeypatch.delenv("TLRUN_DEBUG", raising=False)
    return lambda execute: monkeypatch.setattr("tlrun.experiment.start.run_experiment", execute)
