"""Small backbones for small images, and an MLP for ready features.

Each takes the shape of the data, names its stages and computes its own feature size:

    net = DannCNN((3, 28, 28))
    net.feature_dim, net.stage_names      # 768, ["conv1", "conv2"]

Max pooling stands before the ReLU: the two commute exactly, and the ReLU then sees a quarter of the
values. Dropout is `Dropout2d`, whole channels: neighbouring values of a feature map are so alike
that dropping single ones regularises little (Tompson et al. 2015), and it needs 16 times fewer
draws.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Annotated

import torch
from torch import Tensor, nn

from tlrun.config.ranges import Range, Scale, Share, Width
from tlrun.errors import ConfigError
from tlrun.models.shapes import describe


class ConvStages(nn.Module):
    """Convolutional stages in order, then flattened: x (B, C, H, W) -> (B, feature_dim).

    Weights lie channels last, and what a convolution puts out then does too: torch's max pooling on
    a CPU is ten times as fast there, and a step of `dann_cnn` in bf16 twice (docs/decisions.md).
    """

    def __init__(self, input_shape: Sequence[int], stages: dict[str, nn.Module], name: str) -> None:
        super().__init__()
        for stage, module in stages.items():
            self.add_module(stage, module)
        self.stage_names = list(stages)
        describe(self, tuple(input_shape), name)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stage_names:
            x = self.get_submodule(stage)(x)
        return x.flatten(1)


class DannCNN(ConvStages):
    """The MNIST net of DANN (Ganin et al., JMLR 2016, fig. 4a): conv5x5-32, pool, conv5x5-48, pool.

    `batch_norm=False, dropout=0` is the paper's net letter by letter (768 features at 28x28); batch
    norm and a dropout of 0.25 after the second block are the better default of today.

    width: multiplies the 32 and 48 channels.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        width: Scale = 1.0,
        batch_norm: bool = True,
        dropout: Share = 0.25,
    ) -> None:
        first, second = _scaled(32, width), _scaled(48, width)
        stages = {
            "conv1": _block(_channels(input_shape), first, batch_norm),
            "conv2": _block(first, second, batch_norm, dropout),
        }
        super().__init__(input_shape, stages, "dann_cnn")


class LeNet(ConvStages):
    """The LeNet of the digit experiments (Long et al. 2018, CDAN; Liang et al. 2020, SHOT).

    conv5x5-20, pool, ReLU, conv5x5-50, dropout, pool, ReLU: 800 features at 28x28, no batch norm.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        width: Scale = 1.0,
        batch_norm: bool = False,
        dropout: Share = 0.5,
    ) -> None:
        first, second = _scaled(20, width), _scaled(50, width)
        stages = {
            "conv1": _block(_channels(input_shape), first, batch_norm),
            "conv2": _block(first, second, batch_norm, dropout),
        }
        super().__init__(input_shape, stages, "lenet")


class DTN(ConvStages):
    """The net for SVHN of the digit experiments (SHOT; from DTN, Zhang et al. 2015).

    Three convolutions 5x5 with stride 2 and 64, 128, 256 channels, batch norm and dropout of .1,
    .3, .5 times `dropout`: 4096 features at 32x32.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        width: Scale = 1.0,
        batch_norm: bool = True,
        dropout: Annotated[float, Range(0, 2)] = 1.0,  # 2 x .5 is all
    ) -> None:
        channels = [_channels(input_shape), *(_scaled(n, width) for n in (64, 128, 256))]
        if min(input_shape[1:]) < 8:  # the convolutions would see little but their padding
            raise ConfigError(
                f"images of {input_shape[1]}x{input_shape[2]} do not fit backbone 'dtn', 8x8 do: "
                "set data.size=8"
            )
        stages: dict[str, nn.Module] = {
            f"conv{i + 1}": _strided(channels[i], channels[i + 1], batch_norm, rate * dropout)
            for i, rate in enumerate((0.1, 0.3, 0.5))
        }
        super().__init__(input_shape, stages, "dtn")


class Conv4(ConvStages):
    """Conv-4 of few-shot learning (Vinyals et al. 2016; Snell et al. 2017): 4 x [conv3x3-64, batch
    norm, pool, ReLU], 64 features at 28x28.

    channels: of the four blocks. width: multiplies them. pools: how many of the blocks pool, from
    the first on.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        channels: Sequence[Width] = (64, 64, 64, 64),
        width: Scale = 1.0,
        pools: Annotated[int, Range(0, 4)] = 4,
    ) -> None:
        if len(channels) != 4:
            raise ConfigError(
                f"backbone 'conv4' has four blocks, not {len(channels)}: set "
                "backbone.channels=[32,64,64,64], for one"
            )
        units = [_channels(input_shape), *(_scaled(count, width) for count in channels)]
        if min(input_shape[1:]) < 2**pools:
            raise ConfigError(
                f"images of {input_shape[1]}x{input_shape[2]} are pooled away by backbone "
                f"'conv4': set backbone.pools={int(min(input_shape[1:])).bit_length() - 1}"
            )
        stages: dict[str, nn.Module] = {}
        for i, (before, after) in enumerate(pairwise(units)):
            layers: OrderedDict[str, nn.Module] = OrderedDict(
                conv=nn.Conv2d(before, after, 3, padding=1), norm=nn.BatchNorm2d(after)
            )
            if i < pools:
                layers["pool"] = nn.MaxPool2d(2)
            layers["relu"] = nn.ReLU(inplace=True)
            stages[f"conv{i + 1}"] = nn.Sequential(layers)
        super().__init__(input_shape, stages, "conv4")


class MLP(nn.Module):
    """Fully connected layers for ready features, x: (B, D) (images are flattened) -> (B,
    hidden[-1]).

    `hidden=[]` passes the features through: the heads then stand directly on them.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        hidden: Sequence[Width] = (256,),
        batch_norm: bool = True,
        dropout: Share = 0.25,
    ) -> None:
        super().__init__()
        self.stage_names: list[str] = []
        width = prod(input_shape)
        for i, units in enumerate(hidden, start=1):
            self.add_module(f"fc{i}", dense(width, units, batch_norm, dropout))
            self.stage_names.append(f"fc{i}")
            width = units
        describe(self, tuple(input_shape), "mlp")

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for stage in self.stage_names:
            x = self.get_submodule(stage)(x)
        return x


def dense(in_dim: int, units: int, batch_norm: bool, dropout: float) -> nn.Sequential:
    """Linear, batch norm if asked for, ReLU, dropout if above 0; the children carry these names."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(linear=nn.Linear(in_dim, units))
    if batch_norm:
        layers["norm"] = nn.BatchNorm1d(units)
    layers["relu"] = nn.ReLU(inplace=True)
    if dropout > 0:
        layers["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(layers)


def _block(in_channels: int, channels: int, batch_norm: bool, dropout: float = 0.0) -> nn.Module:
    """conv5x5, batch norm, dropout, pool 2x2, ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=nn.Conv2d(in_channels, channels, 5))
    if batch_norm:
        layers["norm"] = nn.BatchNorm2d(channels)
    if dropout > 0:
        layers["dropout"] = nn.Dropout2d(dropout)
    layers["pool"] = nn.MaxPool2d(2)
    layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def _strided(in_channels: int, channels: int, batch_norm: bool, dropout: float) -> nn.Module:
    """conv5x5 with stride 2, batch norm, dropout, ReLU."""
    conv = nn.Conv2d(in_channels, channels, 5, stride=2, padding=2)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if batch_norm:
        layers["norm"] = nn.BatchNorm2d(channels)
    if dropout > 0:
        layers["dropout"] = nn.Dropout2d(dropout)
    layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def _channels(input_shape: Sequence[int]) -> int:
    if len(input_shape) != 3:
        raise ConfigError(
            f"a convolutional backbone takes images, but the data are vectors of "
            f"{prod(input_shape)} numbers: use backbone=mlp"
        )
    return int(input_shape[0])


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))
