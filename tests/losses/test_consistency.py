"""Consistency losses against explicit loops in numpy."""

import math

import numpy as np
import pytest
import torch

from tlrun.losses.consistency import (
    class_balance_loss,
    confident,
    divergence_from,
    pseudo_label_consistency,
    squared_consistency,
)

GENERATOR = torch.Generator().manual_seed(0)
STUDENT = 3 * torch.randn(9, 4, generator=GENERATOR)
TEACHER = 3 * torch.randn(9, 4, generator=GENERATOR)


def softmax(logits):
    e = np.exp(logits.double().numpy())
    return e / e.sum(1, keepdims=True)


def test_confidence_is_the_largest_probability():
    expected = [float(row.max() >= 0.8) for row in softmax(TEACHER)]
    assert confident(TEACHER, 0.8).tolist() == expected
    assert 0 < sum(expected) < 9
    assert confident(TEACHER, 0.0).sum() == 9


def test_squared_consistency():
    p, q = softmax(STUDENT), softmax(TEACHER)
    each = [((a - b) ** 2).mean() if b.max() >= 0.8 else 0.0 for a, b in zip(p, q, strict=True)]
    found = squared_consistency(STUDENT, TEACHER, 0.8).item()
    assert found == pytest.approx(np.mean(each), rel=1e-5)


def test_pseudo_label_consistency():
    p, q = softmax(STUDENT), softmax(TEACHER)
    each = [-math.log(a[b.argmax()]) if b.max() >= 0.8 else 0.0 for a, b in zip(p, q, strict=True)]
    found = pseudo_label_consistency(STUDENT, TEACHER, 0.8).item()
    assert found == pytest.approx(np.mean(each), rel=1e-5)


def test_the_teacher_gets_no_gradient():
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    for loss in (
        squared_consistency(student, teacher, 0.5),
        pseudo_label_consistency(student, teacher, 0.5),
        divergence_from(teacher, student),
    ):
        assert torch.autograd.grad(loss, [student, teacher], allow_unused=True)[1] is None


def test_class_balance_is_zero_for_even_use_and_grows_with_collapse():
    even = torch.eye(4).repeat(2, 1) * 5
    assert class_balance_loss(even).item() == pytest.approx(0.0, abs=1e-5)
    mean = softmax(STUDENT).mean(0)
    bce = sum(-(0.25 * math.log(m) + 0.75 * math.log(1 - m)) for m in mean)
    least = -4 * (0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert class_balance_loss(STUDENT).item() == pytest.approx(bce - least, rel=1e-4)
    assert class_balance_loss(torch.tensor([[9.0, 0, 0, 0]])) > class_balance_loss(STUDENT)


def test_divergence_is_kullback_leibler():
    p, q = softmax(STUDENT), softmax(TEACHER)
    expected = (q * np.log(q / p)).sum(1).mean()
    assert divergence_from(TEACHER, STUDENT).item() == pytest.approx(expected, rel=1e-5)
    assert divergence_from(TEACHER, TEACHER).item() == pytest.approx(0.0, abs=1e-6)
