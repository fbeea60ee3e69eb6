"""Entropy losses against numpy."""

import numpy as np
import pytest
import torch

from tlrun.losses.entropy import diversity_loss, entropy_loss


def probabilities(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_both_equal_numpy():
    logits = np.random.default_rng(0).normal(size=(6, 4)) * 3
    p = probabilities(logits)
    expected = -(p * np.log(p)).sum(1).mean()
    assert float(entropy_loss(torch.tensor(logits))) == pytest.approx(expected, rel=1e-5)
    mean = p.mean(0)
    expected = (mean * np.log(mean)).sum()
    assert float(diversity_loss(torch.tensor(logits))) == pytest.approx(expected, rel=1e-5)


def test_a_sure_prediction_has_no_entropy_and_no_nan():
    logits = torch.tensor([[1000.0, 0.0, 0.0]], requires_grad=True)
    loss = entropy_loss(logits) + diversity_loss(logits)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(logits.grad).all()
