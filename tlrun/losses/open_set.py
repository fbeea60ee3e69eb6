"""The boundary around what is unknown. Pure, in fp32."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from tlrun.fp32 import in_fp32


@in_fp32
def unknown_boundary_loss(logits: Tensor, share: float = 0.5) -> Tensor:
    """Mean of −t·log p_unknown − (1 − t)·log(1 − p_unknown), the unknown being the last class.

    logits: (B, K + 1) -> scalar. share: t. Saito et al., "Open set domain adaptation by
    backpropagation", ECCV 2018, eq. 3.
    """
    against = logits[:, -1] - logits[:, :-1].logsumexp(1)  # log of p_unknown / (1 − p_unknown)
    return -(share * logsigmoid(against) + (1 - share) * logsigmoid(-against)).mean()
