"""DeepJDOT: features and labels of the two domains, coupled by optimal transport.

    source phase      min over f, h  E_S CE(h(f(x)), y)       (init=source; else the start is given)
    transport phase   min over f, h  E_S CE(h(f(x)), y)
                                     + Σ_ij γ_ij [ α ‖f(x_i) − f(x_j)‖² + λ CE(y_i, h(f(x_j))) ]

i runs over the source's half of the batch, j over the target's; γ is the coupling of least cost
(the brackets) with uniform marginals, found exactly and without gradient in each step. Damodaran
et al., "DeepJDOT", ECCV 2018, eq. 6-7; the source phase and the balanced batches are their code's.
γ sums to 1, so both parts are means over coupled pairs: their scale does not depend on the batch
size. The squared distance is the sum over the D features, so that of α does depend on the net: the
paper's digits have α = 0.001, λ = 0.0001, batches of 500 and 128 features between 0 and 1.
Published: MNIST→MNIST-M 92.4 %. x: (B, C, H, W); features: (B, D).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor

from tlrun.config.ranges import Weight
from tlrun.data.pipeline.balanced import BalancedStream
from tlrun.data.problems.pair import Data
from tlrun.losses.classification import classification_loss
from tlrun.losses.distances import squared_distances
from tlrun.losses.optimal_transport import label_costs, optimal_coupling, parts_of_classes
from tlrun.methods.base import Batches, Phase, Progress, Requirements, Update
from tlrun.methods.batch_norm_forward import domain_outputs, forward_domains
from tlrun.methods.fine_tuning.source_only import SourceOnly
from tlrun.models.net import Net


class DeepJDOT(SourceOnly):
    """alpha: α, of the distance of features. label_weight: λ, of the labels. balanced_source: as
    many source images of every class in a batch, so that fewer pairs must be of two classes.
    source_mass: of the source's images in the plan, "uniform" (the paper's) or "predicted": each
    class has the share that the batch's target predictions give it.
    """

    requirements = Requirements(streams=("source", "target"))
    needs_images = False
    batch_norm = "per_domain"
    init = "source"  # couplings of an untrained net teach wrong labels

    def __init__(
        self,
        alpha: Weight = 0.001,
        label_weight: Weight = 0.0001,
        balanced_source: bool = True,
        source_mass: Literal["uniform", "predicted"] = "uniform",
    ) -> None:
        super().__init__()
        self.alpha, self.label_weight = alpha, label_weight
        self.balanced_source, self.source_mass = balanced_source, source_mass

    def phases(self, data: Data) -> list[Phase]:
        sampling = {"source": BalancedStream} if self.balanced_source else {}
        return [
            *self.source_phases(),
            Phase("transport", self.requirements.streams, sampling=sampling),
        ]

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        if phase.name == "source":
            yield from super().step(net, batch, phase, progress)
            return
        inputs = {name: batch[name].x for name in self.requirements.streams}
        out = forward_domains(net, inputs, self.batch_norm)
        source, target, y = out["source"], out["target"], batch["source"].y
        assert target.logits is not None
        assert y is not None
        apart = self.alpha * squared_distances(source.features, target.features)
        unlike = self.label_weight * label_costs(y, target.logits)
        plan = optimal_coupling(apart + unlike, self.parts(y, target.logits))
        yield Update(
            {
                "classification": classification_loss(source.logits, y),
                "features": (plan * apart).sum(),
                "labels": (plan * unlike).sum(),
            },
            outputs=domain_outputs(batch, out),
        )

    def parts(self, y: Tensor, logits: Tensor) -> Tensor | None:
        """(B,) of each source image in the plan; None: one each."""
        if self.source_mass == "uniform":
            return None
        return parts_of_classes(y, logits.detach().float().softmax(1).mean(0))
