"""Several tasks on one backbone with a head each, learned jointly or one after the other.

    joint        min over f, h_1 .. h_T   Σ_t E_t L_t(h_t(f(x)), y)
    sequential   min over f, h_t          E_t L_t(h_t(f(x)), y)     for t = 1 .. T, from the last f

f is one backbone for all (hard parameter sharing), or what `architecture` makes for each task
(architectures.py). E_t is over the images of task t, L_t its cross-entropy, or for boxes the smooth
L1 of (left, top, right, bottom) in shares of the image (Girshick, Fast R-CNN, ICCV 2015); images
without the label are left out. Caruana, "Multitask Learning", Machine Learning 28 (1997), whose
data are others; presets `conf/experiment/multitask/`. x: (B, C, H, W); y: (B,) int64; boxes:
(B, 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from tlrun.config.ranges import BelowOne, Count, Distinct, NotNegative, Share, Width
from tlrun.data.pipeline.sharing import part_of_batch
from tlrun.data.problems.label_space import TaskFacts, facts_as
from tlrun.data.problems.pair import Data, Task
from tlrun.errors import ConfigError, did_you_mean
from tlrun.losses.tasks import box_loss, known_class_loss
from tlrun.methods.base import (
    Batches,
    DomainOutput,
    Method,
    Output,
    Phase,
    Progress,
    Requirements,
    Update,
)
from tlrun.methods.multi_task.architectures import Name, Sharing
from tlrun.methods.query import Query
from tlrun.models.heads import BoxHead
from tlrun.models.net import Net


class MultiTask(Method):
    """tasks: those to learn, null = all. order: joint | sequential, as above.

    alpha: a task's part of the batch is in proportion to n^alpha, n its training images (0 = equal
    parts, 1 = as in the union). epoch: max | min, the set that `trainer.epochs` counts: the largest
    or the smallest. label_smoothing: of class labels. box_beta: where smooth L1 turns linear.
    architecture: what the tasks share, architectures.py. experts: of mmoe, and the shared ones of
    cgc; task_experts: of each task in cgc; expert_units: of their one layer; levels: of cgc, more
    than 1 is PLE. stitch: where a task's α of its own column starts in cross_stitch.
    """

    requirements = Requirements(streams=(), target_labels="all", kind="tasks")
    needs_images = False
    balanced = True

    def __init__(
        self,
        tasks: Annotated[Sequence[str], Distinct()] | None = None,
        order: Literal["joint", "sequential"] = "joint",
        alpha: NotNegative = 0.0,
        epoch: Literal["max", "min"] = "max",
        label_smoothing: BelowOne = 0.0,
        box_beta: NotNegative = 0.1,
        architecture: Name = "hard",
        experts: Count = 4,
        task_experts: Count = 2,
        expert_units: Width = 64,
        levels: Count = 1,
        stitch: Share = 0.9,
    ) -> None:
        self.names, self.order, self.alpha, self.epoch = tasks, order, alpha, epoch
        self.label_smoothing, self.box_beta = label_smoothing, box_beta
        self.sharing = Sharing(architecture, experts, task_experts, expert_units, levels, stitch)
        self.needs_images = architecture in ("cross_stitch", "mtan")  # which cut the backbone
        if order == "sequential" and architecture != "hard":
            raise ConfigError(
                f"method.architecture={architecture} is learned jointly: method.order=joint"
            )

    def chosen(self, data: Data) -> dict[str, Task]:
        wanted = self.names or data.tasks
        for name in set(wanted) - set(data.tasks):
            raise ConfigError(f"method.tasks: no task '{name}': {did_you_mean(name, data.tasks)}")
        return {name: task for name, task in data.tasks.items() if name in wanted}

    def phases(self, data: Data) -> list[Phase]:
        if self.batch_norm == "per_domain":
            raise ConfigError("tasks share batch statistics: batch_norm=joint or separate_forward")
        found = self.chosen(data)
        if self.order == "joint":
            return [self.phase("train", data, found)]
        phases = [self.phase(name, data, {name: task}) for name, task in found.items()]
        last = len(phases) - 1
        return [replace(p, terms=i == last, transfer=i == last > 0) for i, p in enumerate(phases)]

    def phase(self, name: str, data: Data, tasks: Mapping[str, Task]) -> Phase:
        sizes = facts_as(data.facts, TaskFacts).examples
        counts = {str(task.domain): sizes[str(task.domain)] for task in tasks.values()}
        by_size = sorted(sizes, key=sizes.__getitem__, reverse=self.epoch == "max")
        sampling = dict.fromkeys(counts, partial(part_of_batch, counts, self.alpha))
        return Phase(name, tuple(counts), epoch_stream=by_size[0], sampling=sampling)

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        self.tasks, self.target = data.tasks, facts_as(data.facts, TaskFacts).target_task
        learned = self.tasks_of(phase)
        self.shared = self.sharing.among(list(learned))
        self.shared.build(net)
        dim = self.shared.feature_dim(net)
        for name, task in learned.items():
            if task.kind == "box":
                net.add(self.head(name), BoxHead(dim, **net.head_options))
            else:
                net.add(self.head(name), net.new_head(len(task.classes), dim))

    def shown(self, phase: Phase) -> dict[str, tuple[str, ...]]:
        """Under the names of the tasks, of which none is the target."""
        return dict.fromkeys(phase.streams, ("features", "labels"))

    def start(self, phase: Phase, net: Net, data: Data) -> None:
        self.shared.start(net)

    def tasks_of(self, phase: Phase) -> dict[str, Task]:
        """Those that a phase learns; a sequential one bears the name of its task."""
        names = [phase.name] if self.order == "sequential" else self.names or self.tasks
        return {name: task for name, task in self.tasks.items() if name in names}

    def head(self, task: str) -> str:
        return "classifier" if task == self.target else f"head_{task}"

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        learned = self.tasks_of(phase)
        images = {name: drawn.x for name, drawn in batch.items()}
        features = self.task_features(net, images, learned)
        losses = {}
        for name, task in learned.items():
            drawn = batch[str(task.domain)]
            found, truth = net[self.head(name)](features[name]), task.truth(drawn.y, drawn.columns)
            if task.kind == "box":
                losses[name] = box_loss(found, truth, self.box_beta)
            else:
                losses[name] = known_class_loss(found, truth, self.label_smoothing)
        outputs = {}
        for name, task in reversed(learned.items()):  # of several on the same images the first
            drawn = batch[str(task.domain)]
            outputs[str(task.domain)] = DomainOutput(drawn.x, features[name], None, drawn.y)
        yield Update(losses, tasks=tuple(losses), outputs=outputs)

    def task_features(
        self, net: Net, images: Mapping[str, Tensor], tasks: Mapping[str, Task]
    ) -> dict[str, Tensor]:
        """images: domain -> x (B, ...). What each task's head is given, (B, D), of its domain's.

        With batch_norm=joint by one pass over all images, else by one for each domain.
        """
        if self.batch_norm == "joint":
            made = self.shared.features(net, torch.cat(list(images.values())), list(tasks))
            sizes = [len(x) for x in images.values()]
            return {
                name: dict(zip(images, made[name].split(sizes), strict=True))[str(task.domain)]
                for name, task in tasks.items()
            }
        found: dict[str, Tensor] = {}
        for domain, x in images.items():
            own = [name for name, task in tasks.items() if task.domain == domain]
            found |= self.shared.features(net, x, own, domain)
        return {name: found[name] for name in tasks}

    def predict(self, net: Net, x: Tensor, query: Query) -> Output:
        task = query.task or self.target
        head = self.head(task)
        if head not in net.parts:  # its phase is still to come
            return Output(features=net.features(x))
        features = self.shared.features(net, x, [task])[task]
        key = "boxes" if self.tasks[task].kind == "box" else "scores"
        return Output(**{key: net[head](features)}, features=features)

    def baselines(self, data: Data) -> dict[str, dict[str, Any]]:
        """Each task alone, with as many steps and as many of its images."""
        alone = {"balance": "equal", "method.order": "joint", "phases": {}}
        alone["method.architecture"] = "hard"
        return {f"baseline/{t}": {**alone, "method.tasks": [t]} for t in self.chosen(data)}
