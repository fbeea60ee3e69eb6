"""Self-ensembling: a mean teacher whose opinion of the target the student learns.

    min_θ  E_S CE(p_θ(a(x)), y)
         + consistency · [ E_T 1[max q ≥ threshold] · mean_k (p_θ,k(a(x)) − q_k)²,   q = p_θ'(a'(x))
                           + balance · Σ_k BCE(mean p_θ,k, 1/K) ]

θ' is the running average of θ, and predicts; a and a' are two draws of the target's augmentation
(`data.augment.target`; with `strong` a is that of `data.augment.target_strong`, with `view=clean`
a' is none). French, Mackiewicz and Fisher, "Self-ensembling for visual domain adaptation", ICLR
2018: consistency 3, threshold 0.968, balance 0.005 (0 between MNIST and USPS), decay 0.99, Adam
1e-3, 70,000 steps of 256 images. The balance joins in proportion to the confident share and inside
the weight of the consistency, as in their code. x: (B, C, H, W); y: (B,) int64. Published:
MNIST→USPS 98.3, USPS→MNIST 99.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from tlrun.config.ranges import BelowOne, Share, Weight
from tlrun.data.problems.pair import Data
from tlrun.losses.classification import classification_loss
from tlrun.losses.consistency import class_balance_loss, confident, squared_consistency
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.batch_norm_forward import forward_domains
from tlrun.methods.consistency.teacher_student import Consistency, shown_to
from tlrun.models.net import Net


class SelfEnsembling(Consistency):
    """consistency: weight; balance: relative to it. threshold: least confidence of the teacher.

    ema: its decay. strong: whether the student sees the target's strong view (else a second draw of
    the weak one). view: what the teacher sees of the target: weak | clean.
    """

    def __init__(
        self,
        consistency: Weight = 3.0,
        threshold: Share = 0.968,
        balance: Weight = 0.005,
        ema: BelowOne = 0.99,
        strong: bool = False,
        view: Literal["weak", "clean"] = "weak",
    ) -> None:
        super().__init__(ema)
        self.consistency, self.threshold, self.balance = consistency, threshold, balance
        self.student, self.view = "strong" if strong else "weak", view

    def phases(self, data: Data) -> list[Phase]:
        views = (self.student,) if self.view == "weak" else (self.student, self.view)
        return [Phase(streams=self.requirements.streams, views={"target": views})]

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        teacher = self.teacher(net, progress)
        source, target = batch["source"], batch["target"]
        # Where both see the weak view, each has a draw of its own.
        taught = target.x if self.view == "weak" else target.views[self.view]
        opinion = teacher.teach(taught, "target").logits
        inputs = {"source": source.x, "target": target.views[self.student]}
        out = forward_domains(net, inputs, self.batch_norm)
        student = out["target"].logits
        assert opinion is not None
        assert student is not None
        sure = confident(opinion, self.threshold).mean()
        losses = {
            "classification": classification_loss(out["source"].logits, source.y),
            "consistency": self.consistency * squared_consistency(student, opinion, self.threshold),
        }
        if self.balance:
            losses["balance"] = self.consistency * self.balance * sure * class_balance_loss(student)
        shown = shown_to(inputs, out, source.y)
        yield Update(losses, outputs=shown, metrics={"confident": sure})
