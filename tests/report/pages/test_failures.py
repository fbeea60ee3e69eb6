"""Training that diverged or never left chance is said by console, page and leaderboard."""

import csv
import json
from pathlib import Path

import pytest

from helpers.html_page import Page
from helpers.run_folders import make_run
from tlrun.report.pages.terminal import text_summary
from tlrun.report.pages.write import write_report
from tlrun.report.read.run_record import read_record


def blown_up(run: Path) -> Path:
    row = {"step": 2000, "phase": "train", "split": "train", "loss/classification": 1.5e21}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    return run


def at_chance(run: Path) -> Path:
    summary = json.loads((run / "summary.json").read_text())
    summary["chance"] = {"source_val/accuracy": {"share": 0.995, "count": 10**6}}
    (run / "summary.json").write_text(json.dumps(summary))
    return run


@pytest.mark.usefixtures("no_plots")
def test_a_run_that_failed_in_training_says_so_first(tmp_path):
    run = blown_up(make_run(tmp_path / "run", baseline=False))
    lines = text_summary(run).splitlines()
    assert len(lines) <= 25
    assert lines[2].startswith("Training diverged: the classification loss is 1.5e+21")
    page = Page(write_report(run))
    assert "Training diverged" in page.text
    assert page.text.index("Training diverged") < page.text.index("Target test accuracy")


@pytest.mark.usefixtures("no_plots")
def test_so_does_a_run_beside_a_baseline_that_failed(tmp_path):
    run = make_run(tmp_path / "run")
    blown_up(run / "baseline")
    assert "For comparison, source_only: Training diverged" in text_summary(run)


@pytest.mark.usefixtures("no_plots")
def test_the_leaderboard_marks_them(tmp_path):
    for method, change in (("a", blown_up), ("b", at_chance), ("c", lambda run: run)):
        change(make_run(tmp_path / method, method=method, baseline=False))
    page = Page(write_report(tmp_path))
    assert "Training failed in 2 jobs (1 diverged, 1 never left chance): a; b." in page.text
    assert "a†" in page.text
    assert "c†" not in page.text
    assert "| b† |" in (tmp_path / "leaderboard.md").read_text()
    with (tmp_path / "leaderboard.csv").open() as file:
        assert {r["method"]: r["failed_trainings"] for r in csv.DictReader(file)} == {
            "a": "1",
            "b": "1",
            "c": "0",
        }


@pytest.mark.usefixtures("no_plots")
def test_a_run_that_worked_is_not_accused(tmp_path):
    run = make_run(tmp_path / "run")
    assert read_record(run).training_failure is None
    assert "Training" not in text_summary(run).splitlines()[2]
