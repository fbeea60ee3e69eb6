"""OSBP: open-set adaptation, for a target with images of classes that the source does not know.

    min_h  E_S CE(h(f(x)), y)  +  E_T L(x),       L = −t·log p_unknown − (1 − t)·log(1 − p_unknown)
    min_f  E_S CE(h(f(x)), y)  −  E_T L(x)

h has an output for "unknown" behind the known classes, which no source image has. It is trained to
give target images that class with probability t; the features, behind a gradient reversal, to move
every image away from t: to the known or to the unknown. Saito et al., "Open set domain adaptation
by backpropagation", ECCV 2018, eq. 3-5 (t = 0.5). x: (B, C, H, W); y: (B,) int64. Published with
digits 0-4 known, mean accuracy over 6 classes: MNIST→USPS 92.1, USPS→MNIST 92.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tlrun.config.ranges import InsideZeroToOne, Weight
from tlrun.data.problems.pair import Data
from tlrun.losses.adversarial import reverse_gradient
from tlrun.losses.classification import classification_loss
from tlrun.losses.open_set import unknown_boundary_loss
from tlrun.methods.base import Batches, Method, Phase, Progress, Requirements, Update
from tlrun.methods.batch_norm_forward import domain_outputs, forward_domains
from tlrun.models.net import Net
from tlrun.models.repeatable import repeatable


class OSBP(Method):
    """boundary: t, in (0, 1). trade_off: factor on the game of the target."""

    requirements = Requirements(streams=("source", "target"), open_set=True)
    needs_images = False
    batch_norm = "per_domain"

    def __init__(self, boundary: InsideZeroToOne = 0.5, trade_off: Weight = 1.0) -> None:
        self.boundary, self.trade_off = boundary, trade_off

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("classifier", net.new_head(data.num_classes))  # "unknown" is one of them

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        inputs = {name: batch[name].x for name in ("source", "target")}
        out = forward_domains(net, inputs, self.batch_norm, head=None)
        features = out["target"].features
        game = net.run("classifier", reverse_gradient(features, 1.0), "target")
        with repeatable(net["classifier"]):  # for terms, which are no part of the game
            out["target"].logits = net.run("classifier", features, "target")
        out["source"].logits = net.run("classifier", out["source"].features, "source")
        unknown = game.softmax(1)[:, -1]
        yield Update(
            {
                "classification": classification_loss(out["source"].logits, batch["source"].y),
                "boundary": self.trade_off * unknown_boundary_loss(game, self.boundary),
            },
            outputs=domain_outputs(batch, out),
            metrics={"unknown": (unknown > self.boundary).float().mean()},
        )

    def baselines(self, data: Data) -> dict[str, dict[str, Any]]:
        """None: a classifier that never saw "unknown" has nothing to say about it."""
        return {}
