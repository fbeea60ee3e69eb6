"""What classes a pair must have before anything is trained: refused here in one sentence."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Splits
from tlrun.errors import ConfigError, DataError

log = logging.getLogger("tlrun")


def class_names(value: Any, key: str) -> list[str] | None:
    """`data.source_classes`: None for all classes, a name alone or a list of names. ConfigError."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        raise ConfigError(f"{key}={dict(value)}: give a list of class names, {key}=[cat,dog]")
    alone = isinstance(value, str) or not isinstance(value, Sequence)
    names = [str(name) for name in ([value] if alone else value)]
    if not names:
        raise ConfigError(f"{key}=[] keeps no class: name some, or null for all")
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{key} names the class '{doubled}' twice: name it once")
    return names


def check_source(source: Splits, unknown: str | None = None) -> None:
    """At least two classes, each with a training image, none of them called `unknown` where that
    is the class of what the source does not know. Raises DataError."""
    train = source.train
    classes = train.classes or ()
    if len(classes) < 2:
        raise DataError(
            f"the source '{train.name}' has one class only ('{', '.join(classes)}'), so every "
            f"prediction would be right: give at least two{folders(train)}."
        )
    if unknown in classes:
        raise DataError(
            f"the source '{train.name}' has a class '{unknown}', which with data.label_spaces=open "
            "is the name of all that the source does not know: rename that class."
        )
    check_trained(train)
    _tell_untested(source)


def check_alone(target: Splits) -> None:
    """A target without a source: at least two classes, each with a training image. DataError."""
    train = target.train
    if len(train.classes or ()) < 2:
        raise DataError(
            f"the target '{train.name}' has one class only ('{', '.join(train.classes or ())}'), "
            f"so every prediction would be right: give at least two{folders(train)}."
        )
    check_trained(train)


def check_trained(train: ImageSet, classes: Sequence[str] | None = None) -> None:
    """DataError if a class (of `classes`; None = all of the set's) has no training image, for
    example after the cut of test images."""
    if untrained := [n for n in lacking(train) if classes is None or n in classes]:
        alternative = (
            "splits of your own (train/, test/)" if folders(train) else "a test file of its own"
        )
        raise DataError(
            f"{train.name}: no {noun(train)} of the class '{untrained[0]}' is left for training "
            f"after the cut of test and validation {noun(train)}s; add some, give "
            f"{alternative} or remove the class."
        )


def noun(examples: ImageSet) -> str:
    """What one of its examples is, for messages."""
    return "row" if len(examples.shape) == 1 else "image"


def folders(examples: ImageSet) -> str:
    """A hint where classes are folders."""
    return "" if len(examples.shape) == 1 else " (a folder per class)"


def lacking(examples: ImageSet | None) -> list[str]:
    """Classes of a labelled set that have no example in it."""
    if examples is None or examples.labels is None or examples.classes is None:
        return []
    counts = torch.bincount(examples.labels, minlength=len(examples.classes)).tolist()
    return [name for name, count in zip(examples.classes, counts, strict=True) if not count]


def check_target(target: Splits, has_own_classes: bool) -> None:
    """Training images, and test images of each class. has_own_classes: other ones than the source,
    so that there must be two. Raises DataError."""
    for split, examples in (("training", target.train), ("test", target.test)):
        if examples is not None and not len(examples):
            raise DataError(
                f"the target '{examples.name}' has no {split} {noun(examples)} left: add some, or "
                "keep other classes (data.target_classes)."
            )
    classes = target.test.classes if target.test is not None else None
    if has_own_classes and classes is not None and len(classes) < 2:
        raise DataError(
            f"the target '{target.train.name}' has one class only ('{classes[0]}'), so every "
            "prediction would be right: give at least two."
        )
    _tell_untested(target)


def _tell_untested(splits: Splits) -> None:
    if untested := lacking(splits.test):
        log.warning(
            "%s: no test %s of the class '%s': its test figures say nothing of it",
            splits.train.name,
            noun(splits.train),
            "', '".join(untested),
        )
