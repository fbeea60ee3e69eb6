"""A running average of a net, as a part of it: a teacher of consistency, or what predicts.

    net.add("teacher", EmaTeacher(net))       # in build
    net["teacher"].copy(net)                  # in start: the net may have got other weights since
    net["teacher"].follow(net, 0.99)          # at the start of every step
    net["teacher"](x, "target").logits

Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017: θ' ← d·θ' + (1 − d)·θ.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlrun.models.batch_norm import BatchNorm, is_held
from tlrun.models.net import Forward, Net


class EmaTeacher(nn.Module):
    """Backbone and `heads` of a net, without gradients, always in eval mode.

    own_statistics: its batch norms use and gather the statistics of the images that the teacher
    itself is shown (French et al., ICLR 2018): those that a student gathers on strongly augmented
    images do not fit plain ones. Else all buffers are averaged too.
    """

    def __init__(
        self, net: Net, heads: tuple[str, ...] = ("classifier",), own_statistics: bool = True
    ) -> None:
        super().__init__()
        self.inner = Net(copy.deepcopy(net.backbone), net.input_shape)
        for head in heads:
            self.inner.add(head, copy.deepcopy(net[head]))
        self.own_statistics = own_statistics
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> EmaTeacher:
        """Never in train mode: its dropout would blur what it teaches."""
        super().train(False)
        return self

    def forward(self, x: Tensor, domain: str = "source") -> Forward:
        """x: (B, ...) of a domain -> features (B, D) and logits (B, K), in eval mode."""
        out: Forward = self.inner(x, domain)
        return out

    @torch.no_grad()
    def teach(self, x: Tensor, domain: str = "source") -> Forward:
        """As forward, without gradients; with own statistics, normalised by those of the batch."""
        with self.batch_statistics():
            out: Forward = self.inner(x, domain)
        return out

    @contextmanager
    def batch_statistics(self) -> Iterator[None]:
        """Inside, with own statistics, its batch norms use and gather those of the batch."""
        norms = [m for m in self.inner.modules() if isinstance(m, BatchNorm | _BatchNorm)]
        for norm in norms if self.own_statistics else ():
            norm.training = not is_held(norm)
        try:
            yield
        finally:
            for norm in norms:
                norm.training = False

    @torch.no_grad()
    def copy(self, net: Net) -> None:
        """Take over all values of the net."""
        for mine, theirs in self._pairs(net, statistics=True):
            mine.copy_(theirs)

    @torch.no_grad()
    def give(self, net: Net) -> None:
        """Put all values into the net: it goes on from the average."""
        for mine, theirs in self._pairs(net, statistics=True):
            theirs.copy_(mine)

    @torch.no_grad()
    def follow(self, net: Net, decay: float) -> None:
        """One step of the running average; whole numbers (counters) are copied."""
        pairs = list(self._pairs(net, statistics=not self.own_statistics))
        floats = [(a, b) for a, b in pairs if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1.0 - decay)
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)

    def _pairs(self, net: Net, statistics: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Parameters and buffers here and in the net; without the statistics gathered here.

        With statistics by domain the teacher is shown the target, and the source's are the net's.
        """
        for name, part in self.inner.parts.items():
            theirs = dict(net[name].state_dict())
            for key, mine in part.state_dict().items():
                module = part.get_submodule(key.rpartition(".")[0])
                if not statistics and _gathered(module, key.rpartition(".")[2]):
                    continue
                yield mine, theirs[key]


def _gathered(module: nn.Module, buffer: str) -> bool:
    """Whether a buffer holds batch statistics of the domain that a teacher is shown."""
    if not isinstance(module, BatchNorm | _BatchNorm) or buffer in ("weight", "bias"):
        return False
    return not getattr(module, "per_domain", False) or buffer.startswith("target_")
