"""Fine-tuning: weights learned on the source, trained on with target labels.

    source phase:  min over f, h  E_S CE(h(f(x)), y)          (init=source; else the start is given)
    target phase:  min over f, h' E_T CE(h'(f(x)), y)         from those weights

h' is h where source and target have the same classes, else a new head. Which layers are carried
over, start anew or are held still is `transfer.*` (tlrun/models/transfer.py); a penalty on leaving
the source weights is a term (`terms=[l2_sp]`), which joins the target phase alone. Yosinski et al.,
"How transferable are features in deep neural networks?", NeurIPS 2014.
x: (B, C, H, W); y: (B,) int64.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from tlrun.config.ranges import BelowOne
from tlrun.data.problems.pair import Data
from tlrun.losses.classification import classification_loss
from tlrun.methods.base import (
    Batches,
    DomainOutput,
    Method,
    Output,
    Phase,
    Progress,
    Requirements,
    Update,
)
from tlrun.methods.query import Query
from tlrun.models.net import Net

SOURCE_HEAD = "source_classifier"  # exists only where the classes differ


class Finetune(Method):
    """label_smoothing: share in [0, 1) that is spread over all classes, in both phases."""

    requirements = Requirements(streams=("target",), target_labels="all", shared_classes=False)
    needs_images: bool | tuple[str, ...] = False
    takes_soft_labels = True
    init = "source"
    shared_head = True  # one for both domains: they have the same classes

    def __init__(self, label_smoothing: BelowOne = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def phases(self, data: Data) -> list[Phase]:
        return [*self.source_phases(), Phase("target", ("target",), transfer=True)]

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        self.shared_head = data.source_classes == data.classes
        if self.shared_head:
            net.add("classifier", net.new_head(data.num_classes))
        elif phase.streams == ("source",):
            net.add(SOURCE_HEAD, net.new_head(len(data.source_classes)))
        else:
            net.add("classifier", net.new_head(data.num_classes))

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        (domain,) = phase.streams
        drawn = batch[domain]
        out = net(drawn.x, head=self.head(net, domain))
        loss = classification_loss(out.logits, drawn.y, self.label_smoothing)
        shown = DomainOutput(drawn.x, out.features, out.logits, drawn.y, drawn.views)
        yield Update({"classification": loss}, outputs={domain: shown})

    @staticmethod
    def head(net: Net, domain: str) -> str:
        """The head of a domain's classes."""
        return SOURCE_HEAD if domain == "source" and SOURCE_HEAD in net.parts else "classifier"

    def predict(self, net: Net, x: Tensor, query: Query) -> Output:
        domain = "source" if query.task == "source" else query.domain
        head = self.head(net, domain)
        # no scores without a head for the classes: the source phase comes first, or there was none
        known = head in net.parts and (
            domain == "target" or self.shared_head or head == SOURCE_HEAD
        )
        out = net(x, head=head if known else None)
        return Output(scores=out.logits, features=out.features)
