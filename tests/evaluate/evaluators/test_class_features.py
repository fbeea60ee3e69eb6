"""features.npz: of which sets its points are."""

import numpy as np
import pytest
import torch

from helpers import small


def test_evaluations_during_training_see_the_same_few_source_images(tmp_path, monkeypatch):
    session = small.session(tmp_path / "run", "evaluate.source_images=20")
    session.build_all()
    evaluator, held = session.evaluator, session.data.role("source_val")
    seen = {}
    forward = evaluator.set_output

    def spy(net, role, examples=None):
        seen.setdefault(role, []).append(examples)
        return forward(net, role, examples)

    monkeypatch.setattr(evaluator, "set_output", spy)
    with torch.no_grad():
        first, again = evaluator.row(session.net.eval()), evaluator.row(session.net)
    assert first == again
    assert len(seen["source_val"][0]) == 20
    assert len(seen["target_val"][0]) == len(session.data.role("target_val"))
    watched = evaluator.watched("source_val")
    assert all(examples is watched for examples in seen["source_val"])
    assert evaluator.chances()["source_val/accuracy"].count == 20
    with torch.no_grad():
        guess = forward(session.net, "source_val", watched).logits.argmax(1)
    share = (guess == watched.labels).double().mean()
    assert first["source_val/accuracy"] == first["validator/source_accuracy"] == share
    evaluator.source_images = None
    del evaluator._watched_source
    assert evaluator.watched("source_val") is held  # a run of before the key


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
