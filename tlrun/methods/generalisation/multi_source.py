"""What methods with several labelled sources share: a stream of each, one net, a risk of each.

The batch of a step holds `trainer.batch_size` images of every source, forwarded together, as in
DomainBed (Gulrajani and Lopez-Paz, "In search of lost domain generalization", ICLR 2021), or one
source after the other (`batch_norm=separate_forward`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.losses.classification import classification_loss
from tlrun.methods.base import Batches, Method, Phase, Requirements
from tlrun.methods.batch_norm_forward import forward_domains
from tlrun.models.net import Forward, Net


class MultiSource(Method):
    """Base class: `step` gets a batch of every source under its name."""

    requirements = Requirements(streams=("source",), sources=2)
    modes: tuple[str, ...] = ("joint", "separate_forward")

    def phases(self, data: Data) -> list[Phase]:
        if self.batch_norm not in self.modes:
            raise ConfigError(
                f"batch_norm={self.batch_norm}: this method takes {' or '.join(self.modes)}, since "
                "a domain that was never seen has no batch statistics of its own"
            )
        return [Phase(streams=data.sources)]

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("classifier", net.new_head(data.num_classes))

    def forward(self, net: Net, batch: Batches) -> dict[str, Forward]:
        """Source -> its features and logits."""
        images = {name: drawn.x for name, drawn in batch.items()}
        return forward_domains(net, images, self.batch_norm)


def risks(out: Mapping[str, Forward], batch: Batches) -> Tensor:
    """The cross-entropy of each source: (sources,) float32, in the order of `batch`."""
    return torch.stack([classification_loss(out[n].logits, batch[n].y) for n in batch])
