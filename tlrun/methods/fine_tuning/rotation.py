"""Rotation prediction: a start without any labels, then fine-tuning or a linear probe.

    source phase:  min over f, r  E_S mean_k CE(r(f(rot(x, k · 90°))), k),    k = 0, 1, 2, 3
    target phase:  min over f, h  E_T CE(h(f(x)), y)                          from those weights

r is a head of its own that is not used afterwards; every image of a batch is seen in all four
rotations, so a step of the source phase costs four times its images. Gidaris, Singh and Komodakis,
"Unsupervised representation learning by predicting image rotations", ICLR 2018. No label of the
source is read for training. `transfer.freeze=[backbone]` makes the target phase a linear probe.
x: (B, C, H, H); y: (B,) int64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.losses.classification import classification_loss
from tlrun.methods.base import DomainOutput, Update
from tlrun.methods.fine_tuning.pretext import Pretext
from tlrun.models.net import Net


class Rotation(Pretext):
    """label_smoothing: share in [0, 1) that is spread over all classes, in the target phase."""

    pretext_head = "rotation_head"

    def check_images(self, data: Data) -> None:
        if len(data.input_shape) != 3 or len({*data.input_shape[1:]}) > 1:
            raise ConfigError("method=rotation needs square images")

    def new_head(self, net: Net) -> nn.Module:
        return net.new_head(4)

    def pretext_step(self, net: Net, x: Tensor) -> Update:
        x, k = rotated(x)
        out = net(x, head=self.pretext_head)
        assert out.logits is not None
        return Update(
            {"rotation": classification_loss(out.logits, k)},
            outputs={"source": DomainOutput(x, out.features, out.logits, k)},
            metrics={"rotation_accuracy": (out.logits.argmax(1) == k).float().mean()},
        )


def rotated(x: Tensor) -> tuple[Tensor, Tensor]:
    """x: (B, C, H, H) -> in all four rotations (4 B, C, H, H), and their quarter turns (4 B,)."""
    turns = torch.arange(4, device=x.device).repeat_interleave(len(x))
    return torch.cat([x.rot90(k, (2, 3)) for k in range(4)]), turns
