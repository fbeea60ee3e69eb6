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


@in_fp32
def class_contrast(
    query: Tensor, own: Tensor, keys: Tensor, same: Tensor, temperature: float = 0.07
) -> Tensor:
    """Contrast with several positives: the categorical contrastive loss of Bi-Tuning (Zhong et al.,
    "Bi-tuning of pre-trained representations", arXiv 2011.06182).

        mean_i  −1/|P_i| Σ_{k ∈ P_i} log  exp(q_i·k / T) / Σ_{k' ∈ A_i} exp(q_i·k' / T)

    query: (B, D) unit vectors q. own: (B, D), the key of each. keys: (N, D), those of all, N may be
    0. same: (B, N) bool, which of these are of q_i's class. A_i is own_i and all N keys, P_i own_i
    and those of its class. Cross-entropy with the uniform distribution over P_i: at best log |P_i|.
    """
    scores = torch.cat([(query * own).sum(1, keepdim=True), query @ keys.T], 1) / temperature
    positive = torch.cat([same.new_ones(len(query), 1), same], 1)
    share = positive / positive.sum(1, keepdim=True)
    return cross_entropy(scores, share)
