"""MME: minimax entropy, for a target with a few labels.

    min_(f,h)  E_(S ∪ T_labelled) CE(h(f(x)), y)
    min_f max_h  trade_off · E_T H(h(f(x))),       h(f) = scale · cos(w_k, f)

The class weights w_k, estimates of where classes lie, move towards the unlabelled target (more
entropy), the features gather around them (less); solved in one update by reversing the gradient
between f and h, where the paper takes two. Saito et al., "Semi-supervised domain adaptation via
minimax entropy", ICCV 2019, eq. 1-3: trade_off 0.1, temperature 0.05 (scale 20). x: (B, C, H, W) of
source, of target images with labels (`target_labels=3` a class) and of all without; y: (B,) int64.
"""

from __future__ import annotations

from collections.abc import Iterator

from tlrun.config.ranges import Positive, Weight
from tlrun.data.problems.pair import UNLABELLED, Data
from tlrun.losses.adversarial import reverse_gradient
from tlrun.losses.classification import classification_loss
from tlrun.losses.entropy import entropy_loss
from tlrun.methods.base import Batches, DomainOutput, Method, Phase, Progress, Requirements, Update
from tlrun.methods.batch_norm_forward import domain_outputs, forward_domains
from tlrun.models.heads import CosineHead
from tlrun.models.net import Net


class MME(Method):
    """trade_off: weight of the entropy game. scale: 1 / temperature of the cosine classifier."""

    requirements = Requirements(streams=("source", "target", UNLABELLED), target_labels=3)
    needs_images = False
    batch_norm = "per_domain"

    def __init__(self, trade_off: Weight = 0.1, scale: Positive = 20.0) -> None:
        self.trade_off, self.scale = trade_off, scale

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("classifier", CosineHead(net.feature_dim, data.num_classes, self.scale))

    def shown(self, phase: Phase) -> dict[str, tuple[str, ...]]:
        """Of the target all images, not its few labelled ones alone."""
        return {"source": ("features", "logits", "labels"), "target": ("features", "logits")}

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        labelled = {name: batch[name] for name in ("source", "target")}
        inputs = {name: drawn.x for name, drawn in labelled.items()}
        out = forward_domains(net, inputs, self.batch_norm)
        losses = [classification_loss(out[n].logits, labelled[n].y) for n in labelled]
        features = net.features(batch[UNLABELLED].x, "target")
        logits = net["classifier"](reverse_gradient(features, 1.0))
        entropy = entropy_loss(logits)
        yield Update(
            {
                "classification": 0.5 * (losses[0] + losses[1]),
                "minimax_entropy": -self.trade_off * entropy,  # h rises in it, f falls
            },
            outputs={
                **domain_outputs(labelled, out),
                "target": DomainOutput(batch[UNLABELLED].x, features, net["classifier"](features)),
            },
            metrics={"entropy": entropy},
        )
