"""What counts as training that failed, by rows with known values."""

import math

import pytest

from tlrun.evaluate.divergence import Chance, failure

CHANCE = {"source_val/accuracy": {"share": 0.1, "count": 400}}


def train(*totals, phase="train", name="classification", **losses):
    return [
        {"step": step, "phase": phase, "split": "train", f"loss/{name}": value, **losses}
        for step, value in enumerate(totals, start=1)
    ]


def evaluations(*accuracies):
    return [
        {"step": step, "phase": "train", "split": "eval", "source_val/accuracy": value}
        for step, value in enumerate(accuracies)
    ]


def kind(rows, classes=10, chances=CHANCE):
    found = failure(rows, classes, chances)
    return found and found.kind


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (train(2.3, 0.1), None),
        (train(0.01, 2.0), None),  # a phase that starts from trained weights
        (train(2.3, 10 * math.log(10) - 0.1), None),
        (train(2.3, 10 * math.log(10) + 0.1), "diverged"),
        (train(2.2e6, 34.9), "diverged"),  # blown up within the first row
        (train(2.3, math.inf), "diverged"),
        (train(2.3, None), "diverged"),  # NaN in metrics.jsonl
        (train(0.6, 8.0, name="encoder"), None),  # an adversary that has won
        (train(-0.5, 0.9, name="discrepancy"), None),
        (train(0.0, 60.0, name="l2_sp"), None),  # a penalty on leaving where it starts
        (train(0.7, 1.5e21, name="domain"), "diverged"),
        (train(1e17, 5e17, name="domain"), "diverged"),
        (train(50.0, 4000.0, name="ranking"), None),
        (train(50.0, 6000.0, name="ranking"), "diverged"),
        (train(2.3, 1e9, phase="source") + train(2.3, 0.1, phase="target"), "diverged"),
        ([], None),
    ],
)
def test_diverged(rows, expected):
    assert kind(rows) == expected


def test_the_limit_of_chance():
    """q = 0.1 of 400: one standard deviation is 0.015."""
    assert Chance.of([10, 30, 20]) == Chance(0.5, 60)
    assert Chance(0.1, 400).limit == pytest.approx(0.13)
    assert kind(evaluations(0.5, 0.1, 0.13)) == "never left chance"  # row 0 is before any step
    assert kind(evaluations(0.1, 0.1, 0.131)) is None
    assert kind(evaluations(0.1, 0.9, 0.1)) is None  # it left it, and came back
    assert kind(evaluations(0.1)) is None  # a closed form
    few = {"source_val/accuracy": {"share": 0.5, "count": 10}}
    assert kind(evaluations(0.5, 0.9), chances=few) is None
    one = {"source_val/accuracy": {"share": 1.0, "count": 10}}
    assert kind(evaluations(1.0, 1.0), chances=one) is None  # of one class there is no guessing
    assert kind(evaluations(0.1, 0.1), chances={}) is None


def test_the_sentence_has_the_figures():
    found = failure(train(2.3, 1.5e21), 10, {})
    assert found is not None
    assert "1.5e+21 at the end of train, where guessing has 2.3" in found.why
    found = failure(evaluations(0.1, 0.1), 10, CHANCE)
    assert found is not None
    assert "source val accuracy is at most 10.0 %. The largest class is 10.0 % of 400" in found.why
    assert "examples, two standard deviations above it are 13.0 %" in found.why  # rows, too
