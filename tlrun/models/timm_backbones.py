"""Any timm model as a backbone (extra `timm`): `backbone=timm backbone.name=convnext_atto`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from tlrun.errors import ConfigError, DataError, did_you_mean
from tlrun.models.published import TrainedOn, published
from tlrun.models.shapes import describe


def images_of(name: str, weights: str) -> TrainedOn:
    """What timm's own configuration of the weights says. Raises ConfigError."""
    config = _import_timm().models.get_pretrained_cfg(_full_name(name, weights))
    return TrainedOn(int(config.input_size[-1]), tuple(config.mean), tuple(config.std))


@published(images_of)
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
    try:
        model = _create(timm, full_name, tuple(input_shape[1:]), options)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"the weights '{weights}' of {name} are not in the Hugging Face cache and cannot be "
            f"downloaded ({error}): connect once, or train from scratch with backbone.weights=null"
        ) from error
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


def _create(timm: Any, name: str, size: tuple[int, ...], options: dict[str, Any]) -> nn.Module:
    """Positions and windows are made for the data's size; nets without any refuse `img_size`."""
    try:
        return timm.create_model(name, img_size=size, **options)
    except TypeError:
        return timm.create_model(name, **options)
