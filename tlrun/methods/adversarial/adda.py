"""ADDA: an encoder of the target's own, trained until its features pass for the source's.

    source       min over f, h   E_S CE(h(f(x)), y)
    adversarial  min over d      ½·E_S BCE(d(h(f(x))), 1) + ½·E_T BCE(d(h(f_T(x))), 0)
                 min over f_T    E_T BCE(d(h(f_T(x))), 1)       f_T starts as a copy of f

d is shown the logits, or with attach=features what h is. In the second phase f and h are frozen and
a step is two updates, of d and of f_T, whose labels are inverted, each on a forward pass of its
own. The target is classified by h(f_T(x)). Tzeng et al., "Adversarial discriminative domain
adaptation", CVPR 2017: Adam with lr 2e-4 and β₁ = 0.5; d on the logits is their code's.
x: (B, C, H, W); features: (B, D). Published: MNIST→USPS 89.4, USPS→MNIST 90.1, SVHN→MNIST 76.0 %.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from torch import Tensor, cat, no_grad

from tlrun.config.ranges import BelowOne, Depth, LearningRate, Width
from tlrun.data.problems.pair import Data
from tlrun.losses.adversarial import domain_accuracy, domain_loss, fooling_loss
from tlrun.methods.base import Batches, DomainOutput, Output, Phase, Progress, Requirements, Update
from tlrun.methods.fine_tuning.source_only import SourceOnly
from tlrun.methods.query import Query
from tlrun.methods.source_free.source_hypothesis import check_carried
from tlrun.models.heads import DomainHead
from tlrun.models.net import Net

ENCODER = "backbone_target"  # as a backbone it has its learning rate and `optimizer.layer_decay`
STARTS = ("auto", "source", "pretrained", "scratch")  # anything else is the run of a source model


class ADDA(SourceOnly):
    """adversarial_lr: learning rate of the second phase (None = `optimizer.lr`). beta1: of its
    Adam. attach: what d is shown, "logits" (as in the authors' code, whose encoders end there) or
    "features". domain_hidden, domain_layers, domain_dropout: of d. label_smoothing: in the source
    phase.
    """

    requirements = Requirements(streams=("source", "target"))
    needs_images = ("adversarial",)  # of two backbones
    init = "source"  # each encoder has batch statistics of its own, so `joint` loses nothing
    adapts = False  # whether there is a target encoder: a stop may come before

    def __init__(
        self,
        adversarial_lr: LearningRate | None = 2e-4,
        beta1: BelowOne = 0.5,
        attach: Literal["logits", "features"] = "logits",
        domain_hidden: Width = 500,
        domain_layers: Depth = 2,
        domain_dropout: BelowOne = 0.0,
        label_smoothing: BelowOne = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        rate = {} if adversarial_lr is None else {"lr": adversarial_lr}
        self.optimizer = {"betas": (beta1, 0.999), **rate}  # SGD ignores betas
        self.attach = attach
        self.domain_size, self.domain_dropout = (domain_hidden, domain_layers), domain_dropout

    def phases(self, data: Data) -> list[Phase]:
        source = Phase("source", ("source",), terms=False)
        still, both = ("backbone", "classifier"), self.requirements.streams
        adversarial = Phase("adversarial", both, frozen=still, optimizer=self.optimizer)
        return [source, adversarial] if self.init in STARTS else [adversarial]

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        super().build(phase, net, data)
        if phase.name == "adversarial" and ENCODER not in net.parts:
            net.add(ENCODER, copy.deepcopy(net.backbone))
            width = data.num_classes if self.attach == "logits" else net.feature_dim
            head = DomainHead(width, *self.domain_size, dropout=self.domain_dropout)
            net.add("domain_head", head)

    def start(self, phase: Phase, net: Net, data: Data) -> None:
        if phase.name == "adversarial":
            if self.init not in STARTS:  # what is frozen all along has to know the classes
                check_carried(net)
            net[ENCODER].load_state_dict(net.backbone.state_dict())
            self.adapts = True

    def shown(self, phase: Phase) -> Mapping[str, tuple[str, ...]]:
        """The encoder's update has no images of the source."""
        shown = super().shown(phase)
        return shown if phase.name == "source" else {"target": shown["target"]}

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        if phase.name == "source":
            yield from super().step(net, batch, phase, progress)
        else:
            yield self._domain_update(net, batch)
            yield self._encoder_update(net, batch)

    def _domain_update(self, net: Net, batch: Batches) -> Update:
        with no_grad():
            shown = [self._shown(net, batch[d].x, d)[0] for d in self.requirements.streams]
        s, t = net["domain_head"](cat(shown)).split([len(images) for images in shown])
        told: dict[str, Tensor | float] = {"domain_accuracy": domain_accuracy(s, t)}
        return Update({"domain": domain_loss(s, t)}, ("domain_head",), main=False, metrics=told)

    def _encoder_update(self, net: Net, batch: Batches) -> Update:
        x, y = batch["target"].x, batch["target"].y
        shown, features, logits = self._shown(net, x, "target")
        outputs = {"target": DomainOutput(x, features, logits, y)}
        loss = fooling_loss(net["domain_head"](shown))
        return Update({"encoder": loss}, parts=(ENCODER,), outputs=outputs)

    def _shown(self, net: Net, x: Tensor, domain: str) -> tuple[Tensor, Tensor, Tensor]:
        """What d is shown of images of a domain, their features and their logits."""
        features = self.features(net, x, domain)
        logits = net.run("classifier", features, domain)
        return logits if self.attach == "logits" else features, features, logits

    def features(self, net: Net, x: Tensor, domain: str) -> Tensor:
        """(B, D) by the domain's encoder: the source's for both until the target has one."""
        encoder = ENCODER if domain == "target" and self.adapts else "backbone"
        return net.run(encoder, x, domain)

    def predict(self, net: Net, x: Tensor, query: Query) -> Output:
        features = self.features(net, x, query.domain)
        scores = net.run("classifier", features, query.domain)
        return Output(scores=scores, features=features)

    def prediction_parts(self, parts: Mapping[str, Mapping[str, Tensor]]) -> Mapping[str, Any]:
        return {**parts, "backbone": parts[ENCODER]} if self.adapts else parts

    def state_dict(self) -> dict[str, Any]:
        return {"adapts": self.adapts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adapts = bool(state["adapts"])
