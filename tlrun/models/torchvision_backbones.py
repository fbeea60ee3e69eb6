"""Any torchvision classifier as a backbone: `backbone=resnet18 backbone.weights=DEFAULT`.

The last linear (or 1x1 convolution) layer that a forward pass meets is the classifier and becomes
an Identity; what reaches it are the features. All other keys of the state dict stay torchvision's.
torchvision is imported when a backbone is built, never with tlrun.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn

from tlrun.errors import ConfigError, DataError, did_you_mean
from tlrun.models.hub import cached_file, why_unreachable
from tlrun.models.published import State, TrainedOn, published
from tlrun.models.shapes import call_order, describe

USUAL_SIZE = 224  # every classifier takes it: shows the order of the layers, whatever the data


def images_of(name: str, weights: str) -> TrainedOn:
    """What torchvision's own transforms of the weights say. Raises ConfigError."""
    transforms = _entry(name, weights).transforms()
    size, mean, std = int(transforms.crop_size[0]), tuple(transforms.mean), tuple(transforms.std)
    return TrainedOn(size, mean, std, transforms.interpolation.value)


def adapt(state: State, module: nn.Module) -> State:
    """The names of torchvision's older files (DenseNet, vision transformers) as it has them now."""
    old = {
        r"(denselayer\d+\.(?:norm|conv))\.([12])\.": r"\1\2.",
        r"\.mlp\.linear_1\.": ".mlp.0.",
        r"\.mlp\.linear_2\.": ".mlp.3.",
    }
    renamed = {}
    for key, value in state.items():
        for pattern, new in old.items():
            key = re.sub(pattern, new, key)
        renamed[key] = value
    return renamed


def classifier(name: str, weights: str) -> nn.Module | None:
    """The linear layer that `remove_classifier` takes away; None where it is a convolution."""
    model = _models_with(name).get_model(name, weights=_entry(name, weights))
    side = USUAL_SIZE
    layer = model.get_submodule(last_layer(model, (3, side, side)))
    return layer if isinstance(layer, nn.Linear) else None


@published(images_of, adapt, classifier)
def torchvision_backbone(
    name: str, input_shape: Sequence[int], weights: str | None = None
) -> nn.Module:
    """The torchvision model `name` without its classifier: x (B, 3, H, W) -> (B, feature_dim).

    weights: None, "DEFAULT" or a name as in torchvision ("IMAGENET1K_V1"). Raises ConfigError for
    an unknown name or unsuitable images, DataError if weights can neither be found nor downloaded.
    """
    models = _models_with(name)
    if weights is not None:
        _check_at_hand(_entry(name, weights), name)
    shape = tuple(input_shape)
    options = _options(name, shape, weights)
    try:
        model = models.get_model(name, weights=weights, **options)
    except OSError as error:  # URLError, no space, no permission
        raise _not_at_hand(_entry(name, weights or ""), name, str(error)) from error
    side = options.get("image_size", USUAL_SIZE)
    remove_classifier(model, (3, side, side))
    described = describe(model, shape, name)
    return described.to(memory_format=torch.channels_last)  # ResNets: 15 % on a CPU


def _models_with(name: str) -> Any:
    """torchvision.models, which has the classifier `name`. Raises ConfigError if not."""
    models = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        raise ConfigError(f"unknown torchvision model '{name}': {did_you_mean(name, known)}")
    return models


def _entry(name: str, weights: str) -> Any:
    """The member of torchvision's enumeration. Raises ConfigError for an unknown one."""
    choices = _models_with(name).get_model_weights(name)
    if weights not in choices.__members__:
        near = did_you_mean(weights, choices.__members__)
        raise ConfigError(f"unknown weights '{weights}' of {name}: {near}")
    return choices[weights]


def _check_at_hand(entry: Any, name: str) -> None:
    """DataError, at once, if the weights lie not in torch's cache and their host is silent."""
    if not cached_file(entry.url).is_file() and (why := why_unreachable(entry.url)):
        raise _not_at_hand(entry, name, why)


def _not_at_hand(entry: Any, name: str, why: str) -> DataError:
    file = cached_file(entry.url)
    return DataError(
        f"the weights '{entry.name}' of {name} ({entry.url}) cannot be downloaded ({why}): put the "
        f"file {file.name} into {file.parent}, or give it as backbone.weights=FILE, or train from "
        "scratch with backbone.weights=null"
    )


def remove_classifier(model: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Replace the last linear or convolutional layer of a forward pass by an Identity."""
    parent, _, child = last_layer(model, input_shape).rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())


def last_layer(model: nn.Module, input_shape: tuple[int, ...]) -> str:
    """Name of the last linear or convolutional layer of a forward pass."""
    layers = dict(model.named_modules())
    called = call_order(model, input_shape)
    return [name for name in called if isinstance(layers[name], nn.Linear | nn.Conv2d)][-1]


def import_torchvision() -> ModuleType:
    """torchvision, or a ConfigError that says what to install."""
    try:
        import torchvision
    except ImportError as error:
        raise ConfigError(
            f"{error}: install torchvision with pip install 'torchvision>=0.29'"
        ) from error
    except RuntimeError as error:
        # A wheel built for another torch: "operator torchvision::nms does not exist".
        raise ConfigError(
            f"the installed torchvision does not fit the installed torch ({error}): install both "
            "from one index, pip install --upgrade 'torch>=2.14' 'torchvision>=0.29'"
        ) from error
    return torchvision


def _options(name: str, shape: tuple[int, ...], weights: str | None) -> dict[str, Any]:
    """What some builders need so that the net returns one tensor and suits the data's size."""
    if name in ("googlenet", "inception_v3"):  # no auxiliary classifiers
        # transform_input as with weights: a net that is loaded later without them must be the same.
        options = {"aux_logits": False, "transform_input": True}
        return options | ({"init_weights": True} if weights is None else {})
    # A vision transformer has one position for each patch: made for the data's size, if it may.
    patch = re.fullmatch(r"vit_\w+_(\d+)", name)
    if patch and weights is None and len(shape) == 3:
        side, size = int(patch[1]), shape[1]
        if size % side or shape[1] != shape[2]:
            raise ConfigError(
                f"{name} cuts square images into patches of {side} pixels and the data are "
                f"{shape[1]}x{shape[2]}: set data.size={side * -(-size // side)}"
            )
        return {"image_size": size}
    return {}
