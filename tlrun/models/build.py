"""From the config to a net: the backbone alone, and the net around it.

`backbone` in the config is what a backbone's callable takes, and three keys of every backbone:

    _target_: tlrun.models.backbones.DannCNN     # any callable that returns an nn.Module
    name: dann_cnn                               # stands in summaries
    weights: null                                # published weights, where the callable takes them,
                                                 # or a file of them, for any backbone
    head: {hidden: [100, 100]}                   # arguments of the label head (heads.Classifier)

A callable of your own may take `input_shape`; `feature_dim` and `stage_names` are found if unset.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tlrun.config.build import build, check_values, locate, plain
from tlrun.config.weight_files import is_weight_file
from tlrun.errors import ConfigError
from tlrun.models.heads import Classifier
from tlrun.models.net import Net
from tlrun.models.published import Adapt, published_classifier
from tlrun.models.shapes import describe, feature_dim
from tlrun.models.weight_file import classifier_in, load_weight_file


def build_backbone(cfg: Mapping[str, Any], input_shape: Sequence[int]) -> nn.Module:
    """A backbone with `feature_dim`, `stage_names` and `input_shape`, for inputs (B, *input_shape).

    Raises ConfigError if it cannot take such inputs, or has no pretrained weights to offer.
    """
    shape = tuple(int(n) for n in input_shape)
    arguments = {key: value for key, value in plain(cfg).items() if key != "head"}
    name = str(arguments.get("name") or arguments.get("_target_"))
    accepts = _arguments_of(arguments.get("_target_"))
    file = arguments.get("weights")
    if is_weight_file(file):
        arguments["weights"] = None
    else:
        file = None
    if "weights" not in accepts and arguments.pop("weights", None) is not None:
        raise ConfigError(
            f"backbone '{name}' has no pretrained weights: set backbone.weights=null (and not "
            "init=pretrained)"
        )
    if "name" not in accepts:
        arguments.pop("name", None)
    more = {"input_shape": shape} if "input_shape" in accepts else {}
    module = build(arguments, "backbone", **more)
    if not isinstance(module, nn.Module):
        raise ConfigError(f"backbone '{name}' gave {type(module).__name__}, not an nn.Module")
    if getattr(module, "feature_dim", None) is None:
        describe(module, shape, name)
    found = feature_dim(module, shape, name)
    if module.feature_dim != found:
        raise ConfigError(
            f"backbone '{name}' says feature_dim={module.feature_dim} but returns {found}"
        )
    if file is not None:
        load_weight_file(module, file, name, _adapt_of(arguments))
    return module


def build_classifier(cfg: Mapping[str, Any], weights: Any, module: nn.Module) -> nn.Linear | None:
    """The linear layer that the weights of a backbone came with, in eval mode: features (B, D) ->
    logits (B, Z) of the classes that they were trained on.

    cfg: of the backbone `module`; weights: in place of its own. None where there are no weights, or
    they come without such a layer. No random number is drawn.
    """
    features: Any = module.feature_dim
    found: nn.Module | None
    with torch.random.fork_rng(devices=[]):
        if is_weight_file(weights):
            found = classifier_in(module, weights, features, _adapt_of(cfg))
        else:
            found = published_classifier(cfg, weights)
    if isinstance(found, nn.Linear) and found.in_features == features:
        return found.eval()
    return None


def build_net(cfg: Mapping[str, Any], input_shape: Sequence[int]) -> Net:
    """cfg: the whole config. A net of the backbone alone; the method adds its heads."""
    backbone = plain(cfg["backbone"])
    check_values(Classifier, backbone.get("head") or {}, "backbone.head")
    return Net(build_backbone(backbone, input_shape), input_shape, head=backbone.get("head"))


def _adapt_of(cfg: Mapping[str, Any]) -> Adapt | None:
    """What gives tensors of published files the names of this backbone, where they differ."""
    return getattr(locate(str(cfg["_target_"])), "adapt", None)


def _arguments_of(target: Any) -> set[str]:
    """Argument names of the callable at the dotted path; none where Python cannot tell."""
    try:
        return set(inspect.signature(locate(str(target))).parameters)
    except ValueError:
        return set()
