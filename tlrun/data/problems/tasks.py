"""Several labelled tasks, each on images of its own or on the same: the `Data` of task families.

    tasks:
      dog:                                   # an ordered mapping: easy to hard, big to small
        images: {_target_: ...}              # a data set
        classes: {dog: [beagle, collie], other: [cat]}   # labels merged; the rest is left out
      wolf:
        images: {_target_: ...}
        classes: [wolf, fox]                 # some of the set's classes
        per_class: 10                        # so many labelled training images of each
      box:
        same_as: dog                         # the images of another task, judged otherwise
        kind: box                            # a column of the set that is no class label
        per_class: 50                        # the box is known of so many images of each class

Every task is a domain of that name (unless `same_as`), and `Data.tasks` keeps their order. One of
them is the target, the last unless `target` names another: its figures are the run's headline, and
`target_labels` applies to it. Batch.y holds class labels; Batch.columns what else a set knows. What
a task on shared images does not know is -1 (class) or NaN (box): `Task.truth`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, Literal

import torch

from tlrun.config.ranges import Count, Interpolation, Normalize, Number, Pixels
from tlrun.config.schema import check_section
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.match import match_classes, match_columns
from tlrun.data.examples.splits import Splits, common_grey, draw_per_class, with_val
from tlrun.data.pipeline.augment import GEOMETRY, Augment
from tlrun.data.problems.class_checks import check_trained
from tlrun.data.problems.label_space import Task, TaskFacts
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import Data, Domain, allowed, interpolation_of, preprocess_of
from tlrun.errors import ConfigError, DataError, did_you_mean

log = logging.getLogger("tlrun")


@dataclass
class TaskKeys:
    """`data.tasks.<name>`; each may be left out."""

    images: dict[str, Any] | None
    same_as: str | None
    kind: Literal["class", "box"] | None
    classes: Any
    per_class: Count | None


def task_data(
    *,
    options: Options,
    name: str = "tasks",
    tasks: Mapping[str, dict[str, Any]] | None = None,
    target: str | None = None,
    size: Pixels | None = None,
    channels: Literal[1, 3] = 3,
    normalize: Normalize = "none",
    mean: Sequence[Number] | None = None,
    std: Sequence[Number] | None = None,
    interpolation: Interpolation = "auto",
    augment: Mapping[str, Any] | None = None,
) -> Data:
    """tasks: as in the module's example. target: null = the last. augment: by task, or `all`.

    mean, std: of normalize=standard, by channel; null = those of the first task's images.

    Labels are what these tasks are about: target_labels=k leaves the target k per class,
    target_labels=none is refused. Raises ConfigError or DataError.
    """
    if not tasks:
        raise ConfigError("which tasks? Give data.tasks.<name>.images (a data set).")
    if options.target_labels == "none" or options.target_images == "none":
        raise ConfigError(
            f"every task of data={name} is learned from labels: a method for tasks "
            "(method=multitask, sequential or progressive) and target_labels=all or k per class."
        )
    target = target or list(tasks)[-1]
    if target not in tasks:
        raise ConfigError(f"data.target: no task '{target}': {did_you_mean(target, tasks)}")
    augment = dict(augment or {})
    domains, learned, read = _read_tasks(tasks, augment, options, size, interpolation)
    _warn_of_tested_images(read)
    target_domain = domains[learned[target].domain or target]
    assert target_domain.train is not None
    if options.target_labels != "auto":
        target_domain.train = allowed(
            target_domain.train, options.target_labels, options.seed, "target_labels"
        )
    for key in augment:
        if key != "all" and key not in domains:
            raise ConfigError(f"unknown key data.augment.{key}: {did_you_mean(key, domains)}")
    trained = {name: d.train for name, d in domains.items() if d.train is not None}
    labelled = (s for s in (target_domain.train, target_domain.val) if s is not None)
    conf: dict[str, Any] = {"channels": channels, "normalize": normalize, "mean": mean, "std": std}
    conf["interpolation"] = interpolation
    first, last = next(iter(read.values())), [*read.values()][-1]
    return Data(
        name=name,
        domains=domains,
        tasks=learned,
        preprocess=preprocess_of(conf, next(iter(trained.values())), last.fit, common_grey(read)),
        augment={domain: Augment(_augment_of(augment, domain)) for domain in domains},
        target_labels_seen=sum(len(examples) for examples in labelled),
        evaluator="tasks",
        facts=TaskFacts(target, {name: len(train) for name, train in trained.items()}),
        feature_names=first.feature_names,
    )


def _augment_of(augment: Mapping[str, Any], domain: str) -> Mapping[str, Any]:
    """The augmentation of a domain: its own, else that of all."""
    return augment.get(domain) or augment.get("all") or {}


def _warn_of_tested_images(read: Mapping[str, Splits]) -> None:
    """Say so where the shared net learns from image files that another task tests on."""

    def files(splits: Splits, examples: ImageSet | None) -> set[str]:
        paths = () if examples is None else examples.paths or ()
        return {splits.content[path] for path in paths if path in splits.content}

    for (a, learned), (b, tested) in permutations(read.items(), 2):
        if count := len(files(learned, learned.train) & files(tested, tested.test)):
            log.warning(
                "the task %s trains on %s of the test images of %s (files of equal content): put "
                "the same files into train/ and test/ of both",
                a,
                f"{count:,}",
                b,
            )


def _read_tasks(
    tasks: Mapping[str, dict[str, Any]],
    augment: Mapping[str, Any],
    options: Options,
    size: int | None,
    interpolation: str,
) -> tuple[dict[str, Domain], dict[str, Task], dict[str, Splits]]:
    """(domains, tasks, the sets of each task with images of its own), in the order of `tasks`."""
    domains: dict[str, Domain] = {}
    learned: dict[str, Task] = {}
    read: dict[str, Splits] = {}
    for task, conf in tasks.items():
        if not re.fullmatch(r"[\w-]+", task) or task in ("mean", "source", "target"):
            raise ConfigError(f"data.tasks.{task}: name it in other words (letters, digits, _, -).")
        check_section(conf, TaskKeys, f"data.tasks.{task}.", partial=True)
        domain = str(conf.get("same_as") or task)
        if domain == task:
            splits = _splits(task, conf, options, size, interpolation)
            read[task] = match_columns(splits, next(iter(read.values()), splits))
            domains[task] = replace(Domain.of(read[task]), name=task)
        elif domain not in domains:
            raise ConfigError(
                f"data.tasks.{task}.same_as: no task '{domain}' before it: "
                f"{did_you_mean(domain, domains)}"
            )
        moved = [key for key in GEOMETRY if _augment_of(augment, domain).get(key)]
        learned[task] = _task(task, conf, domain, domains[domain], bool(moved), options.seed)
    return domains, learned, read


def _task(
    name: str, conf: Mapping[str, Any], domain: str, images: Domain, moved: bool, seed: int
) -> Task:
    """One task on the images of a domain. moved: whether these are moved by augmentation."""
    kind = str(conf.get("kind") or "class")
    train = images.train
    assert train is not None
    if kind != "class" and kind not in train.columns:
        raise DataError(f"data.tasks.{name}: {train.name} has no column '{kind}'.")
    if kind == "box" and moved:
        raise ConfigError(
            f"data.augment: {', '.join(GEOMETRY)} move the image of {domain}, but not the box "
            f"of the task {name}: leave them out."
        )
    classes, column = (train.classes or (), "") if kind == "class" else ((), kind)
    if domain != name and (conf.get("classes") or conf.get("per_class") is not None):
        classes, column = _judge_anew(images, name, kind, conf, seed), name
    if kind == "class" and len(classes) < 2:
        raise DataError(
            f"the task {name} has one class only ('{', '.join(classes)}'), so every prediction "
            "would be right: give it at least two, what is none of them in a class of its own."
        )
    return Task(name, kind, classes, domain, column)


def _splits(
    task: str, conf: Mapping[str, Any], options: Options, size: int | None, interpolation: str
) -> Splits:
    """The sets of a task under its own classes, training images limited to `per_class`."""
    seed = options.seed
    from tlrun.config.build import build

    images = conf.get("images")
    if not isinstance(images, Mapping) or "_target_" not in images:
        raise ConfigError(
            f"which images has the task {task}? Give data.tasks.{task}.images (a data set with its "
            "`_target_`) or data.tasks.<name>.same_as."
        )
    how = interpolation_of(images, interpolation)
    key = f"data.tasks.{task}.images"
    splits = build(images, key, seed=seed, size=size, download=True, **how)
    if not isinstance(splits, Splits):
        raise ConfigError(f"data.tasks.{task}.images: {images['_target_']} must return Splits.")
    splits = with_val(splits, "source", seed)
    if splits.train.classes is not None:
        splits = match_classes(splits, splits.train.classes, splits.train.name)
    train, val, test = (
        None if examples is None else under(examples, conf.get("classes"), task)
        for examples in (splits.train, splits.val, splits.test)
    )
    assert train is not None
    check_trained(train)
    if conf.get("per_class") is not None:
        train = train.subset(_drawn(train, conf["per_class"], task, seed))
    return replace(splits, train=train, val=val, test=test)


def _drawn(examples: ImageSet, k: int, task: str, seed: int) -> torch.Tensor:
    return draw_per_class(examples, k, seed, f"data.tasks.{task}.per_class")


def _judge_anew(
    domain: Domain, task: str, kind: str, conf: Mapping[str, Any], seed: int
) -> tuple[str, ...]:
    """Give the images of a domain a column `task`: its classes, or what few of them are known.

    Returns the names of the classes.
    """
    names: tuple[str, ...] = ()
    for split in ("train", "val", "test"):
        examples: ImageSet | None = getattr(domain, split)
        if examples is None:
            continue
        labels, groups = positions(examples, conf.get("classes"), task)
        values, unknown = labels, -1.0
        if kind == "class":
            names = groups
        else:
            values, unknown = examples.columns[kind], float("nan")
        if split == "train" and conf.get("per_class") is not None:
            judged = (labels >= 0).nonzero().flatten()
            view = examples.subset(judged).with_labels(labels[judged], groups)
            kept = judged[_drawn(view, conf["per_class"], task, seed)]
            few = torch.full_like(values, unknown)
            few[kept] = values[kept]
            values = few
        setattr(domain, split, examples.with_column(task, values))
    return names


def under(
    examples: ImageSet, classes: Sequence[str] | Mapping[str, Sequence[str]] | None, task: str
) -> ImageSet:
    """The examples of `classes` alone, labelled by their `positions`. None = all as they are."""
    labels, names = positions(examples, classes, task)
    if classes is None:
        return examples
    kept = (labels >= 0).nonzero().flatten()
    return examples.subset(kept).with_labels(labels[kept], names)


def positions(
    examples: ImageSet, classes: Sequence[str] | Mapping[str, Sequence[str]] | None, task: str
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """(labels (n,) int64 by position in `classes`, -1 for others; the names of the classes).

    A mapping merges: new name -> names of the set's classes. None = all as they are. Raises
    ConfigError for a class that the set does not have, DataError for a set without labels.
    """
    if examples.labels is None or examples.classes is None:
        raise DataError(
            f"the task {task}: {examples.name} has no labels; give a folder per class or a list "
            "of 'path label'."
        )
    if classes is None:
        return examples.labels, examples.classes
    groups = classes if isinstance(classes, Mapping) else {str(name): [name] for name in classes}
    new = torch.full((len(examples.classes),), -1)
    for position, members in enumerate(groups.values()):
        for member in map(str, members):
            if member not in examples.classes:
                raise ConfigError(
                    f"data.tasks.{task}.classes: no class '{member}' in {examples.name}: "
                    f"{did_you_mean(member, examples.classes)}"
                )
            new[examples.classes.index(member)] = position
    return new[examples.labels], tuple(map(str, groups))
