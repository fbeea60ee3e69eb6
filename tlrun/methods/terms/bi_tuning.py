"""`terms=[bi_tuning]`: two contrasts with keys of the same class, beside the cross-entropy.

    λ · ( L_CCE + L_CCL ),      both: mean_i −1/|P_i| Σ_{k ∈ P_i} log softmax_k( q_i·k / τ )

    contrastive cross-entropy       q_i = w_{y_i}, a row (weights and bias) of the classifier's
                                    last layer; k = (h, 1), what that layer is given
    categorical contrastive loss    q_i = g(f(x_i)), k = g(f̄(x̄)): g a linear projection

all of them unit vectors. f̄, with its head and projection, is the running average of the net that
trains, θ̄ ← m θ̄ + (1 − m) θ before every step. A queue holds the last `keys` keys of each class;
P_i are those of the class of x_i and its own, the softmax is over all of them. The own key of the
projection is that of another view x̄ of the image; that of the classifier is (h_i, 1) of the net
that trains, through which the loss reaches the backbone (w is a constant there, as in the authors'
code). Zhong, Wang, Kou, Wang and Long, "Bi-tuning of pre-trained representations", arXiv 2011.06182
(λ = 1, τ = 0.07, m = 0.999, 40 keys a class, 128 dimensions).

Their queues begin with random vectors; here they begin empty, so that no noise passes for a
positive, and a batch is compared with the keys of earlier ones. x: (B, C, H, W); y: (B,) int64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tlrun.config.ranges import Positive, Share, Weight, Width
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.fp32 import in_fp32
from tlrun.losses.contrastive import class_contrast
from tlrun.methods.base import Term, Update
from tlrun.methods.terms.key_queue import KeyQueue
from tlrun.methods.terms.shown import labelled_target, shown, target_output
from tlrun.models.ema import EmaTeacher
from tlrun.models.heads import Head
from tlrun.models.net import PROJECTOR, Net


class BiTuning(Term):
    """weight: λ. keys: of each class that are remembered. momentum: m of their net.

    temperature: τ, above 0. dim: of the projection.
    """

    domains = ("target",)
    reads = ("features", "labels")
    one_target = True
    views = {"target": ("weak",)}

    def __init__(
        self,
        weight: Weight = 1.0,
        keys: Width = 40,
        momentum: Share = 0.999,
        temperature: Positive = 0.07,
        dim: Width = 128,
    ) -> None:
        self.weight, self.momentum, self.temperature, self.dim = weight, momentum, temperature, dim
        self.queue = KeyQueue(keys)
        self.average: EmaTeacher | None = None
        self._saved: dict[str, Any] | None = None  # of the average, until there is a net to fill

    def build(self, net: Net) -> None:
        net.add(PROJECTOR, Head(net.feature_dim, self.dim, (), False, 0.0))

    def check(self, net: Net, data: Data) -> None:
        labelled_target(data, "bi_tuning")
        last_layer(net)

    def start(self, net: Net, data: Data) -> None:
        last = last_layer(net)
        device = next(net.parameters()).device
        self.average = EmaTeacher(net, (net.main_head, PROJECTOR))
        self.queue.open(data.num_classes, last.in_features + 1 + self.dim, device)

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        target = target_output(update, "bi_tuning")
        features, y = (shown(update, "bi_tuning", what) for what in ("features", "y"))
        average = self._average(net)
        average.follow(net, self.momentum)
        with torch.no_grad(), average.batch_statistics():
            x = target.views.get("weak", target.x)
            own = keys_of(average.inner, average.inner.features(x), net.main_head)
        remembered, label = self.queue.all(target.x.device)
        queries = keys_of(net, features, net.main_head)
        cce, ccl = self.contrasts(net, queries, own, remembered, y, label)
        self.queue.put(torch.cat(own, 1), y)
        update.metrics |= {"cce": cce.detach(), "ccl": ccl.detach()}
        return {"bi_tuning": self.weight * (cce + ccl)}

    def contrasts(
        self,
        net: Net,
        queries: tuple[Tensor, Tensor],
        own: tuple[Tensor, Tensor],
        remembered: Tensor,
        y: Tensor,
        label: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """(L_CCE, L_CCL). queries, own: of the batch, as `keys_of`. remembered: (N, D + 1 + dim)
        with its classes `label`, (N,)."""
        same = y[:, None] == label
        h, z = remembered.split([remembered.shape[1] - self.dim, self.dim], 1)
        w = class_vectors(last_layer(net))[y]
        cce = class_contrast(w, queries[0], h, same, self.temperature)
        ccl = class_contrast(queries[1], own[1], z, same, self.temperature)
        return cce, ccl

    def _average(self, net: Net) -> EmaTeacher:
        """After a resume it is made again, from the structure of `net`."""
        if self.average is None:
            self.average = EmaTeacher(net, (net.main_head, PROJECTOR))
            if self._saved is not None:
                self.average.load_state_dict(self._saved)
                self._saved = None
        return self.average

    def state_dict(self) -> dict[str, Any]:
        average = self._saved if self.average is None else self.average.state_dict()
        return {"average": average, "queue": self.queue.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.queue.load_state_dict(state["queue"])
        if self.average is None:
            self._saved = state["average"]
        else:
            self.average.load_state_dict(state["average"])


def last_layer(net: Net) -> nn.Linear:
    """Of the classifier. Raises ConfigError where it is not linear."""
    head = net[net.main_head] if net.main_head in net.parts else None
    if not isinstance(head, Head) or not isinstance(head.out, nn.Linear):
        raise ConfigError("terms=[bi_tuning] needs a classifier whose last layer is linear")
    return head.out


@in_fp32
def class_vectors(layer: nn.Linear) -> Tensor:
    """(K, D + 1): the rows of weights and bias, constants, at length 1."""
    return normalize(torch.cat([layer.weight, layer.bias[:, None]], 1).detach(), dim=1)


@in_fp32
def keys_of(net: Net, features: Tensor, head: str) -> tuple[Tensor, Tensor]:
    """features: (B, D) -> what the last layer of `head` is given, (B, D' + 1) with a 1 for its
    bias, and the projection, (B, dim); both at length 1."""
    classifier = net[head]
    assert isinstance(classifier, Head)
    h = features
    for stage in classifier.stage_names[:-1]:
        h = classifier.get_submodule(stage)(h)
    h = torch.cat([h, h.new_ones(len(h), 1)], 1)
    return normalize(h, dim=1), normalize(net[PROJECTOR](features), dim=1)
