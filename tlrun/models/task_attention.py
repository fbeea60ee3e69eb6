"""Attention by task: one shared net, and for each task a mask on what each of its stages puts out.

    a_1 = m_1 ⊙ p_1,    a_j = m_j ⊙ p_j,    m_j = σ( h_j( g_j( [p_j ; f_j(a_{j-1})] ) ) )

p_j is the output of stage j, σ the logistic function, g_j a 1x1 convolution, batch norm and ReLU,
h_j a 1x1 convolution and batch norm of each task; f_j (3x3 convolution, batch norm, ReLU, pooled to
the size of p_j) is shared by the tasks and missing in m_1. The head of a task is given what the
backbone makes of its last a_j. Liu, Johns and Davison, "End-to-end multi-task learning with
attention" (MTAN), CVPR 2019, eq. 1-2. There the mask sees an earlier layer u_j of the same block
beside; here a stage is a block, and p_j stands for it. Vectors (B, D) have linear layers instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from tlrun.errors import ConfigError
from tlrun.models.segments import Segments


def layer(in_dim: int, out_dim: int, kernel: int, flat: bool) -> nn.Sequential:
    """A convolution (flat: a linear layer) and batch norm."""
    if flat:
        return nn.Sequential(nn.Linear(in_dim, out_dim, bias=False), nn.BatchNorm1d(out_dim))
    convolution = nn.Conv2d(in_dim, out_dim, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_dim))


class Mask(nn.Module):
    """h_j and g_j of one task: (B, in_dim, ...) -> a mask (B, channels, ...) in (0, 1)."""

    def __init__(self, in_dim: int, channels: int, flat: bool) -> None:
        super().__init__()
        self.g, self.h = layer(in_dim, channels, 1, flat), layer(channels, channels, 1, flat)

    def forward(self, x: Tensor) -> Tensor:
        mask: Tensor = self.h(self.g(x).relu()).sigmoid()
        return mask


class TaskAttention(nn.Module):
    """segments: of the backbone, which says the shapes of its stages."""

    def __init__(self, segments: Segments, tasks: Sequence[str]) -> None:
        super().__init__()
        self.segments = segments
        self.carry, masks = nn.ModuleList(), []  # f_j; by stage the masks of the tasks
        before = 0
        for shape in segments.shapes:
            if len(shape) not in (1, 3):
                raise ConfigError(
                    f"method.architecture=mtan masks maps and vectors, not outputs of shape {shape}"
                )
            flat, channels = len(shape) == 1, shape[0]
            if before:
                self.carry.append(layer(before, channels, 3, flat))
            in_dim = channels * 2 if before else channels
            masks.append(nn.ModuleDict({f"task_{t}": Mask(in_dim, channels, flat) for t in tasks}))
            before = channels
        self.masks = nn.ModuleList(masks)

    def forward(self, backbone: nn.Module, x: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """x: (B, ...) -> features (B, D) for each of `tasks`, by one pass of the backbone."""
        outputs: list[Tensor] = []
        with ExitStack() as hooks:
            for stage in self.segments.stages:
                handle = backbone.get_submodule(stage).register_forward_hook(
                    lambda _module, _given, out: outputs.append(out.clone())
                )
                hooks.callback(handle.remove)
            backbone.forward(x)
        return {task: self.segments.tail(backbone, self.attend(outputs, task)) for task in tasks}

    def attend(self, outputs: Sequence[Tensor], task: str) -> Tensor:
        """outputs: p_j of every stage -> the last a_j."""
        attended = outputs[0]
        for j, p in enumerate(outputs):
            mask = self.masks[j].get_submodule(f"task_{task}")
            if j == 0:
                attended = mask(p) * p
                continue
            carried = self.carry[j - 1](fitted(attended, p)).relu()
            if p.ndim == 4:
                carried = adaptive_avg_pool2d(carried, (p.shape[-2], p.shape[-1]))
            attended = mask(torch.cat([p, carried], 1)) * p
        return attended


def fitted(a: Tensor, p: Tensor) -> Tensor:
    """A map (B, C, H, W) as a vector (B, C) where the next stage puts out vectors."""
    return a.mean((2, 3)) if a.ndim == 4 and p.ndim == 2 else a
