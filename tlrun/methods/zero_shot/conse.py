"""ConSE: a weighted average of what the image resembles.

Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", ICLR 2014:

    f(x) = (1/Z) Σ_{t ≤ T} p(ŷ_t | x) s(ŷ_t),    class = argmax_z cos(f(x) − c, s(z) − c)

ŷ_1 ... ŷ_T are the most probable training classes of a head trained by cross-entropy, Z the sum of
their probabilities: 50 % tiger and 50 % lion is nearest to the liger's row. c is the mean row of
the training classes (`center`): attributes are all positive, and without it the cosines of all
classes are near 1. Zero-shot figures rank the unseen classes only, generalized ones all classes,
where the seen ones win almost always (H near 0) without calibration; its γ is chosen on seen
classes that are left out of the softmax in turn (class_attributes.py). x: (B, ...); scores: (B, C)
in [-1, 1]. Published T1 on AWA2's proposed split: 44.5, H 1.0 (Xian et al., TPAMI 2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tlrun.config.ranges import Count
from tlrun.fp32 import in_fp32
from tlrun.methods.zero_shot.class_attributes import HeadMethod, signatures
from tlrun.models.net import Forward, Net


class ConSE(HeadMethod):
    """top: T, how many training classes are averaged. center: whether rows are taken about c."""

    def __init__(self, top: Count = 10, center: bool = True) -> None:
        self.top, self.center = top, center

    @in_fp32
    def mixture(self, net: Net, out: Forward) -> Tensor:
        """(B, training classes): the weights of the average; rows sum to 1."""
        assert out.logits is not None
        p = out.logits.softmax(1)
        best = p.topk(min(self.top, p.shape[1]), dim=1)
        kept = torch.zeros_like(p).scatter(1, best.indices, best.values)
        return kept / kept.sum(1, keepdim=True)

    def explain_predictions(self, net: Net, x: Tensor, classes: Sequence[str]) -> list[str]:
        """The mixture: "50 % tiger, 50 % lion" (shares of 5 % and more)."""
        texts = []
        for row in self.mixture(net, net(x)):
            best = row.sort(descending=True)
            shares = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            texts.append(", ".join(f"{100 * p:.0f} % {classes[k]}" for k, p in shares if p >= 0.05))
        return texts

    def scores(self, net: Net, out: Forward) -> Tensor | None:
        rows = signatures(net)
        seen = rows.values[: rows.training_classes]
        middle = seen.mean(0) if self.center else torch.zeros_like(seen[0])
        point = self.mixture(net, out) @ seen - middle
        return F.normalize(point, dim=1) @ F.normalize(rows.values - middle, dim=1).T
