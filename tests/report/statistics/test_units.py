"""Page, console and leaderboard write a figure in its own unit, under its own name."""

import json
from pathlib import Path

import pytest

from helpers.html_page import Page
from helpers.run_folders import make_run
from tlrun.report.pages.terminal import text_summary
from tlrun.report.pages.write import write_report
from tlrun.report.read.run_record import read_record
from tlrun.report.statistics.findings import headline
from tlrun.report.statistics.groups import group_jobs, kind_in, primary_metric, title_in

BOX = {
    "target_test/iou": {"name": "target test mean IoU", "unit": "IoU", "higher_is_better": True},
    "target_test/accuracy": {"name": "target test accuracy", "unit": "share"},
}
ERROR = {"mine/rmse": {"name": "depth error", "unit": "number", "higher_is_better": False}}


def boxes(run: Path, value: float, **more) -> Path:
    file = run / "summary.json"
    summary = json.loads(file.read_text())
    figures = {"step": 1800, "target_test/accuracy": None, "target_test/iou": value}
    oracle = {"step": 1900, "target_test/accuracy": None, "target_test/iou": value + 0.01}
    summary |= {"headline": "target_test/iou", "figures": BOX, "selected": figures}
    file.write_text(json.dumps(summary | {"last": figures, "oracle": oracle} | more))
    (run / "predictions.csv").unlink(missing_ok=True)
    return run


@pytest.mark.usefixtures("no_plots")
def test_a_box_has_no_accuracy(tmp_path):
    before = {"step": 5, "target_test/iou": 0.09}
    run = boxes(make_run(tmp_path / "run", baseline=False), 0.115, before=before)
    lines = text_summary(run).splitlines()
    assert "Target test mean IoU: 0.115 (before 0.090, +0.025)" in lines
    assert not any("accuracy" in line or "11.5" in line for line in lines[:-1])
    assert any("target test mean IoU under other rules" in line for line in lines)
    page = Page(write_report(run))
    assert "Target test mean IoU" in page.text
    assert "0.090 before, 0.115 after adaptation" in page.text
    assert "The last step has 0.115, the best one by target labels (oracle) 0.125." in page.text
    assert "11.5 %" not in page.text
    assert "not measured" not in page.text


@pytest.mark.usefixtures("no_plots")
def test_the_interval_stands_beside_the_headline(tmp_path):
    run = make_run(tmp_path / "run", baseline=False)
    summary = json.loads((run / "summary.json").read_text())
    selected = {"step": 6, "target_test/accuracy": 0.483, "target_test/ci95": 0.0061}
    (run / "summary.json").write_text(json.dumps(summary | {"selected": selected}))
    found = headline(read_record(run))
    assert found is not None
    assert (found.text, found.sign) == ("48.3 ± 0.6", " %")
    line = next(text for text in text_summary(run).splitlines() if text.startswith("target test"))
    assert line.split() == ["target", "test", "48.3", "±", "0.6"]


@pytest.mark.usefixtures("no_plots")
def test_equal_figures_have_no_leader(tmp_path):
    for method in ("a", "b"):
        make_run(tmp_path / method, method=method, final=0.93, baseline=False)
    page = Page(write_report(tmp_path))
    assert "a is level with b at 93.0 % target test accuracy" in page.text
    assert "leads with" not in page.text
    assert "before b" not in page.text


@pytest.mark.usefixtures("no_plots")
def test_a_leaderboard_of_boxes(tmp_path):
    for method, start in (("a", 0.10), ("b", 0.20)):
        for seed in (0, 1, 2):
            job = make_run(tmp_path / f"{method}{seed}", method=method, seed=seed, baseline=False)
            boxes(job, start + 0.01 * seed * (1 if method == "a" else 2))
    page = Page(write_report(tmp_path))
    assert "b leads with 0.220 ± 0.020 target test mean IoU" in page.text
    assert "before a with 0.110 ± 0.010." in page.text
    assert "The difference of +0.110 over 3 common seeds" in page.text
    text = (tmp_path / "leaderboard.md").read_text()
    assert "0.220 ± 0.020" in text
    assert "percent" not in text
    assert "in points" not in text
    assert "selected/target_test/iou/mean" in (tmp_path / "leaderboard.csv").read_text()


@pytest.mark.usefixtures("no_plots")
def test_jobs_of_other_tasks_are_named_not_mixed_in(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"class{seed}", seed=seed, baseline=False)
    boxes(make_run(tmp_path / "box", data="canvas", baseline=False), 0.115)
    jobs = [read_record(tmp_path / name) for name in ("box", "class0", "class1")]
    assert primary_metric(jobs) == "target_test/accuracy"
    page = Page(write_report(tmp_path))
    assert (
        "another figure have no place in the columns: target test mean IoU of canvas" in page.text
    )


@pytest.mark.usefixtures("no_plots")
def test_where_less_is_better_the_lowest_leads(tmp_path):
    for method, value in (("a", 1.5), ("b", 2.5)):
        job = make_run(tmp_path / method, method=method, baseline=False)
        summary = json.loads((job / "summary.json").read_text())
        figures = {"step": 6, "mine/rmse": value}
        summary |= {"headline": "mine/rmse", "figures": ERROR, "selected": figures}
        (job / "summary.json").write_text(json.dumps(summary | {"last": {}, "oracle": {}}))
    jobs = [read_record(tmp_path / name) for name in "ab"]
    assert primary_metric(jobs) == "mine/rmse"
    assert (title_in(jobs, "mine/rmse"), kind_in(jobs, "mine/rmse").unit) == (
        "depth error",
        "number",
    )
    page = Page(write_report(tmp_path))
    assert "a leads with 1.5 depth error" in page.text
    assert len(group_jobs(jobs)) == 2
