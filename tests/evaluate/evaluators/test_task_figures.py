"""The evaluator of several tasks: figures by kind, Δm, each task's own checkpoint."""

import json
from types import SimpleNamespace

import pytest
import torch

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.problems.label_space import Task, TaskFacts
from tlrun.evaluate import metrics
from tlrun.evaluate.evaluators.task_figures import TaskEvaluator, judge
from tlrun.methods.base import Output
from tlrun.run_folder.run_dir import RunDir

NAN = float("nan")


def test_classes_and_boxes_that_are_unknown_are_left_out():
    labels = torch.tensor([0, 1, -1, 1])
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0], [NAN] * 4, [NAN] * 4])
    examples = ImageSet("x", torch.zeros(4, 1, 2, 2), columns={"kind": labels, "box": boxes})
    scores = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 9.0], [0.0, 1.0]])
    found = judge(Output(scores=scores), examples, Task("kind", "class", ("a", "b"), "x", "kind"))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["accuracy_by_class"] == {"a": 1.0, "b": 0.5}
    guess = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 1.0], [0.0] * 4, [0.0] * 4])
    found = judge(Output(boxes=guess), examples, Task("place", "box", (), "x", "box"))
    assert found["iou"] == pytest.approx((1 + 0.5) / 2)


def test_iou_against_a_grid():
    """Boxes with corners on a grid: count the cells in both and in either."""
    sides = torch.randint(9, (50, 2, 2, 2), generator=torch.Generator().manual_seed(0))
    corners = sides.sort(2).values  # (n, which box, low or high, axis)
    cells = torch.arange(9)
    inside = (cells >= corners[..., :1, :].mT) & (cells < corners[..., 1:, :].mT)  # (n, 2, 2, 9)
    area = inside[:, :, 0, :, None] & inside[:, :, 1, None, :]
    both, either = (area[:, 0] & area[:, 1]).sum((1, 2)), (area[:, 0] | area[:, 1]).sum((1, 2))
    boxes = corners.flatten(2).float()
    expected = torch.where(either > 0, both / either.clamp_min(1), 0.0)
    torch.testing.assert_close(metrics.iou(boxes[:, 0], boxes[:, 1]), expected)


def test_delta_m_is_the_mean_relative_gain():
    figures, alone = {"a": 0.9, "b": 0.5, "error": 0.3}, {"a": 0.8, "b": 0.6, "error": 0.2}
    expected = ((0.9 - 0.8) / 0.8 + (0.5 - 0.6) / 0.6 - (0.3 - 0.2) / 0.2) / 3
    assert metrics.delta_m(figures, alone, ["error"]) == pytest.approx(expected)


def test_the_comparison_with_single_tasks(tmp_path):
    data = SimpleNamespace(
        tasks={
            "dog": Task("dog", "class", ("a", "b"), "dog"),
            "box": Task("box", "box", (), "dog", "box"),
        },
        facts=TaskFacts("dog", {"dog": 40}),
    )
    evaluator = TaskEvaluator(
        data, None, torch.device("cpu"), batch_size=1, max_images=1, seed=0, target_test=True
    )
    assert evaluator.rules == ("task_dog", "task_box")
    run = RunDir(tmp_path)
    run.write_json(run.tables, [{"name": "other"}])
    summary = {"selected": {"dog_test/accuracy": 0.9, "box_test/iou": 0.7}, "seed": 0}
    baselines = {
        "baseline/dog": {"selected": {"dog_test/accuracy": 0.8, "step": 5}},
        "baseline/box": {"selected": {"box_test/iou": 0.75}},
    }
    for _ in range(2):  # a resume compares anew
        found = evaluator.compare(run, summary, baselines)
    assert found["alone"] == {"dog": 0.8, "box": 0.75}
    assert found["selected"]["delta_m"] == pytest.approx((0.1 / 0.8 - 0.05 / 0.75) / 2)
    tables = json.loads(run.tables.read_text())
    assert [t["name"] for t in tables] == ["other", "tasks_alone"]
    assert tables[1]["rows"] == [
        ["dog", 40, "accuracy, %", "80.0", "90.0", "+10.0"],
        ["box", 40, "mean IoU", "0.750", "0.700", "-0.050"],
    ]
    assert found["figures"]["delta_m"]["unit"] == "share"
    (picture,) = json.loads(run.pictures.read_text())
    assert picture["series"][1]["values"] == pytest.approx([90.0, 70.0])
