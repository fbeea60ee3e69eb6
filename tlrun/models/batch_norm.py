"""Batch norm with statistics per domain, or over all processes.

`convert(net, mode, synchronize)` replaces the batch norms of a net in place and keeps parameters,
statistics and settings. Modes (the top-level key `batch_norm`):

* joint, separate_forward: one set of running statistics. They differ in how a method calls the net
  (one forward over both domains, or two), not in the layer, which stays torch's own.
* per_domain: one affine, running statistics per domain (Chang et al. 2019, with shared affine).
  `net(x, domain="target")` says which; inside, `statistics_of` tells the layers.

State dict keys are torch's: weight, bias, running_mean, running_var, num_batches_tracked; in
per_domain these hold the source's statistics and target_running_mean, target_running_var,
target_num_batches_tracked the target's. A per_domain net loads a checkpoint without target keys (it
has then no target statistics yet); the other way round needs strict=False and reads the source's.

`hold_statistics` is the fourth mode, `frozen`: the layers that came with statistics normalise by
them in training too and do not change them, while their affine goes on training. One that is new
(a head's) has none to keep, so it trains as under `joint`.

A domain without statistics (no training batch yet) is evaluated with the source's: fresh buffers
(mean 0, variance 1) would look like a weak method.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlrun.errors import ConfigError, did_you_mean
from tlrun.fp32 import in_fp32

MODES = ("joint", "separate_forward", "per_domain")
FROZEN = "frozen"  # joint, with `hold_statistics`
DOMAINS = ("source", "target")
_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def convert(net: nn.Module, mode: str = "joint", synchronize: bool = False) -> nn.Module:
    """Replace every batch norm inside `net`, in place; a second call changes nothing.

    mode: joint | separate_forward | per_domain. synchronize: batch statistics over all processes of
    torch.distributed's default group. Raises ConfigError for an unknown mode or an unknown kind of
    batch norm.
    """
    if mode not in MODES:
        raise ConfigError(f"unknown batch_norm '{mode}': {did_you_mean(mode, MODES)}")
    per_domain = mode == "per_domain"
    if not per_domain and not synchronize:
        return net
    converted: dict[nn.Module, BatchNorm] = {}  # a layer that is used in two places stays one layer
    for parent in list(net.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, _BatchNorm):
                if child not in converted:
                    converted[child] = BatchNorm(child, per_domain, synchronize)
                setattr(parent, name, converted[child])
    return net


def has_batch_norm(net: nn.Module) -> bool:
    """Whether it has a layer of that kind at all."""
    return any(isinstance(module, _BatchNorm | BatchNorm) for module in net.modules())


def norms_with_statistics(net: nn.Module) -> list[str]:
    """Names of the batch norms that have running statistics of something: not mean 0, variance 1.

    Not by num_batches_tracked: many published weights have it at 0.
    """
    names = []
    for name, module in net.named_modules():
        if isinstance(module, _BatchNorm | BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            if bool((module.running_mean != 0).any()) or bool((module.running_var != 1).any()):
                names.append(name)
    return names


def hold_statistics(net: nn.Module, names: Iterable[str]) -> None:
    """Mark these batch norms, so that `set_held_eval` and `is_held` know them."""
    for name in names:
        net.get_submodule(name).holds_statistics = True  # type: ignore[assignment]


def is_held(norm: nn.Module) -> bool:
    """Whether the statistics of a batch norm are to stay as they are (`batch_norm=frozen`)."""
    return bool(getattr(norm, "holds_statistics", False))


def set_held_eval(net: nn.Module) -> None:
    """Eval mode for the held batch norms, without what timm puts inside them (dropout)."""
    for module in net.modules():
        if is_held(module):
            module.training = False


@contextmanager
def statistics_of(domain: str, module: nn.Module) -> Iterator[None]:
    """Inside, the per-domain layers of `module` use the statistics of "source" or "target".

    Outside they use the source's. Raises ConfigError for another name, if there are such layers.
    """
    layers = [m for m in module.modules() if isinstance(m, BatchNorm) and m.per_domain]
    if layers and domain not in DOMAINS:
        raise ConfigError(
            f"no batch statistics for domain '{domain}': {did_you_mean(domain, DOMAINS)}"
        )
    for layer in layers:
        layer.domain = domain
    try:
        yield
    finally:
        for layer in layers:
            layer.domain = DOMAINS[0]


class BatchNorm(nn.Module):
    """Drop-in for nn.BatchNorm1d/2d/3d that takes over the module `norm`.

    x: (B, C) or (B, C, ...), any float type; statistics are kept and, when synchronised, computed
    in fp32. Parameters keep their identity, so an optimizer that holds them stays valid.
    """

    # Named here so that a checker and torch.compile know them.
    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, norm: _BatchNorm, per_domain: bool, synchronize: bool) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = norm.num_features, norm.eps, norm.momentum
        self.register_parameter("weight", norm.weight)
        self.register_parameter("bias", norm.bias)
        for key in _STATISTICS:
            self.register_buffer(key, getattr(norm, key))
        # Without running statistics (track_running_stats=False) there is nothing to keep per
        # domain.
        self.per_domain = per_domain and norm.running_mean is not None
        if self.per_domain:
            for key in _STATISTICS:
                fresh = torch.ones_like if key == "running_var" else torch.zeros_like
                self.register_buffer(f"target_{key}", fresh(getattr(norm, key)))
        self.synchronize = synchronize
        self.domain = DOMAINS[0]  # set by `statistics_of` alone
        # timm's BatchNormAct2d is a batch norm followed by these two.
        self.after = [name for name in ("drop", "act") if _has_child(norm, name)]
        if type(norm) not in _PLAIN and not self.after:
            raise ConfigError(
                f"the backbone's {type(norm).__name__} cannot be split by domain or synchronised: "
                "set batch_norm=joint with trainer.devices=1, or take another backbone"
            )
        for name in self.after:
            self.add_module(name, norm.get_submodule(name))
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.synchronize and _world() > 1:
            out = self._synchronised(x).to(x.dtype)
        else:
            out = self._native(x)
        for name in self.after:
            out = self.get_submodule(name)(out)
        return out

    def _native(self, x: Tensor) -> Tensor:
        if not self.training:
            mean, var = self._eval_statistics()
            use_batch = mean is None
            return F.batch_norm(x, mean, var, self.weight, self.bias, use_batch, 0.0, self.eps)
        mean, var, factor = self._advance()
        return F.batch_norm(x, mean, var, self.weight, self.bias, True, factor, self.eps)

    @in_fp32
    def _synchronised(self, x: Tensor) -> Tensor:
        """Batch norm over the union of all processes' batches (two differentiable all-reduces)."""
        dims = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = x.new_full((1,), x.numel() / x.shape[1])
        total = _AllReduce.apply(torch.cat([x.sum(dims), count]))
        n = total[-1].detach()
        mean = total[:-1] / n
        centred = x - mean.view(shape)
        var = _AllReduce.apply(centred.square().sum(dims)) / n
        running_mean, running_var, factor = self._advance()
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), factor)
                running_var.lerp_((var * n / (n - 1)).to(running_var.dtype), factor)
        out = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.weight is not None and self.bias is not None:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out

    def _advance(self) -> tuple[Tensor | None, Tensor | None, float]:
        """Running mean and variance of the domain, and the share of the new batch in them."""
        mean, var, tracked = (getattr(self, key) for key in self._keys())
        if tracked is None:
            return None, None, 0.0
        tracked.add_(1)
        factor = self.momentum if self.momentum is not None else 1.0 / float(tracked)
        return mean, var, factor

    def _eval_statistics(self) -> tuple[Tensor | None, Tensor | None]:
        if not self.per_domain or self.domain != "target":
            return self.running_mean, self.running_var
        # On the device and without a branch: no synchronisation, and it can be exported.
        mean, var, tracked = (getattr(self, key) for key in self._keys())
        source_mean, source_var, _ = (getattr(self, key) for key in _STATISTICS)
        return torch.where(tracked > 0, mean, source_mean), torch.where(
            tracked > 0, var, source_var
        )

    def _keys(self) -> tuple[str, ...]:
        if self.per_domain and self.domain == "target":
            return tuple(f"target_{key}" for key in _STATISTICS)
        return _STATISTICS

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        keys = [f"target_{key}" for key in _STATISTICS]
        if self.per_domain and not any(prefix + key in state_dict for key in keys):
            state_dict.update({prefix + key: getattr(self, key) for key in keys})
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"per_domain={self.per_domain}, synchronize={self.synchronize}"
        )


class _AllReduce(torch.autograd.Function):
    """Sum over all processes; the gradient of a sum that every process uses is again the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous().clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad


def _has_child(module: nn.Module, name: str) -> bool:
    return name in dict(module.named_children())


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
