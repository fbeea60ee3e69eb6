"""Progressive columns: a net per task, fed by the features of the nets of earlier tasks.

    h_i^k = f_i( h_{i-1}^k + U_i ReLU( V_i [α_1 h_{i-1}^1, ..., α_{k-1} h_{i-1}^{k-1}] ) )

f_i is stage i of column k, h_{i-1}^j what came out of stage i-1 of column j. V and U are 1x1
convolutions for maps (B, C, H, W) and linear layers for vectors (B, D) and tokens (B, N, D),
without biases: α = 0 is an independent column, to the bit. Nothing is added to the first stage's
input; after the last stage the features are fed in the same way. Rusu et al., "Progressive neural
networks", arXiv 1606.04671, add U σ(V α h) behind the weights W_i; here W_i, the first layer of the
stage, maps it too, so that any net with named stages can be a column.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tlrun.errors import ConfigError

FEATURES = "features"  # the adapter behind the last stage


@dataclass
class Flow:
    """What a column made of x: by stage but the first what it was given, and the features; both
    without what earlier columns add."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None


class Adapter(nn.Module):
    """U ReLU(V [α_j h^j]): k maps or vectors of `channels` each -> one of `channels`.

    alpha: the start of every α_j. dims: of h, the batch included.
    """

    def __init__(self, channels: int, earlier: int, hidden: int, alpha: float, dims: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((earlier,), float(alpha)))
        self.axis = 1 if dims == 4 else -1
        if dims == 4:
            self.v: nn.Module = nn.Conv2d(channels * earlier, hidden, 1, bias=False)
            self.u: nn.Module = nn.Conv2d(hidden, channels, 1, bias=False)
        else:
            self.v = nn.Linear(channels * earlier, hidden, bias=False)
            self.u = nn.Linear(hidden, channels, bias=False)

    def forward(self, earlier: Sequence[Tensor]) -> Tensor:
        scaled = [a * h for a, h in zip(self.alpha, earlier, strict=True)]
        return self.u(self.v(torch.cat(scaled, self.axis)).relu())


class Column(nn.Module):
    """The net of a later task. Its parts: `backbone` and, for lateral="adapters", an adapter each
    for the stages but the first and for the features.

    backbone: a fresh one. flow: what a forward pass of it looks like (for the shapes). earlier:
    number of columns before it. width, max_hidden: hidden units of an adapter, as a share of its
    channels and at most.
    """

    def __init__(
        self,
        backbone: nn.Module,
        flow: Flow,
        earlier: int,
        lateral: str = "adapters",
        width: float = 0.5,
        alpha: float = 0.1,
        max_hidden: int = 32,
    ) -> None:
        super().__init__()
        assert flow.features is not None
        self.backbone, self.lateral = backbone, lateral
        self.stage_names = [f"backbone.{stage}" for stage in stages_of(backbone)]
        self.adapters = nn.ModuleDict()
        if lateral == "adapters":
            for stage, h in {**flow.inputs, FEATURES: flow.features}.items():
                channels = h.shape[1] if h.ndim == 4 else h.shape[-1]
                hidden = max(1, min(max_hidden, round(channels * width)))
                self.adapters[key(stage)] = Adapter(channels, earlier, hidden, alpha, h.ndim)
            self.stage_names.append("adapters")
        dim = flow.features.shape[1]
        self.feature_dim = dim * (earlier + 1) if lateral == "concat" else dim

    def forward(self, x: Tensor, earlier: Sequence[Flow]) -> Flow:
        """x: (B, ...). earlier: of the columns before it, on the same x; empty = none feeds it."""
        added = {
            stage: self.adapters[key(stage)]([flow.inputs[stage] for flow in earlier])
            for stage in (earlier[0].inputs if earlier else ())
            if key(stage) in self.adapters
        }
        return run(self.backbone, x, added)

    def combine(self, own: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """What its head sees. own: its features (B, D); earlier: those of the columns before it."""
        if not earlier or self.lateral == "none":
            return own
        if self.lateral == "adapters":
            added: Tensor = self.adapters[FEATURES](earlier)
            return own + added
        if self.lateral == "add":
            return torch.stack([own, *earlier]).sum(0)
        return torch.cat([own, *earlier], 1)


def run(backbone: nn.Module, x: Tensor, added: dict[str, Tensor] | None = None) -> Flow:
    """A forward pass; added: stage -> what is added to its input. `inputs` are those before it."""
    flow, added = Flow(), added or {}
    with ExitStack() as hooks:
        for stage in stages_of(backbone)[1:]:

            def note(_module: nn.Module, given: tuple[Tensor, ...], stage: str = stage) -> object:
                flow.inputs[stage] = given[0]
                return (given[0] + added[stage], *given[1:]) if stage in added else None

            handle = backbone.get_submodule(stage).register_forward_pre_hook(note)
            hooks.callback(handle.remove)
        flow.features = backbone(x)
    return flow


def through(columns: Sequence[nn.Module], x: Tensor, learn_all: bool = False) -> Tensor:
    """x: (B, ...) through the first column and all that follow -> what the last one's head sees.

    columns: the first task's backbone, then `Column`s. learn_all: with gradients for all of them,
    else for the last alone.
    """
    flows: list[Flow] = []
    for number, column in enumerate(columns):
        last = number == len(columns) - 1
        with nullcontext() if last or learn_all else torch.no_grad():
            flows.append(column(x, flows) if isinstance(column, Column) else run(column, x))
    *earlier, own = [flow.features for flow in flows if flow.features is not None]
    return columns[-1].combine(own, earlier) if isinstance(columns[-1], Column) else own


def fresh_copy(backbone: nn.Module) -> nn.Module:
    """The same net with new weights, each layer's as its own `reset_parameters` draws them."""
    copied = copy.deepcopy(backbone)
    for module in copied.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
        elif any(True for _ in module.parameters(recurse=False)):
            raise ConfigError(
                f"the backbone's {type(module).__name__} cannot be drawn anew for a further "
                "column: take another backbone, such as resnet18 or dann_cnn"
            )
    return copied


def stages_of(backbone: nn.Module) -> list[str]:
    return list(backbone.stage_names)  # type: ignore[arg-type]


def key(stage: str) -> str:
    """The name of a stage's adapter: no dots in the keys of a ModuleDict."""
    return stage.replace(".", "_")
