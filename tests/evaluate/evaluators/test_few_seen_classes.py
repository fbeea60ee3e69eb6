"""A γ that rests on few seen classes, or is missing for it, is told in one line."""

from dataclasses import replace

import pytest

from tlrun.data.problems.label_space import AttributeFacts
from tlrun.evaluate.evaluators.attribute_figures import doubt


@pytest.mark.parametrize(
    ("seen", "gamma", "said"),
    [
        (3, None, "no calibration gamma is chosen: 3 seen classes"),
        (4, 0.2, "rests on 4 seen classes"),
        (5, 0.2, "rests on 5 seen classes"),
    ],
)
def test_few_seen_classes_are_told_with_the_key_that_helps(seen, gamma, said):
    names = [f"c{k}" for k in range(seen + 1)]
    facts = AttributeFacts([[1.0]] * len(names), ["a"], names[:-1], [], names[-1:], True, None)
    line = doubt(facts, gamma)
    assert said in line
    assert "data.gamma=NUMBER" in line
    assert doubt(replace(facts, gamma=0.1), 0.1) is None


def test_six_seen_classes_need_no_word():
    names = [f"c{k}" for k in range(7)]
    facts = AttributeFacts([[1.0]] * 7, ["a"], names[:4], names[4:6], names[6:], True, None)
    assert doubt(facts, 0.2) is None
