"""`Options`: what a run asks of its data beside the group `data`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tlrun.errors import ConfigError

Labels = Literal["auto", "none", "all"] | int


@dataclass(frozen=True)
class Options:
    """What every problem builder of `data/problems` is given.

    seed: of all cuts and draws. target_labels: none | all | k, or auto: all where the target has
    any. With none, training and validation sets of the target are objects without labels before
    anyone sees them. With k, target-train holds just k examples per class, with labels.
    source_labels: False if no label of the source will be read, so that it needs none.
    target_val_labels: the same for target-val; auto =
    all with target_labels=all, else none. All labels that are held are counted. target_images:
    all | none (with none the target has its test set only). shared_classes: False lets source and
    target have different classes, each a task of its own. allow_download: whether data sets may
    fetch files. classes, feature_names: those that a trained net knows, in its order, in place of
    the source's; what is only tested may lack some classes.
    trains: False where the sets are only made and counted (`tlrun prepare`).
    """

    seed: int = 0
    target_labels: Labels = "none"
    target_val_labels: Labels = "auto"
    source_labels: bool = True
    target_images: str = "all"
    shared_classes: bool = True
    allow_download: bool = True
    classes: Sequence[str] | None = None
    feature_names: Sequence[str] | None = None
    trains: bool = True

    @property
    def withholds_target(self) -> bool:
        """Whether the target has its test set only. Raises ConfigError for an unknown choice."""
        if self.target_images not in ("all", "none"):
            raise ConfigError(f"target_images={self.target_images}: choose all or none.")
        return self.target_images == "none"

    def settled(self, target_has_labels: bool) -> Options:
        """With target_labels=auto as what it means for this target."""
        if self.target_labels != "auto":
            return self
        return replace(self, target_labels="all" if target_has_labels else "none")
