"""The source's loss, with the target shown to terms: MCC, BNM or AFN are this and one term.

    min over f, h of   E_S CE(h(f(x)), y) + Σ_terms weight · term(source, target)

`tlrun method=source_and_target 'terms=[mcc]'` is Jin et al., ECCV 2020; `[bnm]` Cui et al., CVPR
2020; `[afn]` Xu et al., ICCV 2019. Without a term it learns what `source_only` learns, and costs
twice as much.
"""

from __future__ import annotations

from collections.abc import Iterator

from tlrun.config.ranges import BelowOne
from tlrun.data.problems.pair import Data
from tlrun.losses.classification import classification_loss
from tlrun.methods.base import Batches, Method, Phase, Progress, Requirements, Update
from tlrun.methods.batch_norm_forward import domain_outputs, forward_domains
from tlrun.models.net import Net


class SourceAndTarget(Method):
    """Cross-entropy on the labelled source; label_smoothing in [0, 1)."""

    requirements = Requirements(streams=("source", "target"))
    needs_images = False
    takes_soft_labels = True
    batch_norm = "per_domain"

    def __init__(self, label_smoothing: BelowOne = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("classifier", net.new_head(data.num_classes))

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        inputs = {name: batch[name].x for name in ("source", "target")}
        out = forward_domains(net, inputs, self.batch_norm)
        source = out["source"].logits
        loss = classification_loss(source, batch["source"].y, self.label_smoothing)
        yield Update({"classification": loss}, outputs=domain_outputs(batch, out))
