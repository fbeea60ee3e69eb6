"""IAP: indirect attribute prediction.

Lampert, Nickisch, Harmeling, TPAMI 36 (2014), section 2.2.2:

    p(a_m = 1 | x) = Σ_{y seen} p(a_m | y) p(y | x),      then the rule of DAP

p(y | x) is the softmax of a head over the training classes, trained with the backbone by
cross-entropy; p(a_m | y) is 0 or 1 (the binary row of y, ½ where it is missing). x: (B, ...);
scores: (B, C). Published T1 on AWA2's proposed split: 35.9 (Xian et al., TPAMI 2018).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tlrun.methods.zero_shot.class_attributes import HeadMethod, signatures
from tlrun.methods.zero_shot.dap import posterior
from tlrun.models.net import Forward, Net

FLOOR = 1e-6  # of a probability: one confident class must not rule out all others for good


class IAP(HeadMethod):
    """threshold: of a continuous table, `overall` mean or the mean of each `column`."""

    def __init__(self, threshold: Literal["overall", "column"] = "overall") -> None:
        self.threshold = threshold

    def scores(self, net: Net, out: Forward) -> Tensor | None:
        assert out.logits is not None
        rows = signatures(net)
        first = rows.training_classes
        given = torch.where(rows.known[:first], rows.binary[:first], 0.5)
        p = out.logits.softmax(1)
        # each from its own sum: 1 − p(a_m = 1) would lose the digits of what is nearly impossible
        on, off = ((p @ a).clamp(FLOOR, 1 - FLOOR).log() for a in (given, 1 - given))
        return posterior(on, off, rows)
