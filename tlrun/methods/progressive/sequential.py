"""One net through a sequence of tasks, with a head each: the baseline of progressive learning.

    min over f, h_k   E_k L( h_k(f(x)), y )     for k = 1 .. K, from the f of task k - 1

Without terms it forgets (McCloskey and Cohen 1989). Conservative terms join from the second task
on and look back at all tasks before it: `terms=[ewc]` holds the weights that their heads need,
`terms=[lwf]` their answers on the new images, `terms=[l2_sp]` the weights of the last task. The
forgetting is in the matrix R of the report. x: (B, C, H, W); y: (B,) int64. No published figure on
these data; presets `conf/experiment/progressive/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tlrun.config.ranges import BelowOne
from tlrun.data.problems.pair import Data
from tlrun.methods.base import Batches, DomainOutput, Phase, Progress, Update
from tlrun.methods.multi_task.multitask import MultiTask
from tlrun.models.net import Net


class Sequential(MultiTask):
    """label_smoothing: of class labels."""

    needs_images = False
    balanced = False  # a task at a time

    def __init__(self, label_smoothing: BelowOne = 0.0) -> None:
        super().__init__(order="sequential", label_smoothing=label_smoothing)

    def phases(self, data: Data) -> list[Phase]:
        found = super().phases(data)
        return [replace(p, terms=k > 0, transfer=False) for k, p in enumerate(found)]

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        super().build(phase, net, data)
        names = list(data.tasks)
        before = names[: names.index(phase.name)]
        net.learned = {self.head(name): str(data.tasks[name].domain) for name in before}
        net.carried = tuple(net.select(["backbone", *net.learned])) if net.learned else ()

    def shown(self, phase: Phase) -> dict[str, tuple[str, ...]]:
        return {"target": ("features", "labels")}

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        ((_, drawn),) = batch.items()
        for update in super().step(net, batch, phase, progress):
            (output,) = update.outputs.values()
            update.outputs = {
                "target": DomainOutput(drawn.x, output.features, output.logits, drawn.y)
            }
            yield update

    def baselines(self, data: Data) -> dict[str, dict[str, object]]:
        return {}
