"""A start without labels: a pretext task on the source's images, then fine-tuning or a probe.

    source phase:  min over f, g  E_S [ loss of the pretext task ](g(f(x)))       no label is read
    target phase:  min over f, h  E_T CE(h(f(x)), y)                              from those weights

g is a head of the pretext task that is not used afterwards; each subclass says what the task is.
`transfer.freeze=[backbone]` makes the target phase a linear probe. The source may have no labels.
Where the target has none either, or target_labels=none withholds them, the source phase is all:
the net then knows no classes, its features are scored (`evaluate/evaluators/cluster_figures.py`),
and another run starts from it (`init=RUN_DIR`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor, nn

from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.fine_tuning.finetune import Finetune
from tlrun.models.net import Net


class Pretext(Finetune):
    """A subclass gives `pretext_head`, the name of g, `new_head` and `pretext_step`."""

    requirements = replace(Finetune.requirements, source_labels=False)
    needs_images = ("source",)
    pretext_head: str

    def phases(self, data: Data) -> list[Phase]:
        if self.init == "source":
            self.check_images(data)
        if data.num_classes:
            return super().phases(data)
        if not self.source_phases():
            raise ConfigError(
                f"there are no target labels, and init={self.init} leaves out the source phase: "
                "nothing is left to learn; set init=source, or give labels (target_labels=all)"
            )
        return self.source_phases()

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        self.shared_head = data.source_classes == data.classes
        if phase.streams == ("source",):
            net.add(self.pretext_head, self.new_head(net))
        else:
            net.add("classifier", net.new_head(data.num_classes))

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        if phase.name == "source":
            yield self.pretext_step(net, batch["source"].x)
        else:
            yield from super().step(net, batch, phase, progress)

    def check_images(self, data: Data) -> None:
        """Raises ConfigError where the task cannot be set on these images."""

    def new_head(self, net: Net) -> nn.Module:
        """g: (B, D) features -> what the loss of the task takes."""
        raise NotImplementedError

    def pretext_step(self, net: Net, x: Tensor) -> Update:
        """The update of one batch of the source, x: (B, C, H, W)."""
        raise NotImplementedError
