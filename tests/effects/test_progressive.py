"""Progressive learning: features of easier tasks help a later one, and none is forgotten."""

from statistics import mean

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
)
SEEDS = range(8)  # one says little: the rounding of another processor moves it by up to five points


@pytest.fixture(scope="module")
def summaries(tmp_path_factory):
    """A zero? Which of five pairs? Which of ten, of which two images each are labelled?"""
    folder = tmp_path_factory.mktemp("progressive")
    return [summary_of(folder / f"{k}", *WORDS, f"seed={k}", *steps(80)) for k in SEEDS]


def test_lateral_features_beat_an_independent_column(summaries):
    """Points above it, seeds 0 to 7, on AVX2: -2, 0, 0.5, 6, 1.5, 7, 2.5, 1; 0 to 3 on AVX-512:
    3, 4, 2, 7.5 (81.5, 85.0, 81.0, 83.5 beside 78.5, 81.0, 79.0, 76.0)."""
    better = [figure(s, "ten_test/accuracy") - s["alone"]["ten"] for s in summaries]
    assert mean(better) > 0.005


def test_earlier_tasks_are_not_forgotten(summaries):
    for summary in summaries:
        assert summary["forgetting"] == {"zero": 0.0, "pair": 0.0}
        assert figure(summary, "zero_test/accuracy") > 0.9 + 0.05  # nine in ten are none
