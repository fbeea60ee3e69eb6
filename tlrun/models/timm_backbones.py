"""Any timm model as a backbone (extra `timm`): `backbone=timm backbone.name=convnext_atto`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tlrun.errors import ConfigError, DataError, did_you_mean
from tlrun.models.shapes import describe
from tlrun.models.torchvision_backbones import no_weights


def timm_backbone(name: str, input_shape: Sequence[int], weights: str | None = None) -> nn.Module:
    """The timm model `name` without its classifier: x (B, C, H, W) -> (B, feature_dim).

    weights: None, "DEFAULT" or a tag of timm ("in1k"). Raises ConfigError if timm is missing or does
    not know the name, DataError if weights can neither be found nor downloaded.
    """
    try:
        import timm
    except ImportError as error:
        raise ConfigError("backbone=timm needs timm: install it with pip install 'tlrun[timm]'") from error
    if len(input_shape) != 3:
        raise ConfigError(f"backbone '{name}' takes images, but the data are vectors: use backbone=mlp")
    if name not in timm.list_models():
        raise ConfigError(f"unknown timm model '{name}': {did_you_mean(name, timm.list_models())}")
    tagged = name if weights in (None, "DEFAULT") else f"{name}.{weights}"
    # timm makes positions and windows for a given image size; models without any refuse the argument.
    options = {"num_classes": 0, "in_chans": input_shape[0]}
    try:
        try:
            model = timm.create_model(
                tagged, pretrained=weights is not None, img_size=tuple(input_shape[1:]), **options
            )
        except TypeError:
            model = timm.create_model(tagged, pretrained=weights is not None, **options)
    except (OSError, RuntimeError) as error:
        raise DataError(no_weights(f"weights '{weights}' of {name}", error)) from error
    return describe(model, tuple(input_shape), name)
