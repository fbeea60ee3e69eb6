"""Minimum class confusion (MCC) on unlabelled logits."""

from __future__ import annotations

from torch import Tensor

from tlrun.fp32 import in_fp32
from tlrun.losses.adversarial import entropy_weights


@in_fp32
def class_confusion_loss(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """How much the classes are mistaken for each other: logits (B, K) -> scalar fp32 in [0, 1).

    Ŷ = softmax(Z / T) (B, K);  C = Ŷᵀ W Ŷ (K, K), rows scaled to sum 1;  Σ_{j ≠ j'} C_jj' / K.
    W is diagonal, W_ii ∝ 1 + exp(−H(ŷ_i)) with sum B: sure predictions count more. Jin et al.,
    "Minimum class confusion for versatile domain adaptation", ECCV 2020, eq. 2-7 (T = 2.5). As in
    the authors' code, W carries no gradient.
    """
    scaled = logits / temperature
    p, weight = scaled.softmax(1), entropy_weights(scaled)
    weight = len(p) * weight / weight.sum()
    confusion = (p * weight[:, None]).T @ p
    # a class that no example leans to has an empty row
    confusion = confusion / confusion.sum(1, keepdim=True).clamp_min(1e-12)
    return (confusion.sum() - confusion.diagonal().sum()) / logits.shape[1]
