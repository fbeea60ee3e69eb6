"""A figure carries its name and unit from the evaluator to the summary; what is no accuracy has
none."""

import json

import pytest
import torch

from helpers.small import session
from tlrun.evaluate.evaluators.episode_figures import mean_and_interval
from tlrun.evaluate.evaluators.task_figures import MAIN
from tlrun.evaluate.figures import (
    ACCURACY,
    IOU,
    KINDS,
    Figure,
    Figures,
    difference,
    kind_of,
    oracle_key,
    title,
    with_unit,
    written,
)
from tlrun.evaluate.selection import Guard, score, select_row
from tlrun.experiment.summary import conclude
from tlrun.report.pages.terminal import text_summary


def test_values_and_what_they_are():
    found = Figures(
        [
            Figure("few_shot/5way_1shot/accuracy", 0.483, ACCURACY, 0.006),
            Figure("iou", 0.115, IOU).under("place_test"),
        ]
    )
    assert dict(found) == {
        "few_shot/5way_1shot/accuracy": 0.483,
        "few_shot/5way_1shot/ci95": 0.006,
        "place_test/iou": 0.115,
    }
    assert found.about() == {
        "few_shot/5way_1shot/accuracy": {
            "name": "few shot 5way 1shot accuracy",
            "unit": "share",
            "higher_is_better": True,
            "ci95": "few_shot/5way_1shot/ci95",
        },
        "place_test/iou": {"name": "place test mean IoU", "unit": "IoU", "higher_is_better": True},
    }


def test_no_suffix_decides():
    """What the run says counts, then the whole name of a metric, not how a key ends."""
    told = {
        "depth/inaccuracy": {"name": "depth error", "unit": "number", "higher_is_better": False}
    }
    kind = kind_of("depth/inaccuracy", told)
    assert (kind.name, kind.unit, kind.higher_is_better) == ("depth error", "number", False)
    assert kind_of("depth/inaccuracy").unit == "number"
    assert kind_of("target_test/accuracy") is ACCURACY
    assert kind_of("target_test/iou_50") == KINDS["iou_50"]
    assert kind_of("mine/macro_f1", {"mine/macro_f1": {"unit": "litres"}}).unit == "share"


def test_units_in_words():
    assert [written(0.1151, unit) for unit in ("share", "IoU", "nats")] == [
        "11.5",
        "0.115",
        "0.1151",
    ]
    assert (with_unit(0.931, "share"), with_unit(0.931, "IoU")) == ("93.1 %", "0.931")
    assert (difference(0.381, "share"), difference(-0.05, "IoU")) == ("+38.1", "-0.050")
    assert title("target_test/iou", IOU) == "target test mean IoU"
    assert oracle_key("target_test/iou") == "oracle/target_test_iou"


def test_rules_that_see_target_labels_take_the_iou_of_a_box():
    rows = [
        {"oracle/target_test_iou": 0.2, "target_val/iou": 0.5},
        {"oracle/target_test_iou": 0.3, "target_val/iou": 0.4},
    ]
    assert [score(row, "oracle") for row in rows] == [0.2, 0.3]
    assert select_row(rows, "oracle", Guard(0)) is rows[1]
    assert select_row(rows, "target_accuracy", Guard(0)) is rows[0]


@pytest.mark.parametrize(("target", "metric"), [("place", "iou"), ("digit", "accuracy")])
def test_the_headline_is_of_the_task_that_was_trained(tmp_path, target, metric):
    """Two boxes or two classes: `target_test/accuracy` is no mean IoU."""
    options = ["data=digits_canvas", f"data.target={target}", "trainer.steps=2", "select=task_mean"]
    opened = session(tmp_path / "run", *options)
    opened.trainer().fit()
    summary = conclude(opened)
    opened.run_dir.set_status("completed")
    assert summary["headline"] == f"target_test/{metric}"
    figures, rows = summary["selected"], opened.run_dir.read_metrics()
    row = next(r for r in rows if r.get("split") == "eval" and r["step"] == figures["step"])
    for name, task in opened.data.tasks.items():
        assert figures[f"{name}_test/{MAIN[task.kind]}"] == row[f"oracle/{name}_test"]
    assert figures[summary["headline"]] == row[f"oracle/target_test_{metric}"]
    assert figures[summary["headline"]] == figures[f"{target}_test/{metric}"]
    assert summary["oracle"][summary["headline"]] is not None
    text = text_summary(tmp_path / "run")
    told = json.loads((tmp_path / "run" / "summary.json").read_text())["figures"]
    assert told["place_test/iou"]["unit"] == "IoU"
    assert told["place_test/loss"]["unit"] == "sides"
    assert told["digit_test/loss"]["unit"] == "nats"
    if metric == "iou":
        assert figures["target_test/accuracy"] is None
        assert summary["oracle"]["target_test/accuracy"] is None
        assert "oracle/target_test_accuracy" not in row
        assert "target_val/accuracy" not in row
        assert f"Target test mean IoU: {figures['target_test/iou']:.3f}" in text.splitlines()
        assert "target test   " not in text
    else:
        assert "Target test mean IoU" not in text
        assert any(line.startswith("target test ") for line in text.splitlines())


def test_the_interval_of_episodes_goes_with_the_headline():
    mean, half = mean_and_interval(torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64))
    found = Figures([Figure("target_test/accuracy", mean, ACCURACY, half)])
    assert found["target_test/ci95"] == pytest.approx(1.96 * 0.2 / 3**0.5)


@pytest.mark.parametrize(
    ("lr", "kind"), [("1000", "diverged"), ("1e-12", "never left chance"), ("0.005", None)]
)
def test_the_summary_says_that_training_failed(tmp_path, lr, kind):
    size = ["trainer.steps=60", "trainer.batch_size=32"] if kind is None else ["trainer.steps=8"]
    opened = session(tmp_path / "run", "method=source_only", f"optimizer.lr={lr}", *size)
    opened.trainer().fit()
    summary = conclude(opened)
    opened.run_dir.set_status("completed")
    told = summary["training_failure"]
    assert (told and told["kind"]) == kind
    assert summary["chance"]["source_val/accuracy"]["count"] == len(opened.data.role("source_val"))
    assert ("Training " in text_summary(tmp_path / "run")) == bool(kind)
