"""Source only: the lower bound that every adaptation method must beat.

    min E_(x,y)~S [ CE(h(f(x)), y) ]

Shown with the same augmentation, input normalisation and number of images as the method it is
compared with, since augmenting the source alone is worth more than most methods. MNIST→MNIST-M:
52.25 % published (Ganin et al., JMLR 2016); ours in
`conf/experiment/mnist_mnistm/source_only.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tlrun.config.ranges import BelowOne
from tlrun.data.problems.pair import Data
from tlrun.losses.classification import classification_loss
from tlrun.methods.base import Batches, DomainOutput, Method, Phase, Progress, Requirements, Update
from tlrun.models.net import Net


class SourceOnly(Method):
    """Cross-entropy on the labelled source; label_smoothing in [0, 1)."""

    requirements = Requirements(streams=("source",))
    needs_images: bool | tuple[str, ...] = False
    takes_soft_labels = True

    def __init__(self, label_smoothing: BelowOne = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("classifier", net.new_head(data.num_classes))

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        (stream,) = phase.streams
        drawn = batch[stream]
        out = net(drawn.x, stream)
        loss = classification_loss(out.logits, drawn.y, self.label_smoothing)
        shown = DomainOutput(drawn.x, out.features, out.logits, drawn.y, drawn.views)
        yield Update({"classification": loss}, outputs={stream: shown})
