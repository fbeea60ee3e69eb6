"""What a data set returns: its splits and its card, and how splits are cut where a set has none."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any

import torch

from tlrun.data.examples.decode import GreyRange
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.hashing import permutation
from tlrun.errors import ConfigError, DataError

log = logging.getLogger("tlrun")

SOURCE_VAL = 5000
TARGET_VAL = 2000


@dataclass
class Card:
    """Where a data set comes from. notes: what is particular about it on this machine."""

    name: str
    citation: str
    licence: str
    url: str = ""
    root: str = ""
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Splits:
    """The sets of one domain; val or test may be None.

    fit, grey: how new image files are brought to size, and how deep grey becomes 8 bits
    (`decode.GreyRange`). content: path -> sha256 of the image files (or of the
    rows of features), where the set is made of such.
    feature_names: the columns of ready features in their order, where the files name them.
    stratify: whether sets are cut by class (`data.stratify`).
    A set without `val` gets one cut off its training set by `build_data`.
    """

    train: ImageSet
    val: ImageSet | None
    test: ImageSet | None
    card: Card
    fit: str = "squash"
    grey: GreyRange = field(default_factory=dict)
    content: Mapping[str, str] = field(default_factory=dict)
    feature_names: tuple[str, ...] | None = None
    stratify: bool = False

    def contents(self) -> set[str]:
        """Those of the files that are in its sets now."""
        sets = (s for s in (self.train, self.val, self.test) if s is not None)
        return {self.content[p] for s in sets for p in s.paths or () if p in self.content}


def class_order(names: Iterable[str]) -> list[str]:
    """Each name once: numbers by their value if all are numbers, else in alphabetical order.

    >>> class_order(["10", "1", "0"]), class_order(["10", "b", "1"])
    (['0', '1', '10'], ['1', '10', 'b'])
    """
    once = sorted(set(names))
    try:
        values = [float(name) for name in once]
    except ValueError:
        return once
    return sorted(once, key=float) if all(map(math.isfinite, values)) else once


def carve(
    examples: ImageSet,
    count: int,
    seed: int,
    what: str,
    content: Mapping[str, str] | None = None,
    stratify: bool = False,
) -> tuple[ImageSet, ImageSet]:
    """(rest, `count` examples), drawn by seed and name alone: labels play no part.

    content: path -> hash. Examples of equal content stay together, so that none is learned and
    tested on; what does not fit into `count` as a whole stays in the rest. stratify: of each class
    its share (`class_quotas`), where there are labels.
    """
    order = permutation(len(examples), "split", what, seed).tolist()
    same: list[Any] | None = None
    if content and examples.paths:
        same = [content.get(path, path) for path in examples.paths]
    if stratify and examples.labels is not None:
        chosen, rest = _by_class(order, count, examples.labels.tolist(), same)
    elif same:
        chosen, rest = whole_groups(order, count, same)
    else:
        chosen, rest = order[:count], order[count:]
    left, taken = (torch.tensor(sorted(part), dtype=torch.int64) for part in (rest, chosen))
    return examples.subset(left), examples.subset(taken)


def _by_class(
    order: Sequence[int], count: int, labels: Sequence[int], content: Sequence[Any] | None
) -> tuple[list[int], list[int]]:
    """(`count` of `order`, the rest), in each class its share; equal content is of one class."""
    content = content or range(len(order))
    label: dict[Any, int] = {}
    members: dict[int, list[int]] = {}
    for i in order:
        members.setdefault(label.setdefault(content[i], labels[i]), []).append(i)
    quotas = class_quotas({c: len(group) for c, group in members.items()}, count)
    taken: list[int] = []
    left: list[int] = []
    for c, group in members.items():
        chosen, rest = whole_groups(group, quotas[c], content)
        taken += chosen
        left += rest
    return taken, left


def class_quotas(sizes: Mapping[int, int], count: int) -> dict[int, int]:
    """class -> how many of `count` are taken of it: its share, rounded to the largest remainders.

    One of each class is left. The sum is `count`, or less where too few can be taken.

    >>> class_quotas({0: 50, 1: 30, 2: 1}, 8)
    {0: 5, 1: 3, 2: 0}
    """
    total = max(1, sum(sizes.values()))
    exact = {c: min(count * n / total, n - 1) for c, n in sizes.items()}
    quotas = {c: math.floor(share) for c, share in exact.items()}
    by_remainder = sorted(sizes, key=lambda c: (quotas[c] - exact[c], c))
    for c in by_remainder[: max(0, count - sum(quotas.values()))]:
        quotas[c] += quotas[c] < sizes[c] - 1
    return quotas


def whole_groups(
    order: Sequence[int], count: int, content: Sequence[Any]
) -> tuple[list[int], list[int]]:
    """(at most `count` of `order`, the rest): groups of equal content, as they come and fit."""
    groups: dict[Any, list[int]] = {}
    for i in order:
        groups.setdefault(content[i], []).append(i)
    taken: list[int] = []
    left: list[int] = []
    for members in groups.values():
        (taken if len(taken) + len(members) <= count else left).extend(members)
    return taken, left


def cut(
    examples: ImageSet,
    card: Card,
    seed: int,
    *,
    val: float = 0.1,
    test: float = 0.2,
    transductive: bool = False,
    fit: str = "squash",
    key: str = "",
    content: Mapping[str, str] | None = None,
    stratify: bool = False,
) -> Splits:
    """Seeded fractions of one set, never by label but with stratify, which keeps the class shares.

    transductive: the usual protocol of small domain-adaptation sets: all examples are trained on
    (as a target: without labels) and all are tested on; val is the training set itself. key: of the
    configuration, for messages. content: as of `carve`. Raises ConfigError, or DataError if nothing
    is left to train or test on.
    """
    if transductive:
        return Splits(examples, examples, examples, card, fit)
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise ConfigError(f"fractions val={val}, test={test}: both at least 0, their sum below 1.")
    n = len(examples)
    rest, tested = carve(examples, round(n * test), seed, "test", content, stratify)
    train, held = carve(rest, round(n * val), seed, "val", content, stratify)
    if not len(train) or (test and not len(tested)):
        raise DataError(
            f"{examples.name} has too few examples ({n}): none is left for the "
            f"{'test' if len(train) else 'training'} after the cut; add some, or set "
            f"{key + '.' if key else ''}transductive=true to train and test on the same."
        )
    return Splits(
        train,
        held if len(held) else None,
        tested if len(tested) else None,
        card,
        fit,
        stratify=stratify and examples.labels is not None,
    )


def with_val(splits: Splits, domain: str, seed: int) -> Splits:
    """Splits with a val: its own, else a seeded part of the training set.

    5,000 examples of a source, 2,000 of a target, but never more than a tenth of the set.
    """
    if splits.val is not None:
        return splits
    n = len(splits.train)
    count = min(SOURCE_VAL if domain == "source" else TARGET_VAL, n // 10)
    if count == 0:
        return splits
    train, val = carve(splits.train, count, seed, "val", splits.content, splits.stratify)
    return replace(splits, train=train, val=val)


def warn_of_shared_images(domains: Mapping[str, Splits]) -> None:
    """Say how many image files two domains share: what one learns, the other tests."""
    contents = {name: splits.contents() for name, splits in domains.items()}
    for a, b in combinations(contents, 2):
        if shared := len(contents[a] & contents[b]):
            log.warning(
                "%s and %s share %s %s (of equal content): figures of one are of what the other "
                "has learned from",
                a,
                b,
                f"{shared:,}",
                "rows" if len(domains[a].train.shape) == 1 else "images",
            )


def common_grey(domains: Mapping[str, Splits]) -> dict[str, tuple[float, float]]:
    """The rule for deep grey of a whole run, by which new files are read: the last domain's. Says
    so if domains differ."""
    rule: dict[str, tuple[float, float]] = {}
    for name, splits in domains.items():
        for kind, (black, white) in splits.grey.items():
            if rule.setdefault(kind, (black, white)) != (black, white):
                log.warning(
                    "%s reads grey of more than 8 bits from %g to %g, others from %g to %g: set "
                    "grey_values of all of them if their values mean the same",
                    name,
                    black,
                    white,
                    *rule[kind],
                )
            rule[kind] = (black, white)
    return rule


def draw_per_class(
    examples: ImageSet, k: int, seed: int, key: str = "target_labels"
) -> torch.Tensor:
    """Indices of k examples of each class; the draw for k is contained in the one for any larger k.

    As an annotator would: examples are labelled one by one in a seeded order until every class has
    k, and one whose class is full already is passed over. Labels further on are never looked at.
    key: that of the configuration which asks for it. Raises ConfigError for a class that has fewer
    than k.
    """
    assert examples.labels is not None
    assert examples.classes is not None
    counts = torch.bincount(examples.labels, minlength=len(examples.classes)).tolist()
    for name, count in zip(examples.classes, counts, strict=True):
        if count < k:
            raise ConfigError(
                f"{key}={k}: class '{name}' of {examples.name} has {count} training "
                "examples; lower it."
            )
    taken = [0] * len(examples.classes)
    chosen: list[int] = []
    labels = examples.labels.tolist()
    for i in permutation(len(examples), "labelled", seed).tolist():
        if taken[labels[i]] < k:
            taken[labels[i]] += 1
            chosen.append(i)
            if len(chosen) == k * len(taken):
                break
    return torch.tensor(sorted(chosen), dtype=torch.int64)
