"""The image encoder of a CLIP model as a backbone (extra `open_clip`), with weights from a file.

    tlrun backbone=open_clip backbone.name=ViT-B-32 backbone.weights=FILE

The features are those behind the projection, in the space that images and texts share, so text
vectors of the same model can stand beside them (docs/methods/vision_language.md). The file holds
the whole model's state dict, as OpenCLIP publishes it: the image side (`visual.`) is taken. Nothing
is downloaded. Radford et al., ICML 2021; Cherti et al., "Reproducible scaling laws for contrastive
language-image learning", CVPR 2023 (OpenCLIP).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn

from tlrun.errors import ConfigError, did_you_mean
from tlrun.models.published import State, TrainedOn, published
from tlrun.models.shapes import describe

IMAGE_SIDE = "visual."


def images_of(name: str, weights: str) -> TrainedOn:
    """CLIP's mean and standard deviation; the side of the model's own configuration."""
    open_clip = _import_open_clip()
    size = _config(open_clip, name)["vision_cfg"]["image_size"]
    side = int(max(size) if isinstance(size, list | tuple) else size)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return TrainedOn(side, tuple(mean), tuple(std), "bicubic")


def adapt(state: State, module: nn.Module) -> State:
    """The tensors of the image encoder, without the text encoder's."""
    ours = {k.partition(IMAGE_SIDE)[2]: v for k, v in state.items() if k.startswith(IMAGE_SIDE)}
    return ours or state


@published(images_of, adapt)
def open_clip_backbone(
    name: str, input_shape: Sequence[int], weights: str | None = None
) -> nn.Module:
    """x: (B, 3, H, W) -> (B, D) of the shared space. weights: null, or a FILE that is read later.

    Raises ConfigError if open_clip is missing, does not know the name, or another kind of weights
    is asked for.
    """
    if weights is not None:
        raise ConfigError(
            f"backbone.weights={weights}: backbone=open_clip downloads nothing; give the FILE of "
            "the model's weights, or null"
        )
    if len(input_shape) != 3:
        raise ConfigError(f"backbone '{name}' takes images, the data are vectors: use backbone=mlp")
    open_clip = _import_open_clip()
    _config(open_clip, name)
    if input_shape[0] != 3:
        raise ConfigError(f"backbone '{name}' takes 3 channels: set data.channels=3")
    size = tuple(int(side) for side in input_shape[1:])
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns of random weights, which the file replaces
    try:
        whole = open_clip.create_model(name, pretrained=None, force_image_size=size)
    finally:
        logging.disable(before)
    module = describe(whole.visual, tuple(input_shape), name)
    tops: Any = module.stage_names
    stages = [stage for top in tops for stage in _blocks(module, top)]
    module.stage_names = stages  # type: ignore[assignment]
    return module


def _blocks(module: nn.Module, stage: str) -> list[str]:
    """The blocks of a transformer, each a stage of its own; else the stage itself."""
    blocks = getattr(module.get_submodule(stage), "resblocks", None)
    return [stage] if blocks is None else [f"{stage}.resblocks.{k}" for k in range(len(blocks))]


def _config(open_clip: Any, name: str) -> dict[str, Any]:
    """open_clip's configuration of a model. ConfigError for a name that it does not know."""
    names = open_clip.list_models()
    if name not in names:
        raise ConfigError(f"unknown open_clip model '{name}': {did_you_mean(name, names)}")
    config: dict[str, Any] = open_clip.get_model_config(name)
    return config


def _import_open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise ConfigError(
            "backbone=open_clip needs open_clip: install it with pip install open_clip_torch"
        ) from error
    return open_clip
