"""MCD: two heads that disagree where the target's features lie far from the source's.

Saito et al., "Maximum classifier discrepancy for unsupervised domain adaptation", CVPR 2018:

    A  min over f, h, h'   E_S [ CE(h(f(x)), y) + CE(h'(f(x)), y) ]
    B  min over h, h'      E_S [ CE + CE ] − trade_off · D_T         f held still
    C  min over f          trade_off · D_T                           n times, heads held still

    D_T = E_T mean_k | softmax(h(f(x)))_k − softmax(h'(f(x)))_k |

Each of the n + 2 updates has a forward pass of its own, on the same batch. The prediction is the
mean of both heads' logits, as the authors' code sums them. x: (B, C, H, W); logits: (B, K).
Published: MNIST→USPS 96.5, USPS→MNIST 94.1, SVHN→MNIST 96.2 %; batch 128, Adam 2e-4, weight decay
5e-4, n = 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from tlrun.config.ranges import Repeats, Weight
from tlrun.data.problems.pair import Data
from tlrun.losses.classification import classification_loss
from tlrun.losses.disparity import discrepancy
from tlrun.methods.adversarial.second_head import head_by_domain
from tlrun.methods.base import Batches, Method, Output, Phase, Progress, Requirements, Update
from tlrun.methods.batch_norm_forward import domain_outputs, forward_domains
from tlrun.methods.query import Query
from tlrun.models.net import Forward, Net

HEADS = ("classifier", "classifier2")
DOMAINS = ("source", "target")


class MCD(Method):
    """n: updates of the backbone in a step. trade_off: of the discrepancy in B and C."""

    requirements = Requirements(streams=DOMAINS)
    needs_images = False
    batch_norm = "per_domain"

    def __init__(self, n: Repeats = 4, trade_off: Weight = 1.0) -> None:
        self.n, self.trade_off = n, trade_off

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        for head in HEADS:
            net.add(head, net.new_head(data.num_classes))

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        yield self._source_update(net, batch)
        yield self._heads_update(net, batch)
        for _ in range(self.n):
            yield self._backbone_update(net, batch)

    def _source_update(self, net: Net, batch: Batches) -> Update:
        """A. The target is forwarded too, for terms and for its batch statistics."""
        out, logits = self.forward(net, batch)
        both = {name: replace(out[name], logits=_mean(*logits[name])) for name in out}
        return Update(self.risks(logits, batch), outputs=domain_outputs(batch, both))

    def _heads_update(self, net: Net, batch: Batches) -> Update:
        """B."""
        _, logits = self.forward(net, batch)
        apart = discrepancy(*logits["target"])
        losses = {f"heads_{name}": risk for name, risk in self.risks(logits, batch).items()}
        losses["heads_discrepancy"] = -self.trade_off * apart
        return Update(losses, parts=HEADS, main=False, metrics={"discrepancy": apart})

    def _backbone_update(self, net: Net, batch: Batches) -> Update:
        """C. With `joint` the source is forwarded too: the statistics are those of the mixture."""
        names = DOMAINS if self.batch_norm == "joint" else ("target",)
        _, logits = self.forward(net, batch, names)
        loss = self.trade_off * discrepancy(*logits["target"])
        return Update({"discrepancy": loss}, parts=("backbone",), main=False)

    def forward(
        self, net: Net, batch: Batches, names: tuple[str, ...] = DOMAINS
    ) -> tuple[dict[str, Forward], dict[str, tuple[Tensor, Tensor]]]:
        """Domain -> its features, and domain -> the logits of both heads."""
        out = forward_domains(net, {name: batch[name].x for name in names}, self.batch_norm)
        features = {name: one.features for name, one in out.items()}
        first = {name: one.logits for name, one in out.items() if one.logits is not None}
        second = head_by_domain(net, HEADS[1], features, self.batch_norm)
        return out, {name: (first[name], second[name]) for name in names}

    @staticmethod
    def risks(logits: Mapping[str, tuple[Tensor, Tensor]], batch: Batches) -> dict[str, Tensor]:
        """The source's cross-entropy by each head."""
        names = ("classification", "classification2")
        y = batch["source"].y
        return {
            name: classification_loss(own, y)
            for name, own in zip(names, logits["source"], strict=True)
        }

    def predict(self, net: Net, x: Tensor, query: Query) -> Output:
        features = net.features(x, query.domain)
        scores = _mean(*(net.run(head, features, query.domain) for head in HEADS))
        return Output(scores=scores, features=features)


def _mean(first: Tensor, second: Tensor) -> Tensor:
    return 0.5 * (first + second)
