"""Adaptive feature norm: features of a domain are driven to larger norms.

Xu et al., "Larger norm more transferable: an adaptive feature norm approach for unsupervised domain
adaptation", ICCV 2019. features: (B, D) of one domain -> scalar fp32.
"""

from __future__ import annotations

from torch import Tensor

from tlrun.fp32 import in_fp32


@in_fp32
def stepwise_norm_loss(features: Tensor, step: float = 1.0) -> Tensor:
    """SAFN, eq. 5: mean of (‖f(x)‖.detach() + Δr − ‖f(x)‖)²; step: Δr.

    Each example's norm is to grow by Δr from where it is. The value is Δr² at all times; only the
    gradient, −2 Δr f / ‖f‖ / B, says anything.
    """
    norms = features.norm(dim=1)
    return (norms.detach() + step - norms).square().mean()


@in_fp32
def hard_norm_loss(features: Tensor, radius: float = 25.0) -> Tensor:
    """HAFN, eq. 4: (mean ‖f(x)‖ − R)²; radius: R."""
    return (features.norm(dim=1).mean() - radius).square()
