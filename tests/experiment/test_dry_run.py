"""What a dry run prints of the phases, and what it does not do."""

import logging
import signal

import pytest

from helpers import small
from tlrun.config.compose import compose
from tlrun.engine.hooks import Hooks
from tlrun.errors import Interrupted
from tlrun.experiment.dry_run import rehearse
from tlrun.experiment.start import create_run_folder, run_experiment


def test_a_step_of_each_phase_without_an_evaluation(tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO)
    session = small.session(tmp_path / "run", "method=dann")
    (tmp_path / "rehearsal").mkdir()
    rehearse(session, tmp_path / "rehearsal")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("phase train: stream source: x (8, 3, ")
    assert lines[0].endswith(", y (8,)")
    assert lines[1].endswith(", no labels")
    assert lines[2].startswith("phase train: classification ")
    rows = (tmp_path / "rehearsal" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 1
    assert "source val" not in caplog.text


def test_a_closed_form_is_not_solved(tmp_path, capsys):
    session = small.session(tmp_path / "run", "phases.train.steps=0")
    rehearse(session, tmp_path)
    assert capsys.readouterr().out == "phase train: no steps\n"


def test_an_interrupted_one_offers_nothing_to_go_on_with(in_tmp, monkeypatch):
    def interrupting(before_step):
        return Hooks(
            before_step=lambda step: (before_step(step), signal.raise_signal(signal.SIGINT))
        )

    monkeypatch.setattr("tlrun.experiment.dry_run.Hooks", interrupting)
    words = [*small.QUICK, "method=source_only", "dry_run=true"]
    run = create_run_folder(compose(words), in_tmp / "run", words)
    with pytest.raises(Interrupted, match=r"^stopped; a dry run keeps nothing$") as stop:
        run_experiment(run)
    assert stop.value.exit_code == 130
    assert not run.path.exists()


def test_a_fault_in_it_names_no_log_that_is_gone(in_tmp, monkeypatch):
    def failing(session, folder):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("tlrun.experiment.dry_run.rehearse", failing)
    words = [*small.QUICK, "method=source_only", "dry_run=true"]
    run = create_run_folder(compose(words), in_tmp / "run", words)
    with pytest.raises(RuntimeError, match="shapes do not fit"):  # and no RecordedFault
        run_experiment(run)
    assert not run.path.exists()
