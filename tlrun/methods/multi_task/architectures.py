"""What tasks share, `method.architecture`: features for each task from one batch of images.

    hard          one backbone; what it makes of an image is every task's        Caruana 1997
    cross_stitch  a backbone for each, mixed behind every stage                   Misra et al. 2016
    mmoe          experts behind one backbone, a gate for each task               Ma et al. 2018
    cgc           shared and own experts; several levels of them are PLE          Tang et al. 2020
    mtan          one backbone and a mask for each task on every stage            Liu et al. 2019

The formulas stand in `tlrun/models`: cross_stitch.py, experts.py, task_attention.py. Nothing here
knows losses: heads, balances and data are the same for all.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tlrun.errors import ConfigError
from tlrun.models.cross_stitch import CrossStitch
from tlrun.models.experts import Experts
from tlrun.models.net import Net
from tlrun.models.segments import Segments
from tlrun.models.task_attention import TaskAttention

Name = Literal["hard", "cross_stitch", "mmoe", "cgc", "mtan"]
KEY = "method.architecture"


class Hard:
    """One backbone for all: the contract of the others too. tasks: all that are learned, in order.

    by_stage: whether it looks between the stages, so that it must be given images.
    """

    by_stage = False

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = list(tasks)

    def build(self, net: Net) -> None:
        """Add its parts to the net, unless they are there."""

    def start(self, net: Net) -> None:
        """Once, when the backbone has its first weights."""

    def feature_dim(self, net: Net) -> int:
        """D of what a head is given."""
        return net.feature_dim

    def features(
        self, net: Net, x: Tensor, tasks: Sequence[str], domain: str = "source"
    ) -> dict[str, Tensor]:
        """x: (B, ...) -> what the head of each of `tasks` is given, (B, D)."""
        return dict.fromkeys(tasks, net.features(x, domain))


class Stitched(Hard):
    """The first task's column is `backbone`, the others are `column_<task>`, `cross_stitch` the α.

    All columns begin with the weights of the backbone.
    """

    by_stage = True

    def __init__(self, tasks: Sequence[str], own: float) -> None:
        super().__init__(tasks)
        self.own = own

    def columns(self) -> list[str]:
        return ["backbone", *(f"column_{task}" for task in self.tasks[1:])]

    def build(self, net: Net) -> None:
        if "cross_stitch" in net.parts:
            return
        segments = Segments(net.backbone, net.input_shape, f"{KEY}=cross_stitch")
        for column in self.columns()[1:]:
            net.add(column, copy.deepcopy(net.backbone))
        net.add("cross_stitch", CrossStitch(segments, len(self.tasks), self.own))

    def start(self, net: Net) -> None:
        for column in self.columns()[1:]:
            net[column].load_state_dict(net.backbone.state_dict())

    def features(
        self, net: Net, x: Tensor, tasks: Sequence[str], domain: str = "source"
    ) -> dict[str, Tensor]:
        made = net["cross_stitch"]([net[column] for column in self.columns()], x)
        by_task = dict(zip(self.tasks, made, strict=True))
        return {task: by_task[task] for task in tasks}


class Mixture(Hard):
    """mmoe, cgc and ple; the part is `experts`. units: of an expert. The others are counts."""

    def __init__(
        self, tasks: Sequence[str], units: int, shared: int, own: int = 0, levels: int = 1
    ) -> None:
        super().__init__(tasks)
        self.units, self.shared, self.own, self.levels = units, shared, own, levels

    def build(self, net: Net) -> None:
        if "experts" not in net.parts:
            counts = (self.units, self.shared, self.own, self.levels)
            net.add("experts", Experts(self.tasks, net.feature_dim, *counts))

    def feature_dim(self, net: Net) -> int:
        return self.units

    def features(
        self, net: Net, x: Tensor, tasks: Sequence[str], domain: str = "source"
    ) -> dict[str, Tensor]:
        mixtures: dict[str, Tensor] = net["experts"](net.features(x, domain), tasks)
        return mixtures


class Attended(Hard):
    """The part is `attention`."""

    by_stage = True

    def build(self, net: Net) -> None:
        if "attention" not in net.parts:
            segments = Segments(net.backbone, net.input_shape, f"{KEY}=mtan")
            net.add("attention", TaskAttention(segments, self.tasks))

    def features(
        self, net: Net, x: Tensor, tasks: Sequence[str], domain: str = "source"
    ) -> dict[str, Tensor]:
        attended: dict[str, Tensor] = net["attention"](net.backbone, x, tasks)
        return attended


@dataclass(frozen=True)
class Sharing:
    """The keys of `method` about what is shared; the method's docstring says what they mean."""

    architecture: Name = "hard"
    experts: int = 4
    task_experts: int = 2
    expert_units: int = 64
    levels: int = 1
    stitch: float = 0.9

    def among(self, tasks: Sequence[str]) -> Hard:
        """Raises ConfigError where there is nothing to share."""
        if self.architecture == "hard":
            return Hard(tasks)
        if len(tasks) < 2:
            raise ConfigError(
                f"{KEY}={self.architecture} shares between tasks, and {', '.join(tasks)} is alone: "
                f"{KEY}=hard"
            )
        if self.architecture == "cross_stitch":
            return Stitched(tasks, self.stitch)
        if self.architecture == "mtan":
            return Attended(tasks)
        if self.architecture == "mmoe":
            return Mixture(tasks, self.expert_units, self.experts)
        return Mixture(tasks, self.expert_units, self.experts, self.task_experts, self.levels)
