"""DeepJDOT: features and labels of the two domains, coupled by optimal transport.

    min over f, h   E_S CE(h(f(x)), y)  +  Σ_ij γ_ij [ α ‖f(x_i) − f(x_j)‖² + λ CE(y_i, h(f(x_j))) ]

i runs over the source's half of the batch, j over the target's; γ is the coupling of least cost
(the brackets) with uniform marginals, found exactly and without gradient in each step. Damodaran
et al., "DeepJDOT", ECCV 2018, eq. 6-7. γ sums to 1, so both parts are means over coupled pairs:
their scale does not depend on the batch size; the squared distance is the sum over the D features.
The paper's digits have α = 0.001, λ = 0.0001 and batches of 500. Published: MNIST→MNIST-M 92.4 %.
x: (B, C, H, W); features: (B, D).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tlrun.data.pair import Data
from tlrun.data.streams import Batch
from tlrun.errors import at_least
from tlrun.losses.classification import classification_loss
from tlrun.losses.optimal_transport import label_costs, optimal_coupling, squared_distances
from tlrun.methods.domains import forward_domains, seen
from tlrun.methods.method import Method, Needs, Phase, Progress, Update
from tlrun.models.net import Net


class DeepJDOT(Method):
    """alpha: α, of the distance of features. label_weight: λ, of the labels."""

    needs = Needs(streams=("source", "target"))
    batch_norm = "per_domain"

    def __init__(self, alpha: float = 0.001, label_weight: float = 0.0001) -> None:
        at_least(0, **{"method.alpha": alpha, "method.label_weight": label_weight})
        self.alpha, self.label_weight = alpha, label_weight

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("classifier", net.new_head(data.num_classes))

    def step(self, net: Net, batch: Mapping[str, Batch], progress: Progress) -> Iterator[Update]:
        inputs = {name: batch[name].x for name in self.needs.streams}
        out = forward_domains(net, inputs, self.batch_norm)
        source, target, y = out["source"], out["target"], batch["source"].y
        assert target.logits is not None
        assert y is not None
        apart = self.alpha * squared_distances(source.features, target.features)
        unlike = self.label_weight * label_costs(y, target.logits)
        plan = optimal_coupling(apart + unlike)
        yield Update(
            {
                "classification": classification_loss(source.logits, y),
                "features": (plan * apart).sum(),
                "labels": (plan * unlike).sum(),
            },
            seen=seen(batch, out),
        )
