"""The domain-adversarial pieces against independent calculations."""

import math

import numpy as np
import pytest
import torch

from tlrun.losses.adversarial import (
    domain_accuracy,
    domain_loss,
    reversal_strength,
    reverse_gradient,
)


def test_domain_loss_equals_the_formula_in_numpy():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=7), rng.normal(size=4)
    expected = 0.5 * np.log1p(np.exp(-source)).mean() + 0.5 * np.log1p(np.exp(target)).mean()
    assert float(domain_loss(torch.tensor(source), torch.tensor(target))) == pytest.approx(
        expected, rel=1e-6
    )


def test_reversed_gradient_is_minus_strength_times_the_plain_one():
    x = torch.randn(5, 3, requires_grad=True)
    weights = torch.randn(3)
    (plain,) = torch.autograd.grad((x @ weights).square().sum(), x)
    y = reverse_gradient(x, 0.3)
    assert torch.equal(y, x)
    (reversed_,) = torch.autograd.grad((y @ weights).square().sum(), x)
    assert torch.allclose(reversed_, -0.3 * plain)


def test_domain_accuracy_weights_both_domains_alike():
    source, target = torch.tensor([1.0, 1.0, 1.0, -1.0]), torch.tensor([1.0, -1.0])
    assert float(domain_accuracy(source, target)) == pytest.approx(0.5 * (0.75 + 0.5))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_strength_follows_the_paper(p):
    assert reversal_strength("sigmoid", p) == pytest.approx(math.tanh(5 * p))  # 2/(1+e^(-10p)) - 1
    assert reversal_strength("linear", p) == p
    assert reversal_strength("constant", p) == 1.0


def test_unknown_schedule_of_lambda():
    with pytest.raises(ValueError, match="sigmoid, linear, constant"):
        reversal_strength("sigmiod", 0.0)
