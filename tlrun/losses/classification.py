"""Cross-entropy in fp32, also under autocast."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from tlrun.fp32 import in_fp32


@in_fp32
def classification_loss(
    logits: Tensor | None, labels: Tensor | None, label_smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy. logits: (B, K) of any float type; labels: (B,) int64, or (B, K)
    shares of the classes where images are mixed -> scalar fp32.

    Raises ValueError if either is missing: a stream without labels cannot be classified.
    """
    if logits is None or labels is None:
        raise ValueError("a classification loss needs logits and labels; this stream has none")
    return cross_entropy(logits, labels, label_smoothing=label_smoothing)
