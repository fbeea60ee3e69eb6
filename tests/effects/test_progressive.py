"""Progressive learning: features of easier tasks help a later one, and none is forgotten."""

import pytest

from helpers.effects import figure, steps, summary_of

PAIRS = "{a: ['0', '1'], b: ['2', '3'], c: ['4', '5'], d: ['6', '7'], e: ['8', '9']}"
WORDS = (
    "experiment=bundled/progressive",
    "baseline=true",  # columns that nothing is fed to
    "target_labels=2",
    "~data.tasks.zero_one",
    "~data.tasks.ten",
    f"+data.tasks.pair={{images: {{_target_: tlrun.data.sets.digits.digits}}, classes: {PAIRS}}}",
    "+data.tasks.ten={images: {_target_: tlrun.data.sets.digits.digits}}",
    "seed=1",
)


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    """A zero? Which of five pairs? Which of ten, of which two images each are labelled?"""
    return summary_of(tmp_path_factory.mktemp("progressive") / "run", *WORDS, *steps(80))


def test_lateral_features_beat_an_independent_column(summary):
    """Ten digits, %, seeds 0 to 3: 81.5, 85.0, 81.0, 83.5; independent 78.5, 81.0, 79.0, 76.0."""
    assert figure(summary, "ten_test/accuracy") > summary["alone"]["ten"] + 0.01


def test_earlier_tasks_are_not_forgotten(summary):
    assert summary["forgetting"] == {"zero": 0.0, "pair": 0.0}
    assert figure(summary, "zero_test/accuracy") > 0.9 + 0.05  # nine in ten are none
