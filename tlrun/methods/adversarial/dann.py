"""DANN: domain-adversarial training with gradient reversal.

Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 17 (2016), eq. 18 and
section 5.2:

    min_(f,h) max_d  E_S CE(h(f(x)), y)  −  λ·[ ½·E_S BCE(d(f(x)), 1) + ½·E_T BCE(d(f(x)), 0) ]

solved in one update by reversing the gradient between f and d. λ = 2/(1+exp(−10p)) − 1.
x: (B, C, H, W); features f(x): (B, D); domain logits d: (B,). Published MNIST→MNIST-M: 76.66 %;
presets `conf/experiment/mnist_mnistm/dann.yaml` (ours) and `dann_paper.yaml` (the paper's net and
schedule).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tlrun.config.ranges import BelowOne, Depth, NotNegative, Weight, Width
from tlrun.data.problems.pair import Data
from tlrun.losses.adversarial import (
    domain_accuracy,
    domain_loss,
    reversal_strength,
    reverse_gradient,
)
from tlrun.losses.classification import classification_loss
from tlrun.methods.base import Batches, Method, Phase, Progress, Requirements, Update
from tlrun.methods.batch_norm_forward import domain_outputs, forward_domains
from tlrun.models.heads import DomainHead
from tlrun.models.net import Forward, Net


@dataclass(eq=False)
class DANN(Method):
    """Gradient reversal.

    trade_off: factor on λ. lambda_schedule: sigmoid (the paper's) | linear | constant. gamma: slope
    of the sigmoid. attach: where the domain head sits, "features" or a stage ("classifier.fc1").
    domain_hidden: width of its hidden layers. domain_layers: their number. domain_dropout: in them;
    it steadies the game, without it the domain head is outrun (docs/decisions.md, "DANN"; the paper
    has none).
    """

    requirements = Requirements(streams=("source", "target"))
    needs_images = False
    takes_soft_labels = True
    batch_norm = "per_domain"

    trade_off: Weight = 1.0
    lambda_schedule: Literal["sigmoid", "linear", "constant"] = "sigmoid"
    gamma: NotNegative = 10.0
    attach: str = "features"
    domain_hidden: Width = 100
    domain_layers: Depth = 1
    domain_dropout: BelowOne = 0.5

    def __post_init__(self) -> None:
        self.taps = () if self.attach == "features" else (self.attach,)

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("classifier", net.new_head(data.num_classes))
        self.add_domain_head(net, self.attached_width(net))

    def attached_width(self, net: Net) -> int:
        """D, of what the domain head is attached to."""
        return net.width_of(self.attach) if self.taps else net.feature_dim

    def add_domain_head(self, net: Net, width: int) -> None:
        """width: of what it is given."""
        size = (self.domain_hidden, self.domain_layers)
        net.add("domain_head", DomainHead(width, *size, dropout=self.domain_dropout))

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        inputs = {name: batch[name].x for name in ("source", "target")}
        unread = () if phase.terms or self.reads_target_logits else ("target",)
        out = forward_domains(net, inputs, self.batch_norm, taps=self.taps, unread=unread)
        strength = self.strength(progress)
        domain, told_apart = self.domain_losses(net, out, strength)
        classification = classification_loss(out["source"].logits, batch["source"].y)
        yield Update(
            {"classification": classification, "domain": domain},
            outputs=domain_outputs(batch, out),
            metrics={"lambda": strength, "domain_accuracy": told_apart},
        )

    @property
    def reads_target_logits(self) -> bool:
        """Whether the domain losses may do so, as a subclass's: DANN's do not."""
        return type(self).domain_losses is not DANN.domain_losses

    def strength(self, progress: Progress) -> float:
        return self.trade_off * reversal_strength(
            self.lambda_schedule, progress.fraction, self.gamma
        )

    def domain_losses(
        self,
        net: Net,
        out: Mapping[str, Forward],
        strength: float,
        source_weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The domain loss behind the reversal, and the share of domains told apart.

        source_weights: (B,), of the source's images.
        """
        attached = [self._attached(out[name]) for name in ("source", "target")]
        logits = net["domain_head"](reverse_gradient(torch.cat(attached), strength))
        source, target = logits.split([len(a) for a in attached])
        return domain_loss(source, target, source_weights), domain_accuracy(source, target)

    def _attached(self, out: Forward) -> Tensor:
        return out.taps[self.attach].flatten(1) if self.taps else out.features
