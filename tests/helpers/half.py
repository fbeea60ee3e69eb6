"""Nets whose backbone gives the same bf16 features with and without autocast.

What differs between the two runs is then made of the features: heads, scores, losses.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tlrun.models.columns import Column
from tlrun.models.heads import DomainHead, Head
from tlrun.models.net import Net


def autocast(on: bool = True) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16) if on else nullcontext()


def same_features(net: nn.Module, scale: float = 1.0) -> None:
    """In place: backbones compute in fp32 always and round to bf16; times scale, for confidence.

    So do the other nets that autocast is for: columns, domain heads, projections.
    """
    for owner in [m for m in net.modules() if isinstance(m, Net)]:
        for name, part in owner.parts.items():
            backbone = part.backbone if isinstance(part, Column) else part
            if isinstance(part, DomainHead) or type(part) is Head or isinstance(part, Column):
                for module in part.modules():
                    module.forward = _exact(module.forward)
            if name.startswith(("backbone", "column")):
                for module in backbone.modules():
                    module.forward = _exact(module.forward)
                backbone.forward = _rounded(backbone.forward, scale)


def _exact(forward: Callable[..., Any]) -> Callable[..., Any]:
    def wide(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dtype == torch.bfloat16:
            return value.float()
        return [wide(item) for item in value] if isinstance(value, list) else value

    def computed(*arguments: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return forward(*map(wide, arguments))

    return computed


def _rounded(forward: Callable[..., Tensor], scale: float) -> Callable[..., Tensor]:
    def features(*arguments: Any) -> Tensor:
        out = (scale * forward(*arguments)).bfloat16()
        return out if torch.is_autocast_enabled("cpu") else out.float()

    return features
