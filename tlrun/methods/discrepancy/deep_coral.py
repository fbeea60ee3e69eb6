"""Deep CORAL: covariances of the two domains alike.

    min over f, h of   E_S CE(h(f(x)), y) + λ · ‖C_S − C_T‖²_F / (4 D²)

Sun and Saenko, "Deep CORAL: correlation alignment for deep domain adaptation", ECCV 2016 workshops,
eq. 1 and 5. C: (D, D), the covariance of a batch's activations (B, D); the paper takes the last
layer, the logits, and a λ that makes both losses about equal at the end.
Published for CORAL on digits: MNIST→MNIST-M 57.7 %, SVHN→MNIST 63.1 % (Bousmalis et al., "Domain
separation networks", 2016).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tlrun.losses.coral import coral_loss
from tlrun.methods.discrepancy.layer_discrepancy import Discrepancy, activation, taps_of
from tlrun.models.net import Forward


@dataclass(eq=False)
class DeepCORAL(Discrepancy):
    """layer: "logits", "features" or a stage ("classifier.fc1")."""

    distance_name = "coral"

    layer: str = "logits"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.taps = taps_of([self.layer])

    def distance(self, source: Forward, target: Forward) -> Tensor:
        return coral_loss(activation(source, self.layer), activation(target, self.layer))
