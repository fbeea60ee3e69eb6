"""Extra forward passes in training that leave no trace and involve no chance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from tlrun.models.batch_norm import BatchNorm

_DEPTH = ("StochasticDepth", "DropPath")  # of torchvision and timm: whole branches are dropped


@contextmanager
def repeatable(net: nn.Module) -> Iterator[None]:
    """Inside, two passes over the same images give the same outputs, and the net stays as it is.

    Batch norm that trains goes on to normalise by the batch, but its running statistics and its
    count of batches stay put; dropout and stochastic depth are off. Not to be held across a yield.
    """
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm | BatchNorm) and m.training]
    momentum = [norm.momentum for norm in norms]
    counts = {
        name: buffer.clone()
        for name, buffer in net.named_buffers()
        if name.endswith("num_batches_tracked")
    }
    dropouts = [m for m in net.modules() if _drops(m) and m.training]
    try:
        for norm in norms:
            norm.momentum = 0.0  # the new batch has no share
        for module in dropouts:
            module.training = False
        yield
    finally:
        for norm, value in zip(norms, momentum, strict=True):
            norm.momentum = value
        for module in dropouts:
            module.training = True
        with torch.no_grad():
            for name, count in counts.items():
                net.get_buffer(name).copy_(count)


@contextmanager
def judging(net: nn.Module) -> Iterator[None]:
    """Inside, the net is in eval mode; afterwards what trained before trains again, and no more.

    `net.train()` would also wake what is frozen: its batch statistics would drift.
    """
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _drops(module: nn.Module) -> bool:
    return isinstance(module, _DropoutNd) or type(module).__name__ in _DEPTH
