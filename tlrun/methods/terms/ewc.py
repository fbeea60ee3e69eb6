"""`terms=[ewc]`: elastic weight consolidation: hold the weights that the source needs.

    λ/2 · Σ_i F_i / F̄ (θ_i − θ*_i)²,   F = E_{x ~ S} E_{y ~ p(y|x)} [ (∂ log p(y|x) / ∂θ)² ]

θ* are the carried weights at the start of the target phase, F the diagonal of the Fisher
information of the old head's predictions there (the sum over several old heads): gradients are
squared per image, never those of a batch's mean. F̄ is the mean of F over all carried weights, so
that one λ holds for nets of any size and sureness: F itself falls with both. Kirkpatrick et al.,
"Overcoming catastrophic forgetting in neural networks", PNAS 2017. x: source training images (B, C,
H, W), in eval mode. The gradient λ F / F̄ (θ − θ*) is added in place, as in l2_sp.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from tlrun.config.ranges import Count, Size, Weight
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.pipeline.streams import batches
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.methods.base import Term, Update
from tlrun.methods.terms.memory import Anchor, FrozenCopy, add_to_gradients, check_carried
from tlrun.methods.terms.shown import source_heads
from tlrun.models.net import Net

HELD = 2**24  # numbers of gradients held at once; one gradient is as large as the net


class EWC(Term):
    """weight: λ. images: of the source, for F. samples: draws of y; 0 = the exact expectation.

    `metric/ewc` is the penalty.
    """

    needs_images = False
    takes_soft_labels = True

    def __init__(self, weight: Weight = 1.0, images: Count = 200, samples: Size = 0) -> None:
        self.weight, self.images, self.samples = weight, images, samples
        self.anchor = Anchor()
        self.fisher: dict[str, Tensor] = {}

    def check(self, net: Net, data: Data) -> None:
        check_carried(net, "ewc")
        for stream in source_heads(net, "ewc").values():
            learned_from(data, stream)

    def start(self, net: Net, data: Data) -> None:
        self.anchor.remember(net, "ewc")
        copied = FrozenCopy()
        copied.remember(net)  # in eval mode, without hooks
        device, names = next(net.parameters()).device, list(self.anchor.values)
        self.fisher = {}
        for head, stream in source_heads(net, "ewc").items():
            examples = learned_from(data, stream)
            chosen = examples.subset(permutation(len(examples), "ewc")[: self.images])
            x = torch.cat([x for x, _, _ in batches(chosen, data.preprocess, device)])
            for name, value in fisher(copied.of(net), head, x, names, self.samples).items():
                self.fisher[name] = self.fisher[name] + value if name in self.fisher else value
        self.fisher = of_mean_one(self.fisher)

    @torch.no_grad()
    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        _, away, weights = self._away(net)
        squares = torch._foreach_mul(torch._foreach_mul(away, away), weights) if away else ()
        update.metrics["ewc"] = 0.5 * self.weight * sum(s.sum() for s in squares)
        return {}

    @torch.no_grad()
    def grad_(self, net: Net) -> None:
        old, away, weights = self._away(net)
        if old:
            add_to_gradients(old, list(torch._foreach_mul(away, weights)), self.weight)

    def _away(self, net: Net) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of the parameters that train: θ, θ − θ* and F."""
        names, old, away = self.anchor.away(net)
        return old, away, [self.fisher[n].to(a.device) for n, a in zip(names, away, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        return {"anchor": self.anchor.values, "fisher": self.fisher}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.anchor.values, self.fisher = dict(state["anchor"]), dict(state["fisher"])


def learned_from(data: Data, stream: str) -> ImageSet:
    """The training images of a stream. Raises ConfigError where there are none."""
    examples = data.role(f"{stream}_train")
    if examples is None:
        raise ConfigError("terms=[ewc] needs source images to find out which weights matter")
    return examples


def of_mean_one(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same values over their mean; as they are where all are 0."""
    count = sum(value.numel() for value in values.values())
    mean = sum(float(value.double().sum()) for value in values.values()) / max(count, 1)
    return {name: value / mean for name, value in values.items()} if mean > 0 else values


def fisher(net: Net, head: str, x: Tensor, names: list[str], samples: int = 0) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of `head`, by parameter name; net in eval mode.

    x: (N, ...). names: the parameters. samples: draws of y from p(y|x); 0 = all classes, weighted.
    """
    values = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    parameters = {name: values.pop(name) for name in names}

    def log_probability(own: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        out = functional_call(net, ({**values, **own},), (image[None],), {"head": head})
        return out.logits[0].log_softmax(0).gather(0, label[None])[0]

    gradients = vmap(grad(log_probability), in_dims=(None, 0, 0))
    with torch.no_grad():
        p = net(x, head=head).logits.softmax(1)
    image = torch.arange(len(x), device=x.device).repeat_interleave(samples or p.shape[1])
    if samples:
        same = torch.Generator(x.device).manual_seed(0)  # in all processes
        label = p.multinomial(samples, True, generator=same).flatten()
        share = torch.full((len(label),), 1 / samples, device=x.device)
    else:
        label, share = torch.arange(p.shape[1], device=x.device).repeat(len(x)), p.flatten()
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    chunk = max(1, HELD // sum(value.numel() for value in parameters.values()))
    for part in torch.arange(len(image), device=x.device).split(chunk):
        squares = gradients(parameters, x[image[part]], label[part])
        for name, g in squares.items():
            total[name] += torch.einsum("b,b...->...", share[part], g.square())
    return {name: value / len(x) for name, value in total.items()}
