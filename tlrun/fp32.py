"""Full precision where digits decide, also under autocast.

    @in_fp32
    def squared_distances(a, b): ...

Autocast multiplies matrices in bf16, which keeps 8 bits: there 1 − 1e-6 is 1, whose logarithm's
partner log(1 − p) is −∞, and two class means at nearly the same distance change places. So autocast
is for the backbone; what compares, ranks, inverts, normalises or takes a logarithm of what it gives
(heads, scores, losses, validators) carries this decorator. docs/decisions.md, "Precision".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

DEVICES = ("cpu", "cuda", "mps")
HALF = (torch.bfloat16, torch.float16)

P = ParamSpec("P")
R = TypeVar("R")


def in_fp32(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, called outside autocast and with fp32 in place of bf16 and fp16.

    The tensors may lie in lists, tuples, dictionaries and dataclasses; an argument that holds none
    of half precision is passed on itself. float64 stays float64. Gradients return in the type that
    the tensor came in.
    """

    @wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        for device in DEVICES:
            if torch.is_autocast_enabled(device):
                with torch.autocast(device, enabled=False):
                    return computed(*args, **kwargs)
        return function(
            *(_widened(value) for value in args),
            **{name: _widened(value) for name, value in kwargs.items()},
        )

    return computed


def _widened(value: Any) -> Any:
    """value with fp32 tensors in place of those of half precision; itself if there are none."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in HALF else value
    if isinstance(value, list | tuple):
        items = [_widened(item) for item in value]
        return type(value)(items) if _differ(items, value) else value
    if isinstance(value, dict):
        items = [_widened(item) for item in value.values()]
        return dict(zip(value, items, strict=True)) if _differ(items, value.values()) else value
    if is_dataclass(value) and not isinstance(value, type):
        own = {field.name: getattr(value, field.name) for field in fields(value)}
        wider = {name: _widened(item) for name, item in own.items()}
        changed = {name: item for name, item in wider.items() if item is not own[name]}
        return replace(value, **changed) if changed else value
    return value


def _differ(items: list[Any], others: Any) -> bool:
    return any(a is not b for a, b in zip(items, others, strict=True))
