"""MCC against loops over examples and classes."""

import math

import numpy as np
import pytest
import torch

from tlrun.losses.class_confusion import class_confusion_loss


def by_loops(logits, temperature):
    count, classes = logits.shape
    p = np.exp(logits / temperature)
    p /= p.sum(1, keepdims=True)
    raw = [1 + math.exp(sum(q * math.log(q) for q in row)) for row in p]
    weights = [count * w / sum(raw) for w in raw]
    assert sum(weights) == pytest.approx(count)
    total = 0.0
    for j in range(classes):
        row = [sum(weights[i] * p[i, j] * p[i, k] for i in range(count)) for k in range(classes)]
        total += sum(row[k] for k in range(classes) if k != j) / sum(row)
    return total / classes


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_it_equals_loops(temperature):
    logits = np.random.default_rng(0).normal(size=(7, 4)) * 3
    ours = class_confusion_loss(torch.tensor(logits), temperature)
    assert float(ours) == pytest.approx(by_loops(logits, temperature), rel=1e-5)


def test_sure_predictions_are_not_confused_and_equal_ones_are_most():
    sure = 100 * torch.eye(4).repeat(2, 1)
    assert float(class_confusion_loss(sure)) == pytest.approx(0.0, abs=1e-6)
    assert float(class_confusion_loss(torch.zeros(6, 4))) == pytest.approx(3 / 4)


def test_weights_carry_no_gradient():
    """As in the authors' code: the gradient is that of the formula with W held still."""
    logits = torch.randn(5, 3, dtype=torch.float64).float().requires_grad_()
    (ours,) = torch.autograd.grad(class_confusion_loss(logits), logits)
    p = (logits / 2.5).softmax(1)
    weight = (1 + torch.exp((p * p.log()).sum(1))).detach()
    weight = 5 * weight / weight.sum()
    c = torch.einsum("i,ij,ik->jk", weight, p, p)
    c = c / c.sum(1, keepdim=True)
    (wanted,) = torch.autograd.grad((c.sum() - c.trace()) / 3, logits)
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-6)


def test_a_class_without_any_mass_gives_no_nan():
    logits = torch.tensor([[1000.0, 0.0, -1000.0], [0.0, 1000.0, -1000.0]], requires_grad=True)
    loss = class_confusion_loss(logits)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(logits.grad).all()


def test_autocast_leaves_it_in_float32():
    logits = torch.randn(6, 4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = class_confusion_loss(logits)
    assert loss.dtype == torch.float32
    assert float(loss) == float(class_confusion_loss(logits))
