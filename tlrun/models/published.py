"""What a backbone's published weights expect of the images: a pure question, nothing is loaded.

A callable that offers weights says it by an attribute:

    @published(images_of)                    # images_of(name, weights) -> TrainedOn
    def my_backbone(name, input_shape, weights=None): ...

so the same holds for a backbone of your own. Who resolves `data.normalize=auto` is `experiment`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tlrun.config.build import locate

Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True)
class TrainedOn:
    """The images that weights were trained on: their side in pixels, and mean and standard
    deviation of each channel, of values in [0, 1]."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def published(images_of: Callable[[str, str], TrainedOn | None]) -> Callable[[Factory], Factory]:
    """Mark a backbone's callable with what its weights expect, by (name, weights)."""

    def mark(factory: Factory) -> Factory:
        factory.images_of = images_of  # type: ignore[attr-defined]
        return factory

    return mark


def trained_on(backbone: Mapping[str, Any], weights: str) -> TrainedOn | None:
    """What `weights` of the config group `backbone` were trained on; None where nobody says it.

    Raises ConfigError for a name or weights that do not exist.
    """
    images_of = getattr(locate(str(backbone["_target_"])), "images_of", None)
    return images_of(str(backbone.get("name")), weights) if images_of else None
