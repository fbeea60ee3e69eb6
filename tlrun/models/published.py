"""What a backbone's published weights expect of the images: a pure question, nothing is loaded.

A callable that offers weights says it by an attribute:

    @published(images_of)                    # images_of(name, weights) -> TrainedOn
    def my_backbone(name, input_shape, weights=None): ...

so the same holds for a backbone of your own. A third argument gives the layer that the backbone
leaves out, from features to logits of the classes that the weights were trained on. Who resolves
`data.normalize=auto` is `experiment`. A file of one's own (`backbone.weights=FILE`) is taken for
one of the net's published weights, if no `config.json` of timm lies beside it and says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from tlrun.config.build import locate
from tlrun.config.weight_files import is_weight_file

State = dict[str, Tensor]
Adapt = Callable[[State, nn.Module], State]  # published names of tensors -> those of the net
ClassifierOf = Callable[[str, str], nn.Module | None]  # (name, weights)

Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True)
class TrainedOn:
    """The images that weights were trained on: their side in pixels, mean and standard
    deviation of each channel, of values in [0, 1], and by which of INTERPOLATIONS they were brought
    to that side (None: nobody says it, or it is another)."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str | None = None


def published(
    images_of: Callable[[str, str], TrainedOn | None],
    adapt: Adapt | None = None,
    classifier: ClassifierOf | None = None,
) -> Callable[[Factory], Factory]:
    """Mark a backbone's callable with what its weights expect, by (name, weights).

    adapt: from the names in published files to those of the net, where they differ. classifier:
    the published layer from features (B, D) to logits (B, Z) of the weights' own classes.
    """

    def mark(factory: Factory) -> Factory:
        factory.images_of = images_of  # type: ignore[attr-defined]
        factory.adapt = adapt  # type: ignore[attr-defined]
        factory.classifier = classifier  # type: ignore[attr-defined]
        return factory

    return mark


def trained_on(backbone: Mapping[str, Any], weights: str) -> TrainedOn | None:
    """What `weights` of the config group `backbone` were trained on; None where nobody says it.

    Raises ConfigError for a name or weights that do not exist.
    """
    images_of = getattr(locate(str(backbone["_target_"])), "images_of", None)
    if is_weight_file(weights):
        if (beside := _said_beside(Path(weights))) is not None:
            return beside
        weights = "DEFAULT"
    return images_of(str(backbone.get("name")), weights) if images_of else None


def published_classifier(backbone: Mapping[str, Any], weights: str | None) -> nn.Module | None:
    """The classifier that published weights came with, in eval mode; None where nobody has one, and
    for a file of one's own. Raises ConfigError or DataError as the backbone itself."""
    classifier = getattr(locate(str(backbone["_target_"])), "classifier", None)
    if weights is None or is_weight_file(weights) or classifier is None:
        return None
    module: nn.Module | None = classifier(str(backbone.get("name")), weights)
    return None if module is None else module.eval()


def _said_beside(file: Path) -> TrainedOn | None:
    """What the `config.json` says that timm saves beside its weights; None without one."""
    try:
        config = json.loads(file.with_name("config.json").read_text())["pretrained_cfg"]
        size, mean, std = int(config["input_size"][-1]), tuple(config["mean"]), tuple(config["std"])
        return TrainedOn(size, mean, std, config.get("interpolation"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
