"""Group DRO: minimise the risk of the worst source, by weights that follow the losses.

    q_g ← q_g · exp(η ℓ_g(θ)),   q ← q / Σ q,      then a step on   Σ_g q_g ℓ_g(θ)

ℓ_g is the batch's cross-entropy on source g; q starts uniform. Sagawa, Koh, Hashimoto and Liang,
"Distributionally robust neural networks for group shifts", ICLR 2020, algorithm 1; sources as
groups and η = 0.01 as in DomainBed (Gulrajani and Lopez-Paz, ICLR 2021), where no method was better
than plain training by more than a point. x: (B, C, H, W) of each source; y: (B,) int64.
Preset: `conf/experiment/mnist_usps_mnistm/group_dro.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tlrun.config.ranges import NotNegative
from tlrun.data.problems.pair import Data
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.batch_norm_forward import domain_outputs
from tlrun.methods.generalisation.multi_source import MultiSource, risks
from tlrun.models.net import Net


class GroupDRO(MultiSource):
    """eta: step size η of the weights. Before each update they move by the batch's losses."""

    needs_images = False

    def __init__(self, eta: NotNegative = 0.01) -> None:
        self.eta = eta
        self.q = torch.empty(0)  # (sources,), sums to 1

    def start(self, phase: Phase, net: Net, data: Data) -> None:
        count = len(data.sources)
        self.q = torch.full((count,), 1.0 / count)

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        out = self.forward(net, batch)
        losses = risks(out, batch)
        self.q = reweighted(self.q.to(losses.device), over_processes(losses), self.eta)
        weights = dict(zip(batch, self.q, strict=True))
        yield Update(
            {"classification": (self.q * losses).sum()},
            outputs=domain_outputs(batch, out),
            metrics={f"weight_{name}": weight for name, weight in weights.items()},
        )

    def state_dict(self) -> dict[str, Any]:
        return {"q": self.q}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.q = state["q"]


def reweighted(q: Tensor, losses: Tensor, eta: float) -> Tensor:
    """q, losses: (sources,) -> the weights after a step of exponentiated ascent."""
    return (q.log() + eta * losses).softmax(0)


def over_processes(losses: Tensor) -> Tensor:
    """The mean over all processes, without gradient, so that each holds the same weights."""
    losses = losses.detach().clone()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(losses)
        losses /= dist.get_world_size()
    return losses
