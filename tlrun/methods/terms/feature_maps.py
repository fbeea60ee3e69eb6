"""Feature maps for `terms=[delta]`: which layers, their outputs, and which channels matter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tlrun.errors import ConfigError
from tlrun.models.net import Net

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def layers(net: Net, stages: Sequence[str]) -> list[str]:
    """The last convolution of each stage, else its last linear layer; dotted names in the net.

    Raises ConfigError if no stage has one, or one is not of the backbone.
    """
    found: list[str] = []
    for stage in net.select(stages):
        if not stage.startswith("backbone"):
            raise ConfigError(f"terms.delta.stages: {stage} does not lie in the backbone")
        inner = dict(net.module_of(stage).named_modules())
        convolutions = [n for n, m in inner.items() if isinstance(m, _CONVOLUTIONS)]
        last = convolutions or [n for n, m in inner.items() if isinstance(m, nn.Linear)]
        found += [f"{stage}.{last[-1]}" if last[-1] else stage] if last else []
    if not found:
        raise ConfigError(
            f"terms.delta.stages={list(stages)}: no convolution or linear layer there"
        )
    return found


def channels(module: nn.Module) -> int:
    return int(module.out_channels if isinstance(module, _CONVOLUTIONS) else module.out_features)  # type: ignore[arg-type]


def over_positions(module: nn.Module, x: Tensor) -> Tensor:
    """Mean of a layer's output over all positions but the channels': -> (B, C)."""
    if not isinstance(module, _CONVOLUTIONS):
        x = x.movedim(-1, 1)
    return x.flatten(2).mean(2) if x.ndim > 2 else x


class Catch:
    """The outputs of a net's layers in its last training forward pass."""

    def __init__(self, wanted: Callable[[], bool]) -> None:
        """wanted: whether anybody will ask for them; else they would keep a graph alive."""
        self.wanted = wanted
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._outputs: dict[str, Tensor] = {}

    def attach(self, net: Net, names: Iterable[str]) -> None:
        """Listen to these layers, and to none that were named before."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = [
            net.module_of(name).register_forward_hook(self._hook(name)) for name in names
        ]

    def _hook(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            if torch.is_grad_enabled() and self.wanted():
                self._outputs[name] = output

        return keep

    def take(self) -> dict[str, Tensor]:
        """Those of the last pass; they are let go."""
        outputs, self._outputs = self._outputs, {}
        return outputs


@torch.no_grad()
def attention(module: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
    """Softmax over the channels of the rise in `loss()` when one is zeroed: (C,), sums to 1."""
    before = loss()
    dim = 1 if isinstance(module, _CONVOLUTIONS) else -1
    rise = []
    for j in range(channels(module)):
        zero = torch.tensor([j], device=before.device)
        hook = module.register_forward_hook(lambda _m, _i, out, j=zero: out.index_fill(dim, j, 0.0))
        rise.append(loss() - before)
        hook.remove()
    return torch.stack(rise).softmax(0)


def fitted(features: Tensor, y: Tensor, decay: float = 1e-2) -> nn.Linear:
    """A linear head fitted to fixed features (N, D) and labels (N,): full-batch L-BFGS."""
    features = features.detach().float()
    head = nn.Linear(features.shape[1], int(y.max()) + 1, device=features.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=50)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(head(features), y) + 0.5 * decay * head.weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    return head.requires_grad_(False)
