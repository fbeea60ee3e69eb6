"""FixMatch between domains: what a teacher is sure of in a plain image holds for a distorted one.

    min_θ  E_S CE(p_θ(x), y)
         + consistency · E_T 1[max q ≥ threshold] · CE(p_θ(strong(x)), argmax q),  q = p_θ'(weak(x))
         − diversity · H(mean p_θ(strong(x)))

θ' is the running average of θ, and predicts; ema=0 makes it the net of the step before. `strong` is
`data.augment.target_strong`, `weak` the target's own augmentation (`view=clean`: none). With
`source_strong` the source's strong view joins its plain one. Sohn et al., "FixMatch", NeurIPS 2020,
eq. 3-4, there on labelled and unlabelled images of one domain; with two domains also Berthelot et
al., "AdaMatch", ICLR 2022. The diversity keeps rare classes alive (Liang et al., ICML 2020, eq. 4).
x: (B, C, H, W); y: (B,) int64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch

from tlrun.config.ranges import BelowOne, Share, Weight
from tlrun.data.problems.pair import Data
from tlrun.losses.classification import classification_loss
from tlrun.losses.consistency import confident, pseudo_label_consistency
from tlrun.losses.entropy import diversity_loss
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.batch_norm_forward import forward_domains
from tlrun.methods.consistency.teacher_student import Consistency, shown_to
from tlrun.models.net import Net


class FixMatchDA(Consistency):
    """consistency, diversity: weights. threshold: least confidence of the teacher. ema: its decay.

    view: what the teacher sees of the target: weak | clean. source_strong: whether the source is
    learned in its strong view too.
    """

    def __init__(
        self,
        consistency: Weight = 1.0,
        threshold: Share = 0.9,
        diversity: Weight = 0.0,
        ema: BelowOne = 0.99,
        view: Literal["weak", "clean"] = "weak",
        source_strong: bool = False,
    ) -> None:
        super().__init__(ema)
        self.consistency, self.threshold, self.diversity = consistency, threshold, diversity
        self.view, self.source_strong = view, source_strong

    def phases(self, data: Data) -> list[Phase]:
        target = ("strong",) if self.view == "weak" else ("strong", self.view)
        views = {"target": target, "source": ("strong",) if self.source_strong else ()}
        return [Phase(streams=self.requirements.streams, views=views)]

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        teacher = self.teacher(net, progress)
        source, target = batch["source"], batch["target"]
        opinion = teacher.teach(target.views.get(self.view, target.x), "target").logits
        x, y = source.x, source.y
        if self.source_strong:
            assert y is not None
            x, y = torch.cat([x, source.views["strong"]]), torch.cat([y, y])
        inputs = {"source": x, "target": target.views["strong"]}
        out = forward_domains(net, inputs, self.batch_norm)
        student = out["target"].logits
        assert opinion is not None
        assert student is not None
        losses = {
            "classification": classification_loss(out["source"].logits, y),
            "consistency": self.consistency
            * pseudo_label_consistency(student, opinion, self.threshold),
        }
        if self.diversity:
            losses["diversity"] = self.diversity * diversity_loss(student)
        sure = confident(opinion, self.threshold).mean()
        yield Update(losses, outputs=shown_to(inputs, out, y), metrics={"confident": sure})
