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

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from tlrun.config.ranges import InsideZeroToOne, NotNegative, Weight
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError, did_you_mean
from tlrun.losses.adversarial import reversal_strength, reverse_gradient
from tlrun.losses.classification import classification_loss
from tlrun.losses.open_set import unknown_boundary_loss
from tlrun.methods.base import Batches, Method, Phase, Progress, Requirements, Update
from tlrun.methods.batch_norm_forward import domain_outputs, forward_domains
from tlrun.models.net import Forward, Net
from tlrun.models.repeatable import repeatable


class OSBP(Method):
    """boundary: t, in (0, 1). trade_off: factor on the game of the target.

    attach: where f ends, "features" or a stage of the classifier ("classifier.fc1"): h is what lies
    behind it. lambda_schedule: strength of the reversal, constant (the authors' code) | linear |
    sigmoid (DANN's). gamma: slope of the sigmoid.
    """

    requirements = Requirements(streams=("source", "target"), open_set=True)
    needs_images = False
    batch_norm = "per_domain"

    def __init__(
        self,
        boundary: InsideZeroToOne = 0.5,
        trade_off: Weight = 1.0,
        attach: str = "features",
        lambda_schedule: Literal["constant", "linear", "sigmoid"] = "constant",
        gamma: NotNegative = 10.0,
    ) -> None:
        self.boundary, self.trade_off, self.attach = boundary, trade_off, attach
        self.lambda_schedule, self.gamma = lambda_schedule, gamma

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("classifier", net.new_head(data.num_classes))  # "unknown" is one of them
        places = ["features", *net.path("classifier")[:-1]]
        if self.attach not in places:
            raise ConfigError(
                f"method.attach={self.attach}: h begins behind the features or a hidden layer of "
                f"the classifier: {did_you_mean(self.attach, places)}"
            )

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        inputs = {name: batch[name].x for name in ("source", "target")}
        out = forward_domains(net, inputs, self.batch_norm, head=None)
        strength = reversal_strength(self.lambda_schedule, progress.fraction, self.gamma)
        with repeatable(net["classifier"]):  # for terms, which are no part of the game
            out["target"].logits = self._logits(net, out, None)[1]
        out["source"].logits, game = self._logits(net, out, strength)
        unknown = game.softmax(1)[:, -1]
        yield Update(
            {
                "classification": classification_loss(out["source"].logits, batch["source"].y),
                "boundary": self.trade_off * unknown_boundary_loss(game, self.boundary),
            },
            outputs=domain_outputs(batch, out),
            metrics={"unknown": (unknown > self.boundary).float().mean(), "lambda": strength},
        )

    def _logits(
        self, net: Net, out: Mapping[str, Forward], strength: float | None
    ) -> tuple[Tensor, Tensor]:
        """(B, K + 1) of source and target. With a strength the target's gradient changes its sign
        between h and f."""
        source, target = out["source"].features, out["target"].features
        if self.batch_norm == "joint":
            with self._turned(net, strength, after=len(source)) as turn:
                joint = net.run("classifier", turn(torch.cat([source, target])))
            return joint[: len(source)], joint[len(source) :]
        with self._turned(net, strength) as turn:
            ours = net.run("classifier", turn(target), "target")
        return net.run("classifier", source, "source"), ours

    @contextmanager
    def _turned(
        self, net: Net, strength: float | None, after: int = 0
    ) -> Iterator[Callable[[Tensor], Tensor]]:
        """Inside, gradients of the rows behind the first `after` are reversed at `attach`; what is
        given turns them on the way into the classifier, if that is the place."""

        def turn(x: Tensor) -> Tensor:
            if strength is None:
                return x
            return torch.cat([x[:after], reverse_gradient(x[after:], strength)])

        if self.attach == "features":
            yield turn
            return
        stage = net.module_of(self.attach)
        hook = stage.register_forward_hook(lambda _module, _inputs, output: turn(output))
        try:
            yield lambda x: x
        finally:
            hook.remove()

    def baselines(self, data: Data) -> dict[str, dict[str, Any]]:
        """None: a classifier that never saw "unknown" has nothing to say about it."""
        return {}
