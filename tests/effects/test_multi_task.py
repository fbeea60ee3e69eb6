"""Multi-task learning: a small task gains by a large one, and each of them works alone."""

import pytest
import torch

from helpers.effects import figure, steps, summary_of
from tlrun.data.sets.digits import digits_m
from tlrun.inference.predict import load

IMAGES = "{_target_: tlrun.data.sets.digits.digits_m}"
PARITY = "{even: ['0', '2', '4', '6', '8'], odd: ['1', '3', '5', '7', '9']}"
WORDS = (
    "experiment=bundled/multitask",
    "baseline=true",
    "~data.tasks.four",
    "~data.tasks.nine",
    f"+data.tasks.digit={{images: {IMAGES}}}",
    f"+data.tasks.parity={{images: {IMAGES}, classes: {PARITY}, per_class: 20}}",
    "data.target=parity",
    "data.channels=3",
    "data.normalize=instance",
    "trainer.batch_size=64",
    "seed=1",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("multi_task") / "run"


@pytest.fixture(scope="module")
def summary(folder):
    """Which digit (all 1,000 images and more), and is it odd (20 of each)?"""
    return summary_of(folder, *WORDS, *steps(150))


def test_the_small_task_is_learned_better_jointly_than_alone(summary):
    """Parity, %, seeds 0 to 2: 76, 83, 79 jointly, 69, 72, 74 alone; the digit 87, 88, 89 and 91,
    90, 93, with half the images in each batch."""
    assert figure(summary, "parity_test/accuracy") > summary["alone"]["parity"] + 0.03
    assert figure(summary, "digit_test/accuracy") > summary["alone"]["digit"] - 0.1


def test_each_task_is_used_alone_afterwards(summary, folder):
    """The figure of each is that of its model, loaded without the other, on the test images."""
    test = digits_m(seed=1, size=28, download=False).test
    images, digit = test.read(torch.arange(len(test))), test.labels
    for task, labels in {"digit": digit, "parity": digit % 2}.items():
        model = load(folder, task=task)
        with torch.no_grad():
            right = (model(images).argmax(1) == labels).float().mean()
        assert float(right) == pytest.approx(figure(summary, f"{task}_test/accuracy"))
