"""Spectrum of a batch of features."""

from __future__ import annotations

import torch
from torch import Tensor

from tlrun.fp32 import in_fp32


@in_fp32
def squared_singular_values(features: Tensor) -> Tensor:
    """features: (B, D) -> (min(B, D),) float32, largest first; also under autocast.

    The sum of the first k is what batch spectral penalization adds (Chen et al., "Transferability
    vs. discriminability: batch spectral penalization for adversarial domain adaptation", ICML 2019,
    eq. 6), that of the last k batch spectral shrinkage (Chen et al., NeurIPS 2019).
    """
    return torch.linalg.svdvals(features).square()
