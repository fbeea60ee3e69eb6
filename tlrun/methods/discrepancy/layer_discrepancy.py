"""What methods share that shrink a distance between the two domains' activations.

    min over f, h of   E_S CE(h(f(x)), y) + λ · distance( S, T )

The distance is a subclass's own; λ = trade_off times a schedule of the share p of training that is
done, by default 2/(1+exp(−10p)) − 1, which is 0 at first: the features say little then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tlrun.config.ranges import Weight
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.losses.adversarial import reversal_strength
from tlrun.losses.classification import classification_loss
from tlrun.methods.base import Batches, Method, Phase, Progress, Requirements, Update
from tlrun.methods.batch_norm_forward import domain_outputs, forward_domains
from tlrun.models.net import Forward, Net

PLACES = ("features", "logits")  # layers that every forward pass returns


@dataclass(eq=False)
class Discrepancy(Method):
    """trade_off: λ at the end. lambda_schedule: sigmoid | linear | constant.

    Subclasses define `distance`, its name and the stages that it taps.
    """

    requirements = Requirements(streams=("source", "target"))
    needs_images = False
    takes_soft_labels = True
    batch_norm = "per_domain"
    distance_name = "discrepancy"

    trade_off: Weight = 1.0
    lambda_schedule: Literal["sigmoid", "linear", "constant"] = "sigmoid"

    def __post_init__(self) -> None:
        self.taps: tuple[str, ...] = ()

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("classifier", net.new_head(data.num_classes))
        for stage in self.taps:
            net.width_of(stage)  # a clear error for a stage that is not there

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        inputs = {name: batch[name].x for name in self.requirements.streams}
        out = forward_domains(net, inputs, self.batch_norm, taps=self.taps)
        check_several(out["source"].features, out["target"].features)
        distance = self.distance(out["source"], out["target"])
        strength = self.trade_off * reversal_strength(self.lambda_schedule, progress.fraction)
        losses = {
            "classification": classification_loss(out["source"].logits, batch["source"].y),
            self.distance_name: strength * distance,
        }
        yield Update(
            losses,
            outputs=domain_outputs(batch, out),
            metrics={"lambda": strength, f"{self.distance_name}_distance": distance},
        )

    def distance(self, source: Forward, target: Forward) -> Tensor:
        """A scalar that is small where the domains are alike."""
        raise NotImplementedError


def activation(out: Forward, layer: str) -> Tensor:
    """(B, D) of "features", "logits" or a stage that was tapped."""
    if layer == "features":
        return out.features.flatten(1)
    if layer == "logits":
        assert out.logits is not None
        return out.logits
    return out.taps[layer].flatten(1)


def taps_of(layers: Iterable[str]) -> tuple[str, ...]:
    """Those of the layers that are stages, to be tapped."""
    return tuple(layer for layer in layers if layer not in PLACES)


def check_several(*domains: Tensor) -> None:
    """Raises ConfigError for a batch of one image: between two there is a distance, of one none."""
    if min(len(rows) for rows in domains) < 2:
        raise ConfigError(
            "a distance between domains needs 2 images of each at once: raise trainer.batch_size, "
            "or lower trainer.accumulate or trainer.devices, by which it is divided"
        )
