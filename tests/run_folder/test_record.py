"""How a run ends is written down, and what leaves it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

import tlrun
from tlrun.errors import Interrupted, RecordedFault, RunError
from tlrun.messages import report_error
from tlrun.run_folder.record import recorded
from tlrun.run_folder.run_dir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run")


def end(run: RunDir, error: BaseException) -> None:
    with recorded(run):
        raise error


def test_an_error_of_our_own_leaves_as_it_came(run: RunDir) -> None:
    error = RunError("loss is NaN")
    with pytest.raises(RunError) as caught:
        end(run, error)
    assert caught.value is error
    assert error.recorded
    assert not RunError("another").recorded
    assert (run.read_status()["state"], run.read_status()["error"]) == ("failed", "loss is NaN")
    assert not run.log.exists()


def test_a_fault_of_the_code_leaves_its_traceback_in_the_log_once(
    run: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TLRUN_DEBUG", raising=False)
    inner, error = RunDir.create(run.path / "baseline"), ValueError("one class is empty")
    with pytest.raises(RecordedFault) as caught, recorded(run):
        end(inner, error)
    assert caught.value.error is error
    assert inner.log.read_text().endswith("ValueError: one class is empty\n")
    assert not run.log.exists()
    for status in (run.read_status(), inner.read_status()):
        assert (status["state"], status["error"]) == ("failed", "ValueError: one class is empty")
    assert report_error(caught.value) == 1
    said = capsys.readouterr().err
    assert said.startswith("tlrun: error: ValueError: one class is empty (test_record.py:")
    assert said.endswith(f"traceback in {inner.log}\n")


@pytest.mark.parametrize("error", [Interrupted("stopped", 143), KeyboardInterrupt()])
def test_a_stop_is_no_failure(run: RunDir, error: BaseException) -> None:
    with pytest.raises(type(error)):
        end(run, error)
    assert run.read_status()["state"] == "interrupted"


def test_python_meets_the_exception_of_the_users_code(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tlrun.experiment.start.run_experiment",
        lambda run: end(run, ZeroDivisionError("in a method of one's own")),
    )
    with pytest.raises(ZeroDivisionError, match="of one's own"):
        tlrun.run(["method=source_only", "hydra.run.dir=run"])
