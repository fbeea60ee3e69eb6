"""Other data for a trained net: their classes, columns and statistics become those it knows.

What `label_space.json` says of a run is matched by name. A test set may lack classes; one that the
net does not know is refused. Episodes bring classes of their own: no head belongs to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from tlrun.data.examples.feature_file import listed, only_in
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.match import labels_of, present, renumbered
from tlrun.data.examples.splits import class_order
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.data.problems.label_space import (
    AttributeFacts,
    EpisodeFacts,
    LabelSpace,
    Task,
    facts_as,
)
from tlrun.data.problems.pair import Data, Domain
from tlrun.errors import ConfigError, DataError

GROUPS = ("training", "validation", "unseen")


def as_trained(data: Data, space: LabelSpace) -> Data:
    """The data under the classes of `space`, that of a trained run.

    Raises DataError that names the classes, tasks or attributes that do not match.
    """
    if data.kind == "episodes":
        return _of_episodes(data, space)
    if data.kind == "tasks":
        return _of_tasks(data, space.tasks)
    if data.kind == "attributes":
        return _of_attributes(data, space.classes, facts_as(space.facts, AttributeFacts))

    def classes(domain: str) -> tuple[str, ...]:
        return space.classes if domain == "target" else space.source_classes

    domains = {name: _under(domain, classes(name)) for name, domain in data.domains.items()}
    return replace(data, domains=domains, tasks=dict(space.tasks))


def check_unchanged(data: Data, space: LabelSpace) -> None:
    """ConfigError if the classes or columns are others than when the run began: `space`."""
    for task in data.tasks.values():
        began = space.tasks[task.name].classes if task.name in space.tasks else ()
        _refuse_change(f"the classes of {data.name} have", task.classes, began)
    if data.feature_names is not None:
        began = space.feature_names or data.feature_names
        _refuse_change(f"the columns of {data.name} have", data.feature_names, began)


def _refuse_change(what: str, now: Sequence[str], began: Sequence[str]) -> None:
    if list(now) != list(began):
        raise ConfigError(
            f"{what} changed since it began (now {listed(now)}; then {listed(began)}); "
            "bring them back, or start a new run."
        )


def with_statistics(data: Data, spec: Mapping[str, Any]) -> Data:
    """With the mean and std that a run was trained with, not those of another source.

    spec: `preprocess` of its label_space.json.
    """
    preprocess = data.preprocess
    if spec["normalize"] != "standard" or preprocess.mode != "standard":
        return data
    if preprocess.output_shape[0] != spec["shape"][0]:
        return data  # the weights will not fit
    of_images = {key: preprocess.spec()[key] for key in ("shape", "fit", "interpolation", "resize")}
    spec = {**spec, **of_images}
    return replace(data, preprocess=Preprocess.from_spec(spec))


def check_columns(data: Data, space: LabelSpace) -> None:
    """DataError if the columns of ready features are others than those of `space`."""
    shape = space.input_shape
    if len(shape) == len(data.input_shape) == 1 and shape != data.input_shape:
        raise DataError(
            f"{data.name} has {data.input_shape[0]} features per example, and the run was trained "
            f"on {shape[0]}; they must agree."
        )
    trained, columns = space.feature_names, data.feature_names
    if trained is None or columns is None or list(columns) == list(trained):
        return
    extra, missing = (
        [c for c in columns if c not in trained],
        [c for c in trained if c not in columns],
    )
    only = only_in({"the run": missing, data.name: extra}) or "in another order"
    raise DataError(f"{data.name} has other columns than the run was trained on: {only}.")


def _under(domain: Domain, classes: Sequence[str]) -> Domain:
    """The domain with the labels of each of its sets among `classes`."""

    def change(examples: ImageSet | None) -> ImageSet | None:
        if examples is None or examples.labels is None or examples.classes is None:
            return examples
        if not classes:  # a net that has learned none: its features are scored by these
            return examples
        unknown = class_order(set(present(examples)) - set(classes))
        if unknown:
            raise DataError(
                f"{examples.name} has classes that the run was not trained on: {listed(unknown)}; "
                f"it knows {listed(list(classes))}: rename or remove {labels_of(examples)}."
            )
        return renumbered(examples, classes)

    return replace(
        domain, train=change(domain.train), val=change(domain.val), test=change(domain.test)
    )


def _of_tasks(data: Data, tasks: Mapping[str, Task]) -> Data:
    """Every task by name, and the classes of each."""
    if only := only_in(
        {
            "the run": [name for name in tasks if name not in data.tasks],
            data.name: [name for name in data.tasks if name not in tasks],
        }
    ):
        raise DataError(f"{data.name} has other tasks than the run was trained on ({only}).")
    domains = dict(data.domains)
    for name, task in data.tasks.items():
        classes, domain = tasks[name].classes, task.domain or name
        if task.kind != tasks[name].kind:
            raise DataError(f"the task {name} is of the kind {task.kind}, not {tasks[name].kind}.")
        if task.column and task.kind == "class":
            domains[domain] = _column_under(domains[domain], task, classes)
        elif not task.column:
            domains[domain] = _under(domains[domain], classes)
    renamed = {
        name: replace(task, classes=tasks[name].classes) for name, task in data.tasks.items()
    }
    return replace(data, domains=domains, tasks={name: renamed[name] for name in tasks})


def _column_under(domain: Domain, task: Task, classes: Sequence[str]) -> Domain:
    """The domain with the class numbers in the column of a task among `classes`; -1 stays."""
    if unknown := [c for c in task.classes if c not in classes]:
        raise DataError(
            f"the task {task.name} has classes that the run was not trained on: {listed(unknown)}."
        )
    number = torch.tensor([*(list(classes).index(c) for c in task.classes), -1])

    def change(examples: ImageSet | None) -> ImageSet | None:
        if examples is None or task.column not in examples.columns:
            return examples
        return examples.with_column(task.column, number[examples.columns[task.column]])

    return replace(
        domain, train=change(domain.train), val=change(domain.val), test=change(domain.test)
    )


def _of_attributes(data: Data, classes: Sequence[str], trained: AttributeFacts) -> Data:
    """The same groups of classes and the same attributes, in the order of the run."""
    facts = facts_as(data.facts, AttributeFacts)
    for group in GROUPS:
        if only := only_in(
            {
                "the run": [c for c in trained.group(group) if c not in facts.group(group)],
                data.name: [c for c in facts.group(group) if c not in trained.group(group)],
            }
        ):
            raise DataError(
                f"{data.name} has other {group} classes than the run was trained on ({only}); "
                "tlrun predict --classes=FILE judges further ones."
            )
    names, wanted = facts.attribute_names, trained.attribute_names
    if only := only_in(
        {
            "the run": [a for a in wanted if a not in names],
            data.name: [a for a in names if a not in wanted],
        }
    ):
        raise DataError(f"{data.name} has other attributes than the run was trained on ({only}).")
    rows = [facts.attributes[data.classes.index(c)] for c in classes]
    values = [[row[names.index(a)] for a in wanted] for row in rows]
    return replace(
        data,
        domains={name: _under(domain, classes) for name, domain in data.domains.items()},
        tasks={"class": replace(data.tasks["class"], classes=tuple(classes))},
        facts=replace(
            trained, attributes=values, ready_features=facts.ready_features, gamma=facts.gamma
        ),
    )


def _of_episodes(data: Data, space: LabelSpace) -> Data:
    """The base classes are those of the run, whose net may have a head for them; the training set
    has no part in an evaluation, but where base classes are tested and are those of the run."""
    source = data.domains["source"]
    if source.test is None or data.source_classes != space.source_classes:
        source = replace(source, train=None, test=None)
    facts = facts_as(data.facts, EpisodeFacts)
    return replace(
        data,
        domains={**data.domains, "source": source},
        tasks={**data.tasks, "source": space.tasks["source"]},
        facts=replace(facts, train=facts_as(space.facts, EpisodeFacts).train),
    )
