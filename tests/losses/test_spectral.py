"""Squared singular values against numpy."""

import numpy as np
import pytest
import torch

from tlrun.losses.spectral import squared_singular_values


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_they_equal_numpy_largest_first(shape):
    features = np.random.default_rng(0).normal(size=shape)
    expected = np.linalg.svd(features, compute_uv=False) ** 2
    ours = squared_singular_values(torch.tensor(features))
    assert ours.numpy() == pytest.approx(expected, rel=1e-4)
    assert float(ours.sum()) == pytest.approx((features**2).sum(), rel=1e-5)


def test_descent_on_the_first_k_shrinks_these_alone():
    features = torch.randn(6, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = squared_singular_values(features)
    (gradient,) = torch.autograd.grad(before[:2].sum(), features)
    after = squared_singular_values((features - 0.1 * gradient).detach())
    # σ -> (1 − 2 · 0.1) σ, so that the order may change
    wanted = torch.cat([0.64 * before[:2], before[2:]]).detach().sort(descending=True).values
    torch.testing.assert_close(after, wanted, rtol=1e-4, atol=1e-5)


def test_autocast_leaves_them_in_float32():
    features = torch.randn(5, 7).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        values = squared_singular_values(features)
    assert values.dtype == torch.float32
