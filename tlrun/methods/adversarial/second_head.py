"""A further label head beside `classifier`, run on features by domain.

Features are computed once; a second head that has batch norm needs the same care as the first one:
a pass for each domain, or one over all of them, as the run's `batch_norm` says.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tlrun.models.net import Net


def head_by_domain(
    net: Net, part: str, features: Mapping[str, Tensor], mode: str
) -> dict[str, Tensor]:
    """features: domain -> (B, D). Returns domain -> logits (B, K)."""
    if mode == "joint":
        joined = net[part](torch.cat(list(features.values())))
        return dict(zip(features, joined.split([len(f) for f in features.values()]), strict=True))
    return {domain: net.run(part, x, domain) for domain, x in features.items()}
