"""Consistency of a student with a teacher who sees the same images otherwise. Pure, in fp32."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from tlrun.fp32 import in_fp32


@in_fp32
def confident(teacher: Tensor, threshold: float) -> Tensor:
    """teacher: logits (B, K) -> (B,) float, 1 where its largest probability is ≥ threshold."""
    return (teacher.detach().softmax(1).amax(1) >= threshold).float()


@in_fp32
def squared_consistency(student: Tensor, teacher: Tensor, threshold: float) -> Tensor:
    """Mean over the batch of 1[confident] · mean_k (p_k − q_k)², p, q the softmax of both.

    student, teacher: logits (B, K) -> scalar. French, Mackiewicz and Fisher, "Self-ensembling for
    visual domain adaptation", ICLR 2018, section 3.3 (confidence thresholding).
    """
    away = student.softmax(1) - teacher.detach().softmax(1)
    return (confident(teacher, threshold) * away.square().mean(1)).mean()


@in_fp32
def pseudo_label_consistency(student: Tensor, teacher: Tensor, threshold: float) -> Tensor:
    """Mean over the batch of 1[confident] · CE(student, argmax teacher).

    student, teacher: logits (B, K) -> scalar. Sohn et al., "FixMatch", NeurIPS 2020, eq. 4.
    """
    labels = teacher.detach().argmax(1)
    each = cross_entropy(student, labels, reduction="none")
    return (confident(teacher, threshold) * each).mean()


@in_fp32
def class_balance_loss(logits: Tensor) -> Tensor:
    """Σ_k BCE(p̄_k, 1/K) − its least value, p̄ the mean softmax of a batch: 0 if all are used alike.

    logits: (B, K) -> scalar ≥ 0. French et al., section 3.4.
    """
    count = logits.shape[1]
    mean = logits.softmax(1).mean(0).clamp(1e-6, 1 - 1e-6)
    share = 1.0 / count
    least = -(math.log(share) * share + math.log1p(-share) * (1 - share)) if count > 1 else 0.0
    cross = -(share * mean.log() + (1 - share) * torch.log1p(-mean))
    return (cross - least).sum()


@in_fp32
def divergence_from(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean KL(q ‖ p), q the teacher's softmax, without gradient. logits (B, K) -> scalar."""
    log_q = teacher.detach().log_softmax(1)
    return kl_div(student.log_softmax(1), log_q, log_target=True, reduction="batchmean")
