"""Entropy losses on unlabelled logits."""

from __future__ import annotations

from torch import Tensor

from tlrun.fp32 import in_fp32


@in_fp32
def entropy_loss(logits: Tensor) -> Tensor:
    """Mean entropy of the predictions, in nats: confident predictions have a small one.

    logits: (B, K) -> scalar fp32. Grandvalet & Bengio, "Semi-supervised learning by entropy
    minimization", NeurIPS 2004.
    """
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean()


@in_fp32
def information_loss(logits: Tensor, diversity: float = 1.0) -> Tensor:
    """mean H(p) − diversity · H(mean p). logits: (B, K) -> scalar fp32 (SHOT, eq. 3-4)."""
    value = entropy_loss(logits)
    return value + diversity * diversity_loss(logits) if diversity else value


@in_fp32
def diversity_loss(logits: Tensor) -> Tensor:
    """−H(mean p): small when the classes are used evenly over the batch.

    logits: (B, K) -> scalar fp32 in [−log K, 0]. The diversity half of information maximisation
    (Liang et al., "SHOT", ICML 2020, eq. 4).
    """
    mean = logits.softmax(1).mean(0)
    return (mean * (mean + 1e-8).log()).sum()
