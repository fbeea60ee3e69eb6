"""Figures in bf16: from the same features the same to the last digit that is written."""

import copy

import pytest
import torch

from helpers import half, small
from helpers.every_method import session_of

torch.set_num_threads(1)


def started(session):
    for phase in session.phases:
        session.method.build(phase, session.net, session.data)
        session.finish_build(session.net)
        session.method.start(phase, session.net, session.data)
    return session.net.eval()


@pytest.mark.parametrize("name", ["source_only", "protonet", "iap", "multitask"])
def test_an_evaluation_of_the_same_features(name, tmp_path):
    """One method for each kind of data, its validators among the figures."""
    session = session_of(name, tmp_path / "run")
    started(session)
    rows = []
    for on in (False, True):
        net = copy.deepcopy(session.net)
        half.same_features(net, scale=10.0)
        with torch.no_grad(), half.autocast(on):
            rows.append(session.evaluator.row(net))
    exact, found = rows
    assert len(exact) > 2
    assert found == pytest.approx(exact, rel=1e-4, abs=1e-4, nan_ok=False)


def test_zero_shot_figures_in_bf16_are_those_of_fp32(tmp_path):
    """The whole net under autocast: iap had NaN for scores, its first class for an answer."""
    session = small.session(
        tmp_path / "run",
        *("method=iap", "data=digits_attributes", "backbone.width=0.5", "trainer.steps=150"),
        *("trainer.eval_every=150", "trainer.batch_size=64"),
    )
    session.trainer().fit()
    figures = []
    for on in (False, True):
        with torch.no_grad(), half.autocast(on):
            figures.append(session.evaluator.test(session.net.eval())[0])
    exact, found = figures
    assert exact["seen/accuracy"] > 0.8
    keys = ("seen/accuracy", "unseen/accuracy", "calibrated/harmonic_mean", "seen_unseen_area")
    for key in keys:
        assert found[key] == pytest.approx(exact[key], abs=0.02), key
