"""What each stage of a net puts out, as one vector an image: averaged over space or tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from tlrun.models.net import Net


@contextmanager
def pooled_outputs(net: Net, stages: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Inside, every forward pass fills the dictionary: stage -> (B, D) float32 on the CPU.

    Averaged at once, before a later layer may write over it. A stage that a pass does not call, or
    that puts out something else than a tensor, is left out.
    """
    pooled: dict[str, Tensor] = {}

    def keep(stage: str, out: Any) -> None:
        if isinstance(out, tuple) and out:
            out = out[0]
        if isinstance(out, Tensor) and out.ndim >= 2:
            pooled[stage] = pool(out.detach()).float().cpu()

    hooks = [
        net.module_of(stage).register_forward_hook(lambda _, __, out, stage=stage: keep(stage, out))
        for stage in stages
    ]
    try:
        yield pooled
    finally:
        for hook in hooks:
            hook.remove()


def pool(x: Tensor) -> Tensor:
    """The average over space: maps (B, C, H, W) or (B, H, W, C), as window transformers have them,
    tokens (B, T, D) and vectors (B, D) alike -> (B, C or D).

    Maps are taken for channels-last if they are square that way and not the other.
    """
    if x.ndim == 2:
        return x
    if x.ndim == 3:
        return x.mean(1)
    last = x.ndim == 4 and x.shape[1] == x.shape[2] != x.shape[3]
    return x.mean((1, 2)) if last else x.flatten(2).mean(2)
