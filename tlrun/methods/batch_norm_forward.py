"""One forward pass for each domain, under the run's `batch_norm` mode.

joint: one forward over the concatenation (statistics of the mixture). separate_forward: one forward
each, shared running statistics. per_domain: one forward each, own running statistics. Which of them
is used moves DANN on MNIST→MNIST-M from 37 % to 96 % (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tlrun.methods.base import DomainOutput
from tlrun.models.net import Forward, Net


def forward_domains(
    net: Net,
    inputs: Mapping[str, Tensor],
    mode: str,
    *,
    head: str | None = "",
    taps: Iterable[str] = (),
    unread: Iterable[str] = (),
) -> dict[str, Forward]:
    """inputs: domain -> x (B, ...). Returns domain -> Forward. head, taps: as in `Net.forward`.

    unread: domains whose logits nobody looks at. They are None where that changes nothing else.
    """
    taps = tuple(taps)
    separate = head == "" and not taps and mode != "joint"
    if separate and unread and net.main_head in net.parts and is_pure(net[net.main_head]):
        heads = {name: None if name in unread else head for name in inputs}
        return {name: net(x, name, head=heads[name]) for name, x in inputs.items()}
    if mode == "joint":
        joined = net(torch.cat(list(inputs.values())), head=head, taps=taps)
        return split_forward(joined, {name: len(x) for name, x in inputs.items()})
    return {name: net(x, name, head=head, taps=taps) for name, x in inputs.items()}


def is_pure(head: nn.Module) -> bool:
    """Whether a pass leaves no trace: no statistics to update, no random number drawn."""
    draws = any(isinstance(module, nn.modules.dropout._DropoutNd) for module in head.modules())
    return not draws and next(head.buffers(), None) is None


def domain_outputs(
    batch: Mapping[str, object], outputs: Mapping[str, Forward]
) -> dict[str, DomainOutput]:
    """What terms may look at."""
    return {
        name: DomainOutput(batch[name].x, out.features, out.logits, batch[name].y)  # type: ignore[attr-defined]
        for name, out in outputs.items()
    }


def split_forward(joined: Forward, sizes: Mapping[str, int]) -> dict[str, Forward]:
    """What one pass gave for several domains, by domain. sizes: domain -> its number of rows."""
    pieces = list(sizes.values())
    features = joined.features.split(pieces)
    logits = [None] * len(pieces) if joined.logits is None else joined.logits.split(pieces)
    taps = {name: tap.split(pieces) for name, tap in joined.taps.items()}
    return {
        domain: Forward(features[i], logits[i], {name: parts[i] for name, parts in taps.items()})
        for i, domain in enumerate(sizes)
    }
