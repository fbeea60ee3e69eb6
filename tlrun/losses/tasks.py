"""Losses of tasks whose labels may be missing, in fp32, also under autocast.

Without a single label in the batch a loss is a zero that still has a graph, so that its task simply
does not pull in this step. Nothing here waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, smooth_l1_loss

from tlrun.fp32 import in_fp32


@in_fp32
def known_class_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy where the class is known. logits: (B, K); labels: (B,), -1 = unknown."""
    total = cross_entropy(
        logits,
        labels,
        ignore_index=-1,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return total / (labels >= 0).sum().clamp_min(1)


@in_fp32
def box_loss(boxes: Tensor, truth: Tensor, beta: float = 0.1) -> Tensor:
    """Smooth L1, summed over the sides and averaged over the boxes that are known.

    boxes, truth: (B, 4) in shares of the image; NaN in truth = unknown. A side that is off by d
    costs d²/(2 beta), from beta on d − beta/2. Girshick, "Fast R-CNN", ICCV 2015, eq. 2-3.
    """
    known = ~truth.isnan().any(1, keepdim=True)
    sides = torch.where(known, truth, boxes.detach())  # an unknown box costs nothing
    return smooth_l1_loss(boxes, sides, beta=beta, reduction="sum") / known.sum().clamp_min(1)
