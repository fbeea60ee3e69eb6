"""VAT: KL and direction against closed forms, and what it must leave alone."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from tlrun.losses.virtual_adversarial import adversarial_direction, divergence, vat_loss


def linear(classes=3, dim=5):
    torch.manual_seed(0)
    return nn.Linear(dim, classes)


def test_the_divergence_equals_numpy():
    z, w = np.random.default_rng(0).normal(size=(2, 6, 4)) * 2
    p, q = softmax(z, axis=1), softmax(w, axis=1)
    expected = (p * np.log(p / q)).sum(1)
    assert divergence(torch.tensor(z), torch.tensor(w)).numpy() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("xi", [1e-2, 1e-1])
def test_the_direction_is_the_hessians_first_eigenvector(xi):
    """Of a linear net: H = Wᵀ (diag p − p pᵀ) W, an eigenvector for each example."""
    net, x = linear(), torch.randn(4, 5)
    with torch.no_grad():
        logits = net(x)
    d = adversarial_direction(net, x, logits, xi=xi, iterations=30)
    assert d.flatten(1).norm(dim=1).numpy() == pytest.approx(np.ones(4), rel=1e-4)
    W = net.weight.detach().double().numpy()
    for direction, p in zip(d.double().numpy(), softmax(logits.double().numpy(), 1), strict=True):
        _, vectors = np.linalg.eigh(W.T @ (np.diag(p) - np.outer(p, p)) @ W)
        assert abs(direction @ vectors[:, -1]) > 0.99


def test_the_loss_is_the_divergence_at_the_radius_on_images():
    net = nn.Sequential(nn.Flatten(), linear(dim=12))
    x = torch.randn(4, 3, 2, 2)
    logits = net(x)
    torch.manual_seed(5)
    loss = vat_loss(net, x, logits, radius=0.5, xi=0.1, iterations=2)
    torch.manual_seed(5)
    d = adversarial_direction(net, x, logits, xi=0.1, iterations=2)
    p, q = (softmax(net(v).detach().numpy(), axis=1) for v in (x, x + 0.5 * d))
    assert float(loss.detach()) == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-3)


def test_it_is_worse_than_a_random_direction_after_one_iteration():
    net = nn.Sequential(linear(8, 50), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(32, 50)
    logits = net(x).detach()
    random = nn.functional.normalize(torch.randn(32, 50))
    by_chance = float(divergence(logits, net(x + random).detach()).mean())
    found = vat_loss(net, x, logits, radius=1.0, xi=0.1, iterations=1).detach()
    assert float(found) > 5 * by_chance


def test_gradients_come_from_the_perturbed_pass_alone_and_none_is_left_behind():
    net, x = linear(), torch.randn(4, 5, requires_grad=True)
    logits = net(x)
    torch.manual_seed(3)
    loss = vat_loss(net, x, logits, radius=1.0, xi=0.1, iterations=2)
    assert all(p.grad is None for p in net.parameters())
    assert x.grad is None
    ours = torch.autograd.grad(loss, list(net.parameters()))
    torch.manual_seed(3)
    d = adversarial_direction(net, x, logits, xi=0.1, iterations=2)
    assert not d.requires_grad
    apart = divergence(logits.detach(), net((x + d).detach())).mean()
    for a, b in zip(ours, torch.autograd.grad(apart, list(net.parameters())), strict=True):
        torch.testing.assert_close(a, b)


def test_it_also_works_where_gradients_are_off():
    net, x = linear(), torch.randn(4, 5)
    with torch.no_grad():
        near, far = (
            float(vat_loss(net, x, net(x), radius=r, xi=0.1, iterations=4)) for r in (0.5, 2.0)
        )
    assert 0 < near < far


def test_a_prediction_that_cannot_change_has_no_direction_and_no_nan():
    def constant(x):
        return (0 * x).sum(1, keepdim=True) + torch.tensor([[1.0, 0.0]])

    x = torch.randn(3, 4)
    d = adversarial_direction(constant, x, constant(x), xi=0.1, iterations=1)
    assert torch.equal(d, torch.zeros_like(d))
    assert float(vat_loss(constant, x, constant(x), radius=1.0, xi=0.1, iterations=1)) == 0
