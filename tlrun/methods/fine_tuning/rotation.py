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

from collections.abc import Iterator

import torch
from torch import Tensor

from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.losses.classification import classification_loss
from tlrun.methods.base import Batches, DomainOutput, Phase, Progress, Update
from tlrun.methods.fine_tuning.finetune import Finetune
from tlrun.models.net import Net

HEAD = "rotation_head"


class Rotation(Finetune):
    """label_smoothing: share in [0, 1) that is spread over all classes, in the target phase."""

    def phases(self, data: Data) -> list[Phase]:
        if self.init == "source" and (
            len(data.input_shape) != 3 or len({*data.input_shape[1:]}) > 1
        ):
            raise ConfigError("method=rotation needs square images")
        return super().phases(data)

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        self.shared_head = data.source_classes == data.classes
        if phase.streams == ("source",):
            net.add(HEAD, net.new_head(4))
        else:
            net.add("classifier", net.new_head(data.num_classes))

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        if phase.name != "source":
            yield from super().step(net, batch, phase, progress)
            return
        x, k = rotated(batch["source"].x)
        out = net(x, head=HEAD)
        assert out.logits is not None
        yield Update(
            {"rotation": classification_loss(out.logits, k)},
            outputs={"source": DomainOutput(x, out.features, out.logits, k)},
            metrics={"rotation_accuracy": (out.logits.argmax(1) == k).float().mean()},
        )


def rotated(x: Tensor) -> tuple[Tensor, Tensor]:
    """x: (B, C, H, H) -> in all four rotations (4 B, C, H, H), and their quarter turns (4 B,)."""
    turns = torch.arange(4, device=x.device).repeat_interleave(len(x))
    return torch.cat([x.rot90(k, (2, 3)) for k in range(4)]), turns
