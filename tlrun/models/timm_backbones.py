"""Any timm model as a backbone (extra `timm`): `backbone=timm backbone.name=convnext_atto`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tlrun.errors import ConfigError, DataError, did_you_mean
from tlrun.models.hub import cached_file, why_unreachable
from tlrun.models.published import State, TrainedOn, published
from tlrun.models.shapes import describe

log = logging.getLogger(__name__)


def images_of(name: str, weights: str) -> TrainedOn:
    """What timm's own configuration of the weights says. Raises ConfigError."""
    config = _import_timm().models.get_pretrained_cfg(_full_name(name, weights))
    size, mean, std = int(config.input_size[-1]), tuple(config.mean), tuple(config.std)
    return TrainedOn(size, mean, std, config.interpolation)


def adapt(state: State, module: nn.Module) -> State:
    """By timm's own filter of this family: the authors' names, positions of another size."""
    own_filter = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if own_filter is None:
        return state
    try:
        return own_filter(state, module)
    except Exception as error:  # made for files of this net; others are told apart by their names
        log.debug("timm's filter of %s: %r", type(module).__name__, error)
        return state


def classifier(name: str, weights: str) -> nn.Module | None:
    """timm's own; None where it is not one linear layer."""
    timm = _import_timm()
    full_name = _full_name(name, weights)
    config = timm.models.get_pretrained_cfg(full_name)
    options = _at_hand(config, f"'{weights}' of {name}")
    layer = timm.create_model(full_name, pretrained=True, **options).get_classifier()
    return layer if isinstance(layer, nn.Linear) else None


@published(images_of, adapt, classifier)
def timm_backbone(name: str, input_shape: Sequence[int], weights: str | None = None) -> nn.Module:
    """The timm model `name` without its classifier: x (B, C, H, W) -> (B, feature_dim).

    weights: None, "DEFAULT" or a tag of timm ("in1k"). Raises ConfigError if timm is missing or
    does not know the name or the tag, DataError if weights can neither be found nor downloaded.
    """
    timm = _import_timm()
    if len(input_shape) != 3:
        raise ConfigError(f"backbone '{name}' takes images, the data are vectors: use backbone=mlp")
    full_name = _full_name(name, weights)
    options = {"num_classes": 0, "in_chans": input_shape[0], "pretrained": weights is not None}
    config = None if weights is None else timm.models.get_pretrained_cfg(full_name)
    if config is not None:
        options |= _at_hand(config, f"'{weights}' of {name}")
    try:
        model = _create(timm, full_name, tuple(input_shape[1:]), options)
    except (OSError, RuntimeError) as error:
        if config is None:
            raise
        raise _not_at_hand(config, f"'{weights}' of {name}", str(error)) from error
    return describe(model, tuple(input_shape), name)


def _import_timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ConfigError("backbone=timm needs timm: install it with pip install timm") from error
    return timm


def _full_name(name: str, weights: str | None) -> str:
    """timm's name of a net with its weights. Raises ConfigError for an unknown name or tag."""
    timm = _import_timm()
    if name not in timm.list_models():
        raise ConfigError(f"unknown timm model '{name}': {did_you_mean(name, timm.list_models())}")
    tags = [tagged.partition(".")[2] for tagged in timm.list_pretrained(f"{name}.*")]
    if weights is not None and weights not in ["DEFAULT", *tags]:
        known = did_you_mean(weights, ["DEFAULT", *tags])
        raise ConfigError(f"unknown weights '{weights}' of {name}: {known}")
    return name if weights in (None, "DEFAULT") else f"{name}.{weights}"


def _at_hand(config: Any, whose: str) -> dict[str, Any]:
    """What makes timm read a file of the cache without asking the hub; {} to let it download.

    timm asks first and tries for a minute. DataError, at once, where the host is silent.
    """
    import huggingface_hub

    if config.hf_hub_id is None:
        url = str(config.url)
        why = None if cached_file(url).is_file() else why_unreachable(url)
    else:
        for name in _names(config):
            found = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, name)
            if isinstance(found, str) and not config.custom_load:
                return {"pretrained_cfg_overlay": {"file": found}}
            if isinstance(found, str):
                return {}
        offline = huggingface_hub.constants.HF_HUB_OFFLINE
        why = "HF_HUB_OFFLINE is set" if offline else why_unreachable(_url(config))
    if why:
        raise _not_at_hand(config, whose, why)
    return {}


def _names(config: Any) -> list[str]:
    """The files of a repository that hold the weights, as timm looks for them."""
    own = config.hf_hub_filename
    return [own] if own else ["model.safetensors", "pytorch_model.bin"]


def _url(config: Any) -> str:
    if config.hf_hub_id is None:
        return str(config.url)
    import huggingface_hub

    return str(huggingface_hub.hf_hub_url(config.hf_hub_id, _names(config)[0]))


def _not_at_hand(config: Any, whose: str, why: str) -> DataError:
    import huggingface_hub

    at_hub = config.hf_hub_id is not None
    folder = huggingface_hub.constants.HF_HUB_CACHE if at_hub else torch.hub.get_dir()
    return DataError(
        f"the weights {whose} are not in {folder} and cannot be downloaded ({why}): fetch "
        f"{_url(config)} elsewhere and give it as backbone.weights=FILE (timm's checkpoint_path), "
        "or train from scratch with backbone.weights=null"
    )


def _create(timm: Any, name: str, size: tuple[int, ...], options: dict[str, Any]) -> nn.Module:
    """Positions and windows are made for the data's size; nets without any refuse `img_size`."""
    try:
        return timm.create_model(name, img_size=size, **options)
    except TypeError:
        return timm.create_model(name, **options)
