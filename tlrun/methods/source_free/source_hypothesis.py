"""What methods share that adapt a model of the source to the target without its images.

    source phase   min over f, h  E_S CE(h(f(x)), y)          (init=source; else the start is given)
    last phase     streams = ("target",): no image of the source reaches it

With `init=RUN_DIR` there is no source phase at all: the model of that run is adapted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlrun.config.ranges import BelowOne
from tlrun.data.pipeline.streams import Batch
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.losses.classification import classification_loss
from tlrun.methods.base import Batches, DomainOutput, Method, Phase, Progress, Requirements, Update
from tlrun.models.batch_norm import BatchNorm
from tlrun.models.net import Net

PRESETS = ("pretrained", "scratch")  # of `init`: nothing that knows the classes


class SourceFree(Method):
    """`adapting` is the last phase; a subclass says in `target_step` or `start` what it does.

    label_smoothing: share in [0, 1) that is spread over all classes, in the source phase.
    """

    requirements = Requirements(streams=("source", "target"))
    needs_images = False
    takes_soft_labels = True
    batch_norm = "per_domain"
    init = "source"
    adapting = Phase("target", ("target",), transfer=True)

    def __init__(self, label_smoothing: BelowOne = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def phases(self, data: Data) -> list[Phase]:
        if self.init in PRESETS:
            raise ConfigError(
                f"init={self.init}: this method adapts a model of the source, which init=source "
                "trains (backbone.weights=DEFAULT to start it from published weights) and "
                "init=RUN_DIR takes from another run"
            )
        return [*self.source_phases(), self.adapting]

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("classifier", net.new_head(data.num_classes))

    def check(self, phase: Phase, net: Net, data: Data) -> None:
        """Refuses to adapt what no source has trained."""
        if phase.name == self.adapting.name:
            check_carried(net)

    def start(self, phase: Phase, net: Net, data: Data) -> None:
        self.check(phase, net, data)  # what another run lacks is known only now

    def shown(self, phase: Phase) -> Mapping[str, tuple[str, ...]]:
        """The last phase reads no label."""
        adapts = phase.name == self.adapting.name
        return {"target": ("features", "logits")} if adapts else super().shown(phase)

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        if phase.name != "source":
            yield from self.target_step(net, batch["target"], progress)
            return
        x, y = batch["source"].x, batch["source"].y
        out = net(x, "source")
        loss = classification_loss(out.logits, y, self.label_smoothing)
        shown = DomainOutput(x, out.features, out.logits, y)
        yield Update({"classification": loss}, outputs={"source": shown})

    def target_step(self, net: Net, drawn: Batch, progress: Progress) -> Iterator[Update]:
        """The updates of one step of the last phase."""
        raise NotImplementedError

    def baselines(self, data: Data) -> dict[str, dict[str, Any]]:
        """Source only; of a run that is given, its model as it is."""
        (changes,) = super().baselines(data).values()
        as_it_is = {} if self.init == "source" else {"phases": {"train": {"steps": 0}}}
        return {"baseline": {**changes, **as_it_is}}


def check_carried(net: Net) -> None:
    """ConfigError unless each stage has weights of the source (in a dry run none is carried)."""
    new = [stage for stage in net.path() if stage not in net.carried]
    if net.carried and new:
        raise ConfigError(
            f"there are no weights of the source for {new[0]} (transfer.json says why): "
            "carry all stages over, from a run with the same backbone and head"
        )


def norms_of(net: Net, frozen: tuple[str, ...], method: str) -> list[Any]:
    """Batch norms with running statistics outside of frozen stages. ConfigError for none."""
    still: set[nn.Module] = {
        module for stage in net.select(frozen) for module in net.module_of(stage).modules()
    }
    found: list[Any] = [
        module
        for module in net.modules()
        if isinstance(module, _BatchNorm | BatchNorm)
        and module not in still
        and module.running_mean is not None
    ]
    if not found:
        raise ConfigError(
            f"method={method} adapts batch norm and this net has none that is not frozen: take a "
            "backbone that has (backbone.batch_norm=true)"
        )
    return found
