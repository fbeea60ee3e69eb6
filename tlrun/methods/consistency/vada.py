"""VADA: domain-adversarial training with decision boundaries kept out of dense regions.

    min_θ max_d  E_S CE(p_θ(x), y)  +  trade_off · (− domain loss)
               + source_vat · E_S VAT(x)  +  target_weight · E_T [ H(p_θ(x)) + VAT(x) ]

VAT(x) = max_{‖r‖ ≤ radius} KL(p_θ(x) ‖ p_θ(x + r)), H the entropy. The domain game is DANN's
reversal with a constant λ. A running average of the weights predicts. Shu, Bui, Narui and Ermon, "A
DIRT-T approach to unsupervised domain adaptation", ICLR 2018, eq. 8: trade_off 1e-2, source_vat 1
(0 where source and target differ much), target_weight 1e-2, radius 3.5 on instance-normalised 32x32
images, decay 0.998, Adam 1e-3 with β1 = 0.5. x: (B, C, H, W). Published MNIST→MNIST-M 95.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tlrun.config.ranges import BelowOne, Positive, Weight
from tlrun.losses.classification import classification_loss
from tlrun.losses.entropy import entropy_loss
from tlrun.methods.adversarial.dann import DANN
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.batch_norm_forward import domain_outputs, forward_domains
from tlrun.methods.consistency.smoothness import net_vat
from tlrun.methods.consistency.teacher_student import Averaged
from tlrun.models.net import Net


@dataclass(eq=False)
class VADA(Averaged, DANN):
    """source_vat: weight on the source. target_weight: of entropy and VAT on the target. radius: of
    VAT, in the normalised image's own units (L2 over the whole image). ema: decay of the running
    average that predicts. The others are DANN's; its strength is constant here.
    """

    own_statistics = False  # it sees no image in training: all values are averaged

    trade_off: Weight = 0.01
    lambda_schedule: Literal["sigmoid", "linear", "constant"] = "constant"
    source_vat: Weight = 1.0
    target_weight: Weight = 0.01
    radius: Positive = 3.5
    ema: BelowOne = 0.998

    def __post_init__(self) -> None:
        super().__post_init__()

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        self.teacher(net, progress)
        inputs = {name: batch[name].x for name in ("source", "target")}
        out = forward_domains(net, inputs, self.batch_norm, taps=self.taps)
        domain, told_apart = self.domain_losses(net, out, self.strength(progress))
        losses = {
            "classification": classification_loss(out["source"].logits, batch["source"].y),
            "domain": domain,
            **self.target_losses(net, inputs["target"], out["target"].logits),
        }
        if self.source_vat:
            losses["source_vat"] = self.source_vat * self.vat(net, inputs["source"], "source")
        yield Update(
            losses, outputs=domain_outputs(batch, out), metrics={"domain_accuracy": told_apart}
        )

    def target_losses(self, net: Net, x: Tensor, logits: Tensor | None) -> dict[str, Tensor]:
        """target_weight · (entropy + VAT); nothing is computed for a weight of 0."""
        if not self.target_weight:
            return {}
        assert logits is not None
        return {
            "entropy": self.target_weight * entropy_loss(logits),
            "target_vat": self.target_weight * self.vat(net, x, "target"),
        }

    def vat(self, net: Net, x: Tensor, domain: str) -> Tensor:
        """VAT of one domain."""
        return net_vat(net, x, domain, radius=self.radius)
