"""Sets of one run belong together by the names of their classes and columns, never by positions.

What is trained on must agree; a set that is only tested may lack classes and is then judged on
those that it has. What does not match is refused by name, before anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tlrun.data.examples.feature_file import column_order, listed, only_in
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Splits, class_order
from tlrun.errors import DataError

Change = Callable[[ImageSet, Tensor, tuple[str, ...]], ImageSet]


def match_classes(
    splits: Splits,
    classes: Sequence[str],
    name: str,
    what: str = "source and target",
    lacking: bool = False,
    spaces: bool = False,
) -> Splits:
    """The splits with labels in the order of `classes`, those of the set `name`.

    what: the two, for the message. lacking: whether the training set may have fewer classes.
    spaces: whether `data.label_spaces` could help. Raises DataError that names the classes.
    """
    classes = tuple(classes)

    def match(examples: ImageSet, labels: Tensor, own: tuple[str, ...]) -> ImageSet:
        if own == classes:
            return examples
        advice = f"rename or remove {labels_of(examples)}"
        advice += ", or set data.label_spaces=partial (or open)" * spaces
        if examples is not splits.train:
            if extra := class_order(set(present(examples)) - set(classes)):
                raise DataError(
                    f"the test or validation set of {examples.name} has classes that {name} was "
                    f"not given to train on: {listed(extra)}; {advice}."
                )
            return renumbered(examples, classes)
        extra = class_order(set(own) - set(classes))
        missing = [] if lacking else class_order(set(classes) - set(own))
        if extra or missing:
            only = only_in({name: missing, examples.name: extra})
            raise DataError(f"{what} must have the same classes ({only}); {advice}.")
        return renumbered(examples, classes)

    return relabelled(splits, match)


def labels_of(examples: ImageSet) -> str:
    """Where the user finds the classes of a set."""
    return "labels" if len(examples.shape) == 1 else "class folders or labels"


def present(examples: ImageSet) -> list[str]:
    """The classes that a set has examples of."""
    if examples.labels is None or examples.classes is None:
        return []
    return [examples.classes[i] for i in examples.labels.unique().tolist()]


def renumbered(examples: ImageSet, classes: Sequence[str]) -> ImageSet:
    """A set with labels, under the numbers that its classes have among `classes`.

    It may have no example of a class that `classes` does not name.
    """
    assert examples.labels is not None
    assert examples.classes is not None
    number = {c: i for i, c in enumerate(classes)}
    order = torch.tensor([number.get(c, -1) for c in examples.classes], dtype=torch.int64)
    return examples.with_labels(order[examples.labels], classes)


def match_columns(splits: Splits, first: Splits) -> Splits:
    """The splits with named columns in the order of those of `first`.

    Raises DataError if columns are missing or further ones there, or if the shapes differ.
    """
    splits = order_columns(splits, first.feature_names, first.train.name)
    check_shapes(first.train, splits.train)
    return splits


def order_columns(splits: Splits, wanted: Sequence[str] | None, name: str) -> Splits:
    """The splits with the columns `wanted` in that order, those of `name`; None = as they are."""
    order = column_order(splits.feature_names, wanted, splits.train.name, name)
    if order is None:
        return splits
    return replace(reordered(splits, torch.tensor(order)), feature_names=tuple(wanted or ()))


def reordered(splits: Splits, order: Tensor) -> Splits:
    """The splits with the columns `order` (D,); sets that share their numbers still do."""
    data: dict[int, Tensor] = {}
    sets: dict[int, ImageSet] = {}

    def change(examples: ImageSet) -> ImageSet:
        moved = data.setdefault(id(examples.data), examples.data[:, order])
        return examples.with_pixels(moved)

    def once(examples: ImageSet | None) -> ImageSet | None:
        if examples is None:
            return None
        if id(examples) not in sets:
            sets[id(examples)] = change(examples)
        return sets[id(examples)]

    train = once(splits.train)
    assert train is not None
    return replace(splits, train=train, val=once(splits.val), test=once(splits.test))


def check_shapes(first: ImageSet, other: ImageSet) -> None:
    """Raises DataError if a net for the one could not be given the other."""
    a, b = first.shape, other.shape
    if len(a) == len(b) == 1:
        if a != b:
            raise DataError(
                f"{first.name} has {a[0]} features per example, {other.name} has {b[0]}; they must "
                "agree."
            )
    elif len(a) != len(b):
        kinds = ["features" if len(shape) == 1 else "images" for shape in (a, b)]
        raise DataError(
            f"{first.name} holds {kinds[0]}, {other.name} {kinds[1]}; they must agree in kind."
        )
    elif a[1:] != b[1:]:
        raise DataError(
            f"{first.name} has examples of shape {a}, {other.name} of {b}; they must agree "
            "(data.size)."
        )


def relabelled(splits: Splits, change: Change) -> Splits:
    """Each set that has labels after `change(set, its labels, its classes)`; others as they are."""

    def changed(examples: ImageSet | None) -> ImageSet | None:
        if examples is None or examples.labels is None or examples.classes is None:
            return examples
        return change(examples, examples.labels, examples.classes)

    train = changed(splits.train)
    assert train is not None
    return replace(splits, train=train, val=changed(splits.val), test=changed(splits.test))


def classes_of(splits: Splits) -> tuple[str, ...]:
    """Those of the training set, then what only validation or test have."""
    names: dict[str, None] = {}
    for examples in (splits.train, splits.val, splits.test):
        if examples is not None and examples.classes is not None:
            names |= dict.fromkeys(examples.classes)
    return tuple(names)
