"""γ is of the seen classes: beside candidates without these it would do nothing."""

import pytest

from tlrun.data.problems.label_space import AttributeFacts, LabelSpace, Task
from tlrun.errors import ConfigError
from tlrun.inference.descriptions import handicap


def test_a_gamma_beside_unseen_candidates_is_refused():
    facts = AttributeFacts([[1.0], [0.0]], ["a"], ["x"], [], ["y"], True, None)
    space = LabelSpace({"class": Task("class", "attributes", ("x", "y"))}, facts)
    with pytest.raises(ConfigError, match=r"--gamma 0 .* give one of the two"):
        handicap(space, {}, 0.0, "unseen")
    assert handicap(space, {}, None, "unseen").tolist() == [float("inf"), 0.0]
