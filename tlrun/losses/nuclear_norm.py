"""Batch nuclear-norm maximisation (BNM) on unlabelled logits."""

from __future__ import annotations

import torch
from torch import Tensor

from tlrun.fp32 import in_fp32


@in_fp32
def nuclear_norm_loss(logits: Tensor) -> Tensor:
    """−‖P‖_* / B with P = softmax(logits): logits (B, K) -> scalar fp32 in [−√(min(B, K) / B), 0).

    A large nuclear norm means predictions that are sure (a large Frobenius norm) and diverse (a
    high rank). Cui et al., "Towards discriminability and diversity: batch nuclear-norm maximization
    under label insufficient situations", CVPR 2020, eq. 10. The authors' code takes the mean
    singular value instead, which is this times B / min(B, K).
    """
    p = logits.softmax(1)
    return -torch.linalg.svdvals(p).sum() / len(p)
