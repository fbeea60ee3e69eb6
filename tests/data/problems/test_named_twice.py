"""A class is named once among the unseen or the validation classes."""

import pytest

from tlrun.data.problems.zero_shot import class_groups
from tlrun.errors import ConfigError


@pytest.mark.parametrize(("unseen", "validation"), [("bb", "c"), ("b", "cc")])
def test_a_class_that_is_named_twice_is_refused(unseen, validation):
    with pytest.raises(ConfigError, match="is named twice; name it once"):
        class_groups(list("abcde"), list(unseen), list(validation), 0, 0)
