"""BSS: the smallest singular values of the target's features."""

import numpy as np
import pytest
import torch

from helpers import sessions, small
from tlrun.errors import ConfigError
from tlrun.methods.base import DomainOutput, Update
from tlrun.methods.terms.bss import BSS


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_it_is_eta_times_the_squares_of_the_smallest(k, shape):
    features = torch.randn(*shape)
    update = Update({}, outputs={"target": DomainOutput(features, features)})
    (value,) = BSS(weight=0.3, k=k).loss(update, None).values()
    values = np.linalg.svd(features.double().numpy(), compute_uv=False)
    assert float(value) == pytest.approx(0.3 * float((values[-k:] ** 2).sum()), rel=1e-4)


def test_it_is_computed_in_fp32_under_autocast():
    features = torch.randn(8, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = torch.nn.functional.linear(features, torch.eye(8))
        assert half.dtype == torch.bfloat16
        (value,) = (
            BSS(weight=1.0)
            .loss(Update({}, outputs={"target": DomainOutput(half, half)}), None)
            .values()
        )
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(features.grad).all()


def test_descent_shrinks_the_smallest_and_leaves_the_others():
    """σ_k -> (1 − 2 lr η) σ_k for the k smallest."""
    features = torch.randn(6, 9, dtype=torch.float64).float().requires_grad_()
    before = torch.linalg.svdvals(features.detach())
    update = Update({}, outputs={"target": DomainOutput(features, features)})
    BSS(weight=1.0, k=2).loss(update, None)["bss"].backward()
    after = torch.linalg.svdvals(features.detach() - 0.1 * features.grad)
    assert torch.allclose(after[:4], before[:4], rtol=1e-4)
    assert torch.allclose(after[4:], 0.8 * before[4:], rtol=1e-4)


def test_a_net_that_trains_with_it_has_a_shorter_tail(tmp_path):
    """The published effect at small scale."""

    def tail(name, *options):
        lr = "phases.target.optimizer={lr: 0.005}"
        session, batch = sessions.paused(tmp_path / name, "trainer.steps=30", lr, *options, at=32)
        features = sessions.copy_of(session)(batch["target"].x).features.detach()
        return float(torch.linalg.svdvals(features)[-1])

    assert tail("bss", "terms=[bss]", "terms.bss.weight=0.3") < 0.8 * tail("plain")


def test_arguments_and_methods_that_do_not_fit():
    with pytest.raises(ConfigError, match="whole number from 1"):
        small.configured(BSS, "terms.bss", k=0)
    with pytest.raises(ConfigError, match="needs the features of target images"):
        BSS().loss(Update({}), None)


def test_it_joins_a_run(tmp_path):
    session = small.session(tmp_path / "run", *sessions.FEW, "terms=[bss]")
    session.trainer().fit()
    trained = [row for row in session.run_dir.read_metrics() if row["split"] == "train"]
    assert all(("loss/bss" in row) == (row["phase"] == "target") for row in trained)
