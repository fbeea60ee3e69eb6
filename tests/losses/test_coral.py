"""CORAL against numpy."""

import numpy as np
import pytest
import torch

from tlrun.losses.coral import coral_loss, covariance, mean_loss


def draws(rows, scale=1.0, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 5)) * scale


def test_it_equals_numpy():
    a, b = draws(7), draws(9, 3.0, seed=1)
    apart = np.cov(a, rowvar=False) - np.cov(b, rowvar=False)
    expected = (apart**2).sum() / (4 * 5**2)
    ours = coral_loss(torch.tensor(a), torch.tensor(b))
    assert float(ours) == pytest.approx(expected, rel=1e-5)
    assert covariance(torch.tensor(a)).numpy() == pytest.approx(np.cov(a, rowvar=False), rel=1e-4)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() / 5
    assert float(mean_loss(torch.tensor(a), torch.tensor(b))) == pytest.approx(expected, rel=1e-5)


def test_a_shift_moves_the_mean_and_a_scale_the_covariance():
    a = torch.tensor(draws(50))
    assert float(coral_loss(a, a + 3.0)) == pytest.approx(0.0, abs=1e-8)
    assert float(mean_loss(a, a + 3.0)) == pytest.approx(9.0, rel=1e-5)
    assert float(coral_loss(a, 2 * a)) > 0.1


def test_autocast_leaves_it_in_float32():
    """Covariances are differences of squares: bf16 would keep two digits of them."""
    a, b = torch.tensor(draws(40)).float(), torch.tensor(draws(40, 1.1, seed=2)).float()
    expected = float(coral_loss(a, b))
    with torch.autocast("cpu", torch.bfloat16):
        assert float(coral_loss(a, b)) == expected


def test_gradients_reach_both_sides():
    a, b = torch.randn(6, 3, requires_grad=True), torch.randn(8, 3, requires_grad=True)
    coral_loss(a, b).backward()
    assert float(a.grad.abs().sum()) > 0
    assert float(b.grad.abs().sum()) > 0
