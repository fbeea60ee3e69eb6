"""DANN in its alternating form: the label path and the domain path take turns.

    label update  (k steps):  min_(f,h) CE(h(f(x_S)), y)
    domain update (m steps):  min_d BCE,  and reversed, max_f BCE      with h bit-identical

Of every k + m steps the first k are label updates and the others domain updates, each on a fresh
batch. In a domain update the label head is neither run in train mode nor changed, its batch norm
included. The label head needs the target's batch statistics for evaluation: with `per_domain` a
label update forwards the target once more for them, with `joint` it forwards both domains at once.
The form of Ganin & Lempitsky (ICML 2015) unrolled in time; compare Tzeng et al., "Simultaneous Deep
Transfer", ICCV 2015, who alternate in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tlrun.config.ranges import Repeats
from tlrun.errors import ConfigError
from tlrun.losses.classification import classification_loss
from tlrun.methods.adversarial.dann import DANN
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.batch_norm_forward import domain_outputs, forward_domains
from tlrun.models.net import Net


@dataclass(eq=False)
class DANNAlternating(DANN):
    """label_steps (k) and domain_steps (m) take turns; the other arguments are DANN's."""

    needs_images = False
    takes_soft_labels = True
    label_steps: Repeats = 1
    domain_steps: Repeats = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attach.startswith("classifier"):
            raise ConfigError(
                "method.attach must lie in the backbone: a domain update holds the label head still"
            )

    @property
    def label_domains(self) -> tuple[str, ...]:
        """Whose images a label update forwards with a graph."""
        return ("source", "target") if self.batch_norm == "joint" else ("source",)

    def shown(self, phase: Phase) -> dict[str, tuple[str, ...]]:
        """A domain update is no main one."""
        return dict.fromkeys(self.label_domains, ("features", "logits", "labels"))

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        if progress.step % (self.label_steps + self.domain_steps) < self.label_steps:
            yield self._label_update(net, batch)
        else:
            yield self._domain_update(net, batch, progress)

    def _label_update(self, net: Net, batch: Batches) -> Update:
        if self.batch_norm == "per_domain":
            with torch.no_grad():
                net(batch["target"].x, "target")
        images = {name: batch[name].x for name in self.label_domains}
        out = forward_domains(net, images, self.batch_norm)
        loss = classification_loss(out["source"].logits, batch["source"].y)
        return Update(
            {"classification": loss},
            parts=("backbone", "classifier"),
            outputs=domain_outputs(batch, out),
        )

    def _domain_update(self, net: Net, batch: Batches, progress: Progress) -> Update:
        inputs = {name: batch[name].x for name in ("source", "target")}
        out = forward_domains(net, inputs, self.batch_norm, head=None, taps=self.taps)
        strength = self.strength(progress)
        domain, told_apart = self.domain_losses(net, out, strength)
        return Update(
            {"domain": domain},
            parts=("backbone", "domain_head"),
            main=False,
            outputs=domain_outputs(batch, out),
            metrics={"lambda": strength, "domain_accuracy": told_apart},
        )
