"""Data of several tasks: classes chosen and merged, few labels, shared images; the canvases."""

import numpy as np
import pytest
import torch

from tlrun.data.pipeline.sharing import batch_sizes
from tlrun.data.problems.label_space import TaskFacts
from tlrun.data.problems.options import Options
from tlrun.data.problems.tasks import task_data, under
from tlrun.data.sets import canvas
from tlrun.data.sets.digits import digits
from tlrun.errors import ConfigError, DataError

DIGITS = {"_target_": "tlrun.data.sets.digits.digits"}
OTHERS = {"_target_": "tlrun.data.sets.digits.other_digits"}
CANVAS = {"_target_": "tlrun.data.sets.canvas.digits_canvas"}
TWO = {
    "many": {"images": DIGITS, "classes": {"four": ["4"], "other": ["1", "7"]}},
    "few": {"images": OTHERS, "classes": ["9", "3"], "per_class": 2},
}


def build(tasks=TWO, target_labels="all", **keys):
    options = Options(target_labels=target_labels)
    return task_data(options=options, tasks=tasks, size=28, **keys)


def test_classes_are_chosen_merged_and_limited():
    data = build()
    whole, many, few = digits().train, data.role("many_train"), data.role("few_train")
    kept = [k for k, y in enumerate(whole.labels.tolist()) if y in (4, 1, 7)]
    assert many.classes == ("four", "other")
    assert torch.equal(many.read(torch.arange(len(many))), whole.read(torch.tensor(kept)))
    assert torch.equal(many.labels, (whole.labels[kept] != 4).long())
    assert few.class_counts() == {"9": 2, "3": 2}
    assert len(data.role("few_test")) > 4  # only training images are few
    assert data.classes == ("9", "3")  # the last task's: the target's
    assert data.facts == TaskFacts("few", {"many": len(kept), "few": 4})
    assert data.kind == "tasks"


def test_target_labels_apply_to_the_target():
    data = build(target_labels=3, target="many")
    assert data.role("many_train").class_counts() == {"four": 3, "other": 3}
    assert data.target_labels_seen == 6 + len(data.role("many_val"))
    assert data.classes == ("four", "other")


def test_tasks_on_the_same_images_have_a_column_each():
    shared = {
        "digit": {"images": CANVAS},
        "loop": {"same_as": "digit", "classes": {"loop": ["0", "6", "9"], "none": ["1", "7"]}},
        "place": {"same_as": "digit", "kind": "box", "per_class": 3},
    }
    data = build(shared)
    train, test = data.role("digit_train"), data.role("digit_test")
    assert list(data.domains) == ["digit"]
    assert [t.column for t in data.tasks.values()] == ["", "loop", "place"]
    digit = train.labels
    wanted = {0: 0, 6: 0, 9: 0, 1: 1, 7: 1}
    assert train.columns["loop"].tolist() == [wanted.get(y, -1) for y in digit.tolist()]
    known = ~train.columns["place"].isnan().any(1)
    assert torch.bincount(digit[known]).tolist() == [3] * 10
    assert torch.equal(train.columns["place"][known], train.columns["box"][known])
    assert torch.equal(test.columns["place"], test.columns["box"])  # all are known to the test
    picked = train.subset(torch.tensor([5, 2]))
    assert torch.equal(picked.columns["loop"], train.columns["loop"][[5, 2]])
    task = data.tasks["loop"]
    assert task.truth(train.labels, train.columns) is train.columns["loop"]
    assert data.tasks["digit"].truth(train.labels, train.columns) is train.labels


@pytest.mark.parametrize(
    ("tasks", "keys", "message"),
    [
        (None, {}, "which tasks"),
        ({"a": {"image": DIGITS}}, {}, "did you mean 'images'"),
        ({"a": {}}, {}, "which images has the task a"),
        ({"a": {"images": DIGITS, "classes": ["ten"]}}, {}, "no class 'ten' in digits"),
        ({"a": {"images": DIGITS, "kind": "boxes"}}, {}, "did you mean 'box'"),
        ({"a": {"images": DIGITS, "kind": "box"}}, {}, "digits has no column 'box'"),
        ({"a": {"images": DIGITS}, "b": {"same_as": "c"}}, {}, "no task 'c' before it"),
        ({"mean": {"images": DIGITS}}, {}, "name it in other words"),
        ({"a.b": {"images": DIGITS}}, {}, "name it in other words"),
        ({"a": {"images": DIGITS, "per_class": 999}}, {}, "data.tasks.a.per_class=999: class"),
        ({"a": {"images": DIGITS, "per_class": 0}}, {}, "data.tasks.a.per_class=0: expected"),
        ({"a": {"images": CANVAS, "kind": "box"}}, {"augment": {"all": {"shift": 0.1}}}, "move"),
        (TWO, {"augment": {"man": {}}}, "did you mean 'many'"),
        (TWO, {"target": "fuw"}, "did you mean 'few'"),
        (TWO, {"target_labels": "none"}, "learned from labels"),
    ],
)
def test_what_does_not_fit_is_named(tasks, keys, message):
    with pytest.raises((ConfigError, DataError), match=message):
        build(tasks, **keys)


def test_all_classes_as_they_are():
    examples = digits().train
    assert under(examples, None, "a") is examples


@pytest.mark.parametrize(
    ("counts", "total", "alpha", "world", "sizes"),
    [
        ([900, 100], 64, 0.0, 1, [32, 32]),
        ([900, 100], 60, 1.0, 1, [54, 6]),
        ([900, 100], 60, 0.5, 1, [45, 15]),  # 30 : 10
        ([10_000, 1], 64, 1.0, 1, [63, 1]),  # never none
        ([900, 100], 60, 1.0, 4, [56, 4]),  # multiples of the processes
        ([1, 1, 1], 64, 0.0, 1, [22, 21, 21]),
    ],
)
def test_parts_of_a_batch(counts, total, alpha, world, sizes):
    found = batch_sizes({str(k): n for k, n in enumerate(counts)}, total, alpha, world)
    assert list(found.values()) == sizes


# ---- canvases -----------------------------------------------------------------------------------


def test_the_bundled_canvases_are_the_recorded_ones():
    splits = canvas.digits_canvas()
    for split in ("train", "val", "test"):
        examples = getattr(splits, split)
        assert examples.checksum == canvas.CHECKSUMS[f"digits_canvas/{split}"]
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [3600, 196, 401]


def test_the_box_holds_the_ink_and_touches_it(monkeypatch):
    monkeypatch.setattr(canvas, "PIECES", 0)  # no clutter: all ink is the digit's
    images = digits().test.read(torch.arange(20)).numpy()
    drawn = canvas.draw(images, "a test")[:, 0] >= canvas.INK
    boxes = (canvas.boxes(images, "a test") * canvas.SIDE).round().int()
    for ink, (left, top, right, bottom) in zip(drawn, boxes.tolist(), strict=True):
        rows, columns = np.nonzero(ink)
        assert [left, top, right, bottom] == [
            *(columns.min(), rows.min()),
            *(columns.max() + 1, rows.max() + 1),
        ]


def test_clutter_comes_from_other_images():
    images = np.zeros((30, 1, 28, 28), np.uint8)
    images[:15] = 255
    drawn = canvas.draw(images, "clutter")
    assert (drawn[15:].reshape(15, -1) > 0).any(1).sum() > 10  # black digits among white pieces
    pieces = (drawn[15:] > 0).sum((1, 2, 3))
    assert (pieces <= canvas.PIECES * canvas.PIECE**2).all()
