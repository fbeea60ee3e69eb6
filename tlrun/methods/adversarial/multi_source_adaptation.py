"""What adaptation from several sources to one target shares: batches and batch statistics.

The batch of a step holds `trainer.batch_size` images of every source and of the target. Batch norm
knows two domains, so with `per_domain` the sources are ONE of them: they are forwarded together
under "source", as the mixture that "source" is everywhere else, and the target by itself. A pass
for each source would normalise in training by statistics that no evaluation ever uses.
"""

from __future__ import annotations

import torch

from tlrun.data.pipeline.streams import Batch
from tlrun.data.problems.pair import Data
from tlrun.methods.base import Batches, Phase, Requirements
from tlrun.methods.batch_norm_forward import forward_domains, split_forward
from tlrun.methods.generalisation.multi_source import MultiSource
from tlrun.models.batch_norm import MODES
from tlrun.models.net import Forward, Net


class MultiSourceAdaptation(MultiSource):
    """Base class: `step` gets a batch of every source under its name, and one of the target."""

    requirements = Requirements(streams=("source", "target"), sources=2)
    batch_norm = "per_domain"
    modes = MODES

    def phases(self, data: Data) -> list[Phase]:
        (phase,) = super().phases(data)
        return [Phase(streams=(*phase.streams, "target"))]

    def forward(self, net: Net, batch: Batches) -> dict[str, Forward]:
        """Domain -> its features, logits and `taps`, in the order of `batch`."""
        if self.batch_norm != "per_domain":
            inputs = {name: drawn.x for name, drawn in batch.items()}
            return forward_domains(net, inputs, self.batch_norm, taps=self.taps)
        sources = sources_of(batch)
        images = torch.cat([drawn.x for drawn in sources.values()])
        pair = {"source": images, "target": batch["target"].x}
        out = forward_domains(net, pair, self.batch_norm, taps=self.taps)
        sizes = {name: len(drawn.x) for name, drawn in sources.items()}
        return {**split_forward(out["source"], sizes), "target": out["target"]}


def sources_of(batch: Batches) -> dict[str, Batch]:
    """The batches of the sources, by name."""
    return {name: drawn for name, drawn in batch.items() if name != "target"}
