"""CORAL between sources: features whose mean and covariance do not tell the source.

    min over f, h of   mean_e R_e  +  weight · mean_(i<j) [ ‖μ_i − μ_j‖² / D + ‖C_i − C_j‖²_F / D² ]

over all pairs of sources; μ and C are mean and covariance of a batch's features f(x): (B, D). No
image of the target takes part. Sun and Saenko, "Deep CORAL", ECCV 2016 workshops, as DomainBed
extends it to several sources (Gulrajani and Lopez-Paz, ICLR 2021; its default weight is 1). There
no method was better than plain training by more than a point. x: (B, C, H, W) of each source; y:
(B,) int64.
Preset: `conf/experiment/mnist_usps_mnistm/multi_source_coral.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor

from tlrun.config.ranges import Weight
from tlrun.losses.coral import coral_loss, mean_loss
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.batch_norm_forward import domain_outputs
from tlrun.methods.generalisation.multi_source import MultiSource, risks
from tlrun.models.net import Net


class MultiSourceCoral(MultiSource):
    """weight: of the distance between the sources."""

    needs_images = False

    def __init__(self, weight: Weight = 1.0) -> None:
        self.weight = weight

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        out = self.forward(net, batch)
        apart = distance([out[name].features for name in batch])
        losses = {"classification": risks(out, batch).mean(), "coral": self.weight * apart}
        yield Update(losses, outputs=domain_outputs(batch, out))


def distance(features: Sequence[Tensor]) -> Tensor:
    """features: (B_i, D) of each source -> the mean over pairs, scalar."""
    pairs = [mean_loss(a, b) + 4 * coral_loss(a, b) for a, b in combinations(features, 2)]
    return torch.stack(pairs).mean()
