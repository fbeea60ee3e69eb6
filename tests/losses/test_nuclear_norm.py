"""BNM against numpy's singular values."""

import math

import numpy as np
import pytest
import torch

from tlrun.losses.nuclear_norm import nuclear_norm_loss


@pytest.mark.parametrize("shape", [(9, 4), (3, 6)])
def test_it_equals_numpy(shape):
    logits = np.random.default_rng(0).normal(size=shape) * 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.linalg.svd(p, compute_uv=False).sum() / shape[0]
    assert float(nuclear_norm_loss(torch.tensor(logits))) == pytest.approx(expected, rel=1e-5)


def test_sure_and_even_predictions_reach_the_bound():
    """−√(K/B): a set of one-hot rows, each class as often as the others."""
    even = 100 * torch.eye(4).repeat(3, 1)
    assert float(nuclear_norm_loss(even)) == pytest.approx(-math.sqrt(4 / 12), rel=1e-5)
    one_class = torch.zeros(12, 4)
    one_class[:, 0] = 100  # as sure, but not diverse
    assert float(nuclear_norm_loss(one_class)) == pytest.approx(-math.sqrt(1 / 12), rel=1e-5)


def test_the_gradient_is_that_of_finite_differences():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (ours,) = torch.autograd.grad(nuclear_norm_loss(logits), logits)
    direction = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        up = nuclear_norm_loss(logits + 1e-2 * direction)
        down = nuclear_norm_loss(logits - 1e-2 * direction)
    assert float((ours * direction).sum()) == pytest.approx(float(up - down) / 2e-2, rel=1e-2)


def test_equal_predictions_have_a_finite_gradient():
    """All singular values but one are 0 and coincide."""
    logits = torch.zeros(6, 4, requires_grad=True)
    nuclear_norm_loss(logits).backward()
    assert torch.isfinite(logits.grad).all()


def test_autocast_leaves_it_in_float32():
    logits = torch.randn(6, 4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = nuclear_norm_loss(logits.bfloat16())
    assert loss.dtype == torch.float32
    assert float(loss) == float(nuclear_norm_loss(logits.bfloat16()))
