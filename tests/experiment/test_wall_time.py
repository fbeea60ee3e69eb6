"""Where the time of a run went, and what the log and the page say of cadence and schedules."""

import json
import time

import matplotlib.pyplot as plt
import numpy as np
import pytest

from helpers.small import session
from tlrun.engine import checkpoint
from tlrun.experiment.summary import conclude
from tlrun.experiment.wall_time import wall_seconds, with_part
from tlrun.report.figures import curves
from tlrun.report.read.run_record import RunRecord
from tlrun.report.statistics.findings import comparison
from tlrun.run_folder.run_dir import RunDir

COUNTERS = {
    "start_seconds": 12.0,
    "train_seconds": 40.0,
    "eval_seconds": 8.0,
    "earlier_seconds": 30.0,
    "wall_seconds": 70.0,
    "sitting": 1000.0,
}


def test_the_total_is_over_all_sittings(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1050.0)
    same = wall_seconds(COUNTERS, 1000.0)  # this sitting has trained: 30 before it, 50 of its own
    assert (same["total"], same["other"]) == (80.0, 20.0)
    later = wall_seconds(COUNTERS, 1045.0)  # killed after the training: 70 before, 5 of its own
    assert (later["total"], later["start"], later["training"]) == (75.0, 12.0, 40.0)
    summary = with_part({"wall_seconds": same}, "baseline", 60.0)
    summary = with_part(summary, "report", 5.0)
    assert summary["wall_seconds"] == {
        "total": 145.0,
        "start": 12.0,
        "training": 40.0,
        "evaluations": 8.0,
        "baseline": 60.0,
        "report": 5.0,
        "other": 20.0,
    }
    assert with_part({"steps": 1}, "report", 5.0) == {"steps": 1}  # of an older run


def test_a_resumed_run_adds_up_its_sittings(tmp_path):
    first = session(tmp_path / "run", "trainer.log_every=null", "schedule=dann")
    first.began = time.time() - 100.0
    first.trainer().fit()
    folder = first.run_dir.checkpoints
    before = checkpoint.load_last(folder)["counters"]
    assert 100 < before["start_seconds"] < before["wall_seconds"] <= time.time() - first.began
    rows = [row for row in first.run_dir.read_metrics() if row["split"] == "train"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]  # not at most one in 50 steps

    again = session(tmp_path / "other", "trainer.steps=9", "schedule=dann")
    again.run_dir = RunDir(tmp_path / "run")
    again.began = time.time() - 1000.0
    again.trainer().fit()
    after = checkpoint.load_last(folder)["counters"]
    assert after["earlier_seconds"] == before["wall_seconds"]
    assert before["start_seconds"] + 1000 < after["start_seconds"] < after["wall_seconds"]
    assert after["wall_seconds"] - before["wall_seconds"] <= time.time() - again.began
    summary = conclude(again)
    assert summary["wall_seconds"]["total"] >= after["wall_seconds"] - 0.01
    assert summary["wall_seconds"]["start"] == round(after["start_seconds"], 2)


def test_the_peak_of_the_learning_rate_is_that_of_the_first_step(tmp_path):
    opened = session(tmp_path / "run", "trainer.log_every=3", "schedule=dann", "optimizer.lr=0.02")
    opened.trainer().fit()
    summary = conclude(opened)
    logged = [row["lr"] for row in opened.run_dir.read_metrics() if row["split"] == "train"]
    assert max(logged) < 0.01
    assert summary["peak_learning_rate"] == pytest.approx(0.02)
    figure, ax = plt.subplots()
    drawn = [("lr", np.array([3.0, 6.0]), np.array(logged))]
    curves._draw_schedules(ax, drawn, summary["peak_learning_rate"])
    curves._draw_schedules(ax, drawn, None)
    known, unknown = (line.get_label() for line in ax.get_lines())
    plt.close(figure)
    assert known == "learning rate (peak 0.02)"
    assert unknown == f"learning rate (largest logged {max(logged):.3g})"


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (100, "The source_only model beside it took as many steps (20) but saw 100 images (200)."),
        (200, "The source_only model beside it took as many steps (20) and saw as many images."),
    ],
)
def test_what_is_equal_is_said(tmp_path, images, expected):
    def leave(folder, **summary):
        folder.mkdir()
        (folder / "status.json").write_text("{}")
        (folder / "summary.json").write_text(json.dumps(summary))

    leave(tmp_path / "run", steps=20, images_seen=200)
    assert comparison(RunRecord(tmp_path / "run")) == ""
    leave(tmp_path / "run/baseline", steps=20, images_seen=images, method="source_only")
    assert comparison(RunRecord(tmp_path / "run")) == expected
