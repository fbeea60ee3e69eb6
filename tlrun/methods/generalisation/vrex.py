"""V-REx: risk extrapolation, equal risks over the sources.

    min over f, h of   mean_e R_e  +  β · Var_e(R_e),      Var_e(R_e) = mean_e (R_e − mean R)²

R_e is the batch's cross-entropy on source e. β is at most 1 in the first part of the training,
`beta` after it. Krueger et al., "Out-of-distribution generalization via risk extrapolation", ICML
2021, with the mean in place of the sum of risks; β = 10 and the first tenth as in DomainBed
(Gulrajani and Lopez-Paz, ICLR 2021), which also resets Adam's moments where β changes; here they go
on. x: (B, C, H, W) of each source; y: (B,) int64.
Preset: `conf/experiment/mnist_usps_mnistm/vrex.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tlrun.config.ranges import NotNegative, Share
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.batch_norm_forward import domain_outputs
from tlrun.methods.generalisation.multi_source import MultiSource, risks
from tlrun.models.net import Net


class VREx(MultiSource):
    """beta: factor β on the variance (0: equally weighted risks). anneal: share of the training in
    which β is at most 1."""

    needs_images = False

    def __init__(self, beta: NotNegative = 10.0, anneal: Share = 0.1) -> None:
        self.beta, self.anneal = beta, anneal

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        out = self.forward(net, batch)
        losses = risks(out, batch)
        variance = losses.var(correction=0)
        yield Update(
            {"classification": losses.mean(), "variance": self.factor(progress) * variance},
            outputs=domain_outputs(batch, out),
            metrics={f"risk_{name}": risk for name, risk in zip(batch, losses, strict=True)},
        )

    def factor(self, progress: Progress) -> float:
        """β at this point of the training."""
        return min(1.0, self.beta) if progress.fraction < self.anneal else self.beta
