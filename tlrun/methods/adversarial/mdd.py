"""MDD: an auxiliary head that agrees on the source and differs on the target, by a margin.

Zhang et al., "Bridging theory and algorithm for domain adaptation", ICML 2019. With ŷ = argmax
h(f(x)), the main head's own choice, and p' the auxiliary head's probabilities:

    min over h'    L = γ · E_S[ −log p'(ŷ|x) ] + E_T[ −log(1 − p'(ŷ|x)) ],     γ = e^margin
    min over f, h  E_S CE(h(f(x)), y)  −  λ · L                                 (h has no part in L)

solved in one update: h' stands behind a gradient reversal of λ = trade_off · (2/(1+e^(−slope·p)) −
1). x: (B, C, H, W); features: (B, D); logits: (B, K). The paper has no digits (Office-31: 88.9 %
with γ = 4, λ up to 0.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from torch import Tensor

from tlrun.config.ranges import NotNegative, Weight
from tlrun.data.problems.pair import Data
from tlrun.losses.adversarial import reversal_strength, reverse_gradient
from tlrun.losses.classification import classification_loss
from tlrun.losses.disparity import margin_disparity
from tlrun.methods.adversarial.second_head import head_by_domain
from tlrun.methods.base import Batches, Method, Phase, Progress, Requirements, Update
from tlrun.methods.batch_norm_forward import domain_outputs, forward_domains
from tlrun.models.net import Forward, Net


class MDD(Method):
    """margin: γ = e^margin. trade_off: factor on λ. slope: how fast λ rises (DANN's gamma)."""

    requirements = Requirements(streams=("source", "target"))
    needs_images = False
    batch_norm = "per_domain"

    def __init__(
        self, margin: NotNegative = 1.386, trade_off: Weight = 0.1, slope: NotNegative = 10.0
    ) -> None:
        self.margin, self.trade_off, self.slope = margin, trade_off, slope

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        for head in ("classifier", "auxiliary"):
            net.add(head, net.new_head(data.num_classes))

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        inputs = {name: batch[name].x for name in self.requirements.streams}
        out = forward_domains(net, inputs, self.batch_norm)
        strength = self.trade_off * reversal_strength("sigmoid", progress.fraction, self.slope)
        yield Update(
            {
                "classification": classification_loss(out["source"].logits, batch["source"].y),
                "disparity": self.disparity(net, out, strength),
            },
            outputs=domain_outputs(batch, out),
            metrics={"lambda": strength},
        )

    def disparity(self, net: Net, out: Mapping[str, Forward], strength: float) -> Tensor:
        """L, behind the reversal."""
        features = {name: reverse_gradient(one.features, strength) for name, one in out.items()}
        auxiliary = head_by_domain(net, "auxiliary", features, self.batch_norm)
        main = {name: one.logits for name, one in out.items() if one.logits is not None}
        return margin_disparity(
            auxiliary["source"],
            main["source"],
            auxiliary["target"],
            main["target"],
            math.exp(self.margin),
        )
