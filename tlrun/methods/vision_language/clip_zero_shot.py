"""CLIP's zero-shot classifier: the class whose text is nearest to the image.

    p(k | x) = softmax_k( cos(f(x), t_k) / τ ),      t_k = m / ‖m‖,   m = (1/P) Σ_p v_kp / ‖v_kp‖

f(x): the features of the image; v_kp: the vector of prompt p of class k, of the text encoder that
belongs to them; with several prompts the mean of the unit vectors is taken (prompt ensemble).
Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
section 3.1. τ = 0.01 is CLIP's own after training (its logit scale is clipped at 100). Nothing is
learned: no label plays a part. x: (B, ...); f(x): (B, D); scores: (B, K).
"""

from __future__ import annotations

from typing import Any

from tlrun.config.ranges import Positive
from tlrun.methods.base import Phase, Requirements
from tlrun.methods.vision_language.text_head import OnTarget, TextHead, read_text
from tlrun.models.net import Net


class CLIPZeroShot(OnTarget):
    """text: the file of the classes' text vectors. temperature: τ."""

    requirements = Requirements(streams=("target",), target_labels="none", shared_classes=False)

    def __init__(self, text: str | None = None, temperature: Positive = 0.01) -> None:
        self.text, self.temperature = text, temperature

    def phases(self, data: Any) -> list[Phase]:
        return [Phase("zero_shot", ("target",), steps=0, terms=False)]

    def build(self, phase: Phase, net: Net, data: Any) -> None:
        net.add("classifier", TextHead(data.num_classes, net.feature_dim, self.temperature))

    def start(self, phase: Phase, net: Net, data: Any) -> None:
        read_text(net, "classifier", self.text, data.classes)
