"""AFN against numpy, and its gradient by hand."""

import numpy as np
import pytest
import torch

from tlrun.losses.feature_norm import hard_norm_loss, stepwise_norm_loss

FEATURES = np.random.default_rng(0).normal(size=(6, 5))


def test_the_stepwise_value_is_constant_and_its_gradient_a_growth():
    features = torch.tensor(FEATURES, dtype=torch.float32, requires_grad=True)
    loss = stepwise_norm_loss(features, step=0.7)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.7**2, rel=1e-5)
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    assert features.grad.numpy() == pytest.approx(-2 * 0.7 * unit / 6, rel=1e-4)


def test_the_hard_form_equals_numpy_and_pulls_the_mean_norm_to_the_radius():
    features = torch.tensor(FEATURES, requires_grad=True)
    loss = hard_norm_loss(features, radius=4.0)
    expected = (np.linalg.norm(FEATURES, axis=1).mean() - 4.0) ** 2
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, features)
    nearer = hard_norm_loss((features - gradient).detach(), radius=4.0)
    assert float(nearer) < float(loss.detach())


@pytest.mark.parametrize("form", [stepwise_norm_loss, hard_norm_loss])
def test_a_feature_of_zeros_has_a_finite_gradient(form):
    features = torch.zeros(3, 4, requires_grad=True)
    form(features).backward()
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("form", [stepwise_norm_loss, hard_norm_loss])
def test_half_precision_features_are_summed_in_float32(form):
    features = torch.tensor(FEATURES).half()
    assert form(features).dtype == torch.float32
