"""features.npz: of which sets its points are."""

import numpy as np
import pytest

from helpers import small


@pytest.mark.parametrize("has_test", [True, False])
def test_a_source_without_a_test_set_is_shown_by_its_validation_images(tmp_path, has_test):
    session = small.session(tmp_path / "run")
    source = session.data.domains["source"]
    if not has_test:
        source.test = None
    session.build_all()
    figures, outputs = session.test()
    session.evaluator.write_features(tmp_path / "features.npz", outputs)
    with np.load(tmp_path / "features.npz") as file:
        shown = set(file["domain"].tolist())
    assert shown == {0, 1}
    assert ("source_test" in outputs) is has_test
    assert ("source_val" in outputs) is not has_test
    assert not any(key.startswith("source_val") for key in dict(figures))
