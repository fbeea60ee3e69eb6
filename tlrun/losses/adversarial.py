"""Domain-adversarial pieces: gradient reversal, the domain loss, the schedule of λ, conditioning.

Sources: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 17 (2016); Long et
al., "Conditional Adversarial Domain Adaptation" (CDAN), NeurIPS 2018; Tzeng et al., "Adversarial
Discriminative Domain Adaptation" (ADDA), CVPR 2017.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from tlrun.fp32 import in_fp32


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


@in_fp32
def domain_loss(
    source_logits: Tensor,
    target_logits: Tensor,
    source_weights: Tensor | None = None,
    target_weights: Tensor | None = None,
) -> Tensor:
    """½·BCE(source, 1) + ½·BCE(target, 0): each domain counts the same whatever its batch size.

    source_logits: (B,), target_logits: (B',) float -> scalar. Weights of the images, (B,) and
    (B',), are divided by their sum over the domain's batch.
    """
    source = _towards(1.0, source_logits, source_weights)
    return 0.5 * (source + _towards(0.0, target_logits, target_weights))


@in_fp32
def fooling_loss(target_logits: Tensor) -> Tensor:
    """BCE(target, 1), the inverted labels of a GAN (ADDA, eq. 7): the encoder's side of the game.

    target_logits: (B,) float -> scalar fp32.
    """
    return _towards(1.0, target_logits)


def _towards(label: float, logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean BCE of one domain's logits (B,) with the same label for all."""
    truth = torch.full_like(logits, label)
    if weights is None:
        return binary_cross_entropy_with_logits(logits, truth)
    each = binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (weights * each).sum() / weights.sum()


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


# ---- conditioning on the prediction (CDAN) --------------------------------------------------


@in_fp32
@torch.no_grad()
def entropy_weights(logits: Tensor) -> Tensor:
    """w = 1 + e^(−H(softmax)), CDAN+E's: images that are easy to classify count up to twice.

    logits: (B, K) -> (B,) fp32 in (1, 2], without a gradient: a weight says which images to align
    and is not an aim of its own. (The authors' code passes a reversed gradient on to the entropy.)
    """
    log_p = logits.log_softmax(1)
    return 1.0 + (log_p.exp() * log_p).sum(1).exp()


@in_fp32
def multilinear(features: Tensor, probabilities: Tensor) -> Tensor:
    """f ⊗ g, flattened (CDAN, eq. 5). (B, D), (B, K) -> (B, D·K) fp32; g_k f_d is at d·K + k."""
    return (features.unsqueeze(2) * probabilities.unsqueeze(1)).flatten(1)


class RandomisedMultilinear(nn.Module):
    """(R_f f) ⊙ (R_g g) / √d, whose inner products are those of f ⊗ g on average (CDAN, eq. 6).

    features (B, D), probabilities (B, K) -> (B, d). The entries of R_f and R_g are drawn from
    N(0, 1) once. They are buffers: the domain head knows no other projection, so they belong to the
    checkpoint.
    """

    of_features: Tensor
    of_classes: Tensor

    def __init__(self, feature_dim: int, num_classes: int, dim: int = 1024) -> None:
        super().__init__()
        self.register_buffer("of_features", torch.randn(feature_dim, dim))
        self.register_buffer("of_classes", torch.randn(num_classes, dim))

    @in_fp32
    def forward(self, features: Tensor, probabilities: Tensor) -> Tensor:
        of_features, of_classes = (
            r.to(features.dtype) for r in (self.of_features, self.of_classes)
        )
        joint = (features @ of_features) * (probabilities @ of_classes)
        return joint / math.sqrt(joint.shape[1])
