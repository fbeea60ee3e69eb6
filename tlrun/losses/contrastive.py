"""Contrastive losses. Pure functions, in fp32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from tlrun.fp32 import in_fp32


@in_fp32
def nt_xent(a: Tensor, b: Tensor, temperature: float = 0.5) -> Tensor:
    """NT-Xent of Chen et al., "A simple framework for contrastive learning", ICML 2020, eq. 1.

    a, b: (B, D), two views of the same B images in the same order; B at least 2. Each of the 2 B
    vectors z is to find its partner among the 2 B − 1 others: cross-entropy over cos(z, z')/T.
    """
    z = normalize(torch.cat([a, b]), dim=1)
    count = len(a)
    scores = z @ z.T / temperature
    scores = scores.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=z.device), -torch.inf)
    partner = torch.arange(2 * count, device=z.device).roll(count)
    return cross_entropy(scores, partner)
