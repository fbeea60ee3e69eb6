"""What a backbone says about itself: feature size, stages, input; found by a trial forward pass.

A net that cannot take the data's images is refused at once, with the size that it can. The pass is
one of numbers where net and input are small. Larger ones pass torch's `meta` device, which costs no
arithmetic and no memory, but loads sympy and torch's decompositions: 1.5 s, a small net takes 3 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

import torch
from torch import Tensor, nn

from tlrun.errors import ConfigError

# Sizes to suggest when an input is too small: the usual ones of image sets and pretrained nets.
SIZES = (8, 12, 16, 20, 24, 28, 32, 48, 64, 75, 96, 128, 160, 192, 224, 256, 299, 384, 512)
# A net with fewer modules than this at one level is looked at one level deeper.
MIN_STAGES = 4
# Inputs and nets up to these sizes are tried with numbers: at most some tenths of a second.
SMALL_INPUT, SMALL_NET = 3 * 64 * 64, 20_000_000


def describe(module: nn.Module, input_shape: tuple[int, ...], name: str) -> nn.Module:
    """Give `module` what every backbone has: feature_dim, stage_names (if it names none) and
    input_shape.

    input_shape: (C, H, W) or (D,). Raises ConfigError if the module cannot take such inputs.
    """
    module.feature_dim = feature_dim(module, input_shape, name)  # type: ignore[assignment]
    module.input_shape = tuple(input_shape)  # type: ignore[assignment]
    if not getattr(module, "stage_names", None):
        module.stage_names = find_stages(module, input_shape)  # type: ignore[assignment]
    return module


def feature_dim(module: nn.Module, input_shape: tuple[int, ...], name: str) -> int:
    """Width D of the features (B, D) that `module` makes of inputs (B, *input_shape)."""
    try:
        features = trial_forward(module, input_shape)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(_why_not(module, input_shape, name)) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ConfigError(
            f"backbone '{name}' must return features of shape (batch, D), not {found}: "
            "flatten or pool them in its forward"
        )
    if features.shape[1] == 0:
        raise ConfigError(_why_not(module, input_shape, name))
    return int(features.shape[1])


def trial_forward(module: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """Output of `module` in eval mode for two inputs, of which only the shape counts.

    Draws no random number of the process, and leaves the module as it was.
    """
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            if prod(input_shape) <= SMALL_INPUT and _count(state.values()) <= SMALL_NET:
                return module(torch.zeros(2, *input_shape))
            on_meta = {key: value.detach().to("meta") for key, value in state.items()}
            x = torch.empty(2, *input_shape, device="meta")
            return torch.func.functional_call(module, on_meta, (x,))
    finally:
        for m, flag in training.items():
            m.training = flag


def _count(state: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in state)


def call_order(module: nn.Module, input_shape: tuple[int, ...]) -> list[str]:
    """Names of the submodules in the order in which a forward pass first calls them."""
    order: dict[str, None] = {}
    hooks = [
        m.register_forward_pre_hook(lambda *_, name=name: order.setdefault(name))
        for name, m in module.named_modules()
        if name
    ]
    try:
        trial_forward(module, input_shape)
    finally:
        for hook in hooks:
            hook.remove()
    return list(order)


def find_stages(module: nn.Module, input_shape: tuple[int, ...]) -> list[str]:
    """Names of the modules with parameters that the data flow through, first to last.

    The children of the net; a level with fewer than four of them is opened once more (VGG's and
    EfficientNet's `features`, ViT's `encoder.layers`). So resnet18 gives conv1, bn1, layer1 ...
    layer4; efficientnet features.0 ... features.8; vit conv_proj, encoder.layers.encoder_layer_0
    ...
    """
    level = _with_parameters("", module)
    while len(level) < MIN_STAGES:
        deeper = [
            inner
            for name in level
            for inner in (_with_parameters(name, module.get_submodule(name)) or [name])
        ]
        if deeper == level:
            break
        level = deeper
    level = [inner for name in level for inner in _opened(name, module.get_submodule(name))]
    order = call_order(module, input_shape)

    # A ModuleList is never called itself: it stands where its first called module stands.
    def first_call(stage: str) -> int:
        return min(
            (i for i, name in enumerate(order) if f"{name}.".startswith(f"{stage}.")),
            default=len(order),
        )

    return sorted(level, key=first_call)


def _with_parameters(prefix: str, module: nn.Module) -> list[str]:
    return [
        f"{prefix}.{name}" if prefix else name
        for name, child in module.named_children()
        if next(child.parameters(), None) is not None
    ]


def _opened(name: str, module: nn.Module) -> list[str]:
    """The children of a sequence of sequences (timm's `blocks`), else the module itself."""
    containers = (nn.Sequential, nn.ModuleList)
    nested = isinstance(module, containers) and all(isinstance(m, containers) for m in module)
    return (_with_parameters(name, module) if nested else None) or [name]


def _why_not(module: nn.Module, shape: tuple[int, ...], name: str) -> str:
    if len(shape) != 3:
        return (
            f"backbone '{name}' takes images, but the data are vectors of {prod(shape)} numbers: "
            "use backbone=mlp"
        )
    channels, height, width = shape
    larger = _first(
        lambda size: _fits(module, (channels, size, size)), _sizes_above(min(shape[1:]))
    )
    if larger:
        return (
            f"images of {height}x{width} do not fit backbone '{name}', {larger}x{larger} do: "
            f"set data.size={larger}, or take a backbone for small images (tlrun list backbones)"
        )
    if channels != 3 and _fits(module, (3, 224, 224)):
        return (
            f"backbone '{name}' takes 3 channels and the data have {channels}: set data.channels=3"
        )
    return (
        f"backbone '{name}' cannot take inputs of shape {tuple(shape)}, nor square images of "
        f"{SIZES[0]} to {SIZES[-1]} pixels: check its forward or choose another backbone"
    )


def _sizes_above(size: int) -> list[int]:
    return [s for s in SIZES if s > size] + [s for s in reversed(SIZES) if s <= size]


def _first(accepts: Callable[[int], bool], sizes: list[int]) -> int | None:
    return next((size for size in sizes if accepts(size)), None)


def _fits(module: nn.Module, shape: tuple[int, ...]) -> bool:
    try:
        return trial_forward(module, shape).numel() > 0
    except (RuntimeError, AssertionError, ValueError):
        return False
