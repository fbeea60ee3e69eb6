"""WiSE-FT: between the weights before and after fine-tuning.

    θ_α = (1 − α) θ₀ + α θ₁

θ₀ are the weights that the target phase starts from, θ₁ those it ends with. Each α of the grid is a
phase without steps: its figures are an eval row of metrics.jsonl. The last phase, `interpolated`,
has the α of the config and is what the run hands over: no figure chooses it. Wortsman et al.,
"Robust fine-tuning of zero-shot models", CVPR 2022 (α = 0.5 without any knowledge of the target).

Stages that were not carried over (a new head) stay at θ₁, integer buffers too. Batch statistics of
a mixture are no mixture of statistics: they are computed anew over the target's training images,
in one pass for the mean over all batches, without labels; those of frozen stages stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from tlrun.config.ranges import BelowOne, Distinct, Share
from tlrun.data.pipeline.streams import batches
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.methods.base import Phase
from tlrun.methods.fine_tuning.finetune import Finetune
from tlrun.models.batch_norm import BatchNorm, is_held
from tlrun.models.net import Net

LAST = "interpolated"


class WiseFT(Finetune):
    """alpha: of the result, 0 (before) to 1 (after). grid: further α that are evaluated.

    recompute_batch_norm: false mixes the running statistics like weights. label_smoothing: as in
    fine-tuning.
    """

    def __init__(
        self,
        alpha: Share = 0.5,
        grid: Annotated[Sequence[Share], Distinct()] = (0.0, 0.25, 0.5, 0.75, 1.0),
        recompute_batch_norm: bool = True,
        label_smoothing: BelowOne = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        if not grid:
            raise ConfigError("method.grid is empty: give the shares to evaluate, [0.0,0.5,1.0]")
        self.alphas = {**{f"alpha_{a:g}": float(a) for a in grid}, LAST: float(alpha)}
        self.recompute_batch_norm = recompute_batch_norm
        self.ends: list[dict[str, Tensor]] = []  # θ₀ without what is new, then θ₁

    def phases(self, data: Data) -> list[Phase]:
        if self.init == "scratch":
            raise ConfigError("method=wise_ft needs weights to start from: not init=scratch")
        mixed = [Phase(name, ("target",), steps=0, terms=False) for name in self.alphas]
        return [*super().phases(data), *mixed]

    def start(self, phase: Phase, net: Net, data: Data) -> None:
        if phase.name == "target":
            new = tuple(f"parts.{s}." for s in net.stages() if s not in net.carried)
            kept = {k: v for k, v in net.state_dict().items() if not k.startswith(new)}
            self.ends = [{k: v.clone() for k, v in kept.items() if v.is_floating_point()}]
        elif phase.name in self.alphas:
            if len(self.ends) == 1:
                now = net.state_dict()
                self.ends.append({key: now[key].clone() for key in self.ends[0]})
            interpolate(net, self.ends[0], self.ends[1], self.alphas[phase.name])
            if self.recompute_batch_norm:
                recompute_statistics(net, data, net.select(phase.frozen))
            if phase.name == LAST:
                self.ends = []

    def state_dict(self) -> dict[str, Any]:
        return {"ends": self.ends}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ends = list(state["ends"])


@torch.no_grad()
def interpolate(net: Net, start: dict[str, Tensor], end: dict[str, Tensor], alpha: float) -> None:
    """(1 − α) start + α end into the net, exact at both ends; other tensors stay."""
    now = net.state_dict()
    for key, before in start.items():
        device = now[key].device
        now[key].copy_(torch.lerp(before.to(device), end[key].to(device), alpha))


@torch.no_grad()
def recompute_statistics(net: Net, data: Data, frozen: Sequence[str]) -> None:
    """Running statistics = the mean over the target's training images, in batches of 256."""
    still = {m for stage in frozen for m in net.module_of(stage).modules()}
    norms: list[Any] = [
        m
        for m in net.modules()
        if isinstance(m, _BatchNorm | BatchNorm) and m not in still and not is_held(m)
    ]
    examples = data.role("target_train")
    if not norms or examples is None:
        return
    momentum = [norm.momentum for norm in norms]
    was_training = net.training
    net.eval()
    for norm in norms:
        norm.train()
        norm.momentum = None  # the mean of all batches since the counter was at 0
        norm.num_batches_tracked.zero_()
    device = next(net.parameters()).device
    for x, _, _ in batches(examples, data.preprocess, device, 256):
        if len(x) > 1:
            net(x)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    net.train(was_training)
