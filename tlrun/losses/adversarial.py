"""Domain-adversarial pieces: gradient reversal, the domain loss, the schedule of λ.

Source: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 17 (2016).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

REVERSAL_SCHEDULES = ("sigmoid", "linear", "constant")


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grads[0], None


def reverse_gradient(x: Tensor, strength: float = 1.0) -> Tensor:
    """The identity whose gradient is multiplied by −strength (eq. 16-17)."""
    reversed_: Tensor = _Reverse.apply(x, strength)
    return reversed_


def domain_loss(source_logits: Tensor, target_logits: Tensor) -> Tensor:
    """½·BCE(source, 1) + ½·BCE(target, 0): each domain counts the same whatever its batch size.

    source_logits: (B,), target_logits: (B',) float -> scalar.
    """
    source = binary_cross_entropy_with_logits(
        source_logits.float(), torch.ones_like(source_logits, dtype=torch.float32)
    )
    target = binary_cross_entropy_with_logits(
        target_logits.float(), torch.zeros_like(target_logits, dtype=torch.float32)
    )
    return 0.5 * (source + target)


def domain_accuracy(source_logits: Tensor, target_logits: Tensor) -> Tensor:
    """Share of domains told apart, both weighted alike; 0.5 = confused. Scalar, no gradient."""
    with torch.no_grad():
        return 0.5 * ((source_logits > 0).float().mean() + (target_logits <= 0).float().mean())


def reversal_strength(schedule: str, p: float, gamma: float = 10.0) -> float:
    """λ at p in [0, 1): sigmoid = 2/(1+exp(−γp)) − 1 (section 5.2.2), linear = p, constant = 1."""
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return p
    if schedule == "sigmoid":
        return 2.0 / (1.0 + math.exp(-gamma * p)) - 1.0
    raise ValueError(f"unknown schedule of λ '{schedule}'; valid: sigmoid, linear, constant")
