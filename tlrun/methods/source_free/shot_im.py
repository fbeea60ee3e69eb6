"""SHOT-IM: the source's hypothesis stays, features of the target are moved until it is sure.

    source phase   min over f, h  E_S CE(h(f(x)), y)          with label smoothing 0.1
    target phase   min over f     E_T H(p(x)) − H(E_T p(x)),    p = softmax(h(f(x))), h frozen

Information maximisation: every prediction confident, all of them together diverse. Liang, Hu and
Feng, "Do we really need to access the source data? Source hypothesis transfer for unsupervised
domain adaptation", ICML 2020, eq. 1, 3 and 4; E_T is the batch's mean. Published: SVHN→MNIST
99.0 %. Their net has a bottleneck (FC256, batch norm) before a weight-normalised output layer,
which alone is h; docs/methods/source_free.md has that setting.
x: (B, C, H, W); y: (B,) int64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm as normalise_weight

from tlrun.config.ranges import BelowOne, Weight
from tlrun.data.pipeline.streams import Batch
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.losses.entropy import diversity_loss, entropy_loss
from tlrun.methods.base import DomainOutput, Phase, Progress, Update
from tlrun.methods.source_free.source_hypothesis import SourceFree
from tlrun.models.net import Net


class ShotIM(SourceFree):
    """hypothesis: the stages held still in the target phase, batch statistics included:
    "classifier" or its last ones ("classifier.out"). diversity: weight of the second part of
    information maximisation. weight_norm: output layer w = g v/‖v‖. label_smoothing: in the
    source phase.
    """

    def __init__(
        self,
        hypothesis: str = "classifier",
        diversity: Weight = 1.0,
        weight_norm: bool = False,
        label_smoothing: BelowOne = 0.1,
    ) -> None:
        super().__init__(label_smoothing)
        if hypothesis.partition(".")[0] != "classifier":
            raise ConfigError(
                f"method.hypothesis={hypothesis} must be classifier or a stage of it, "
                "classifier.out: what comes before it is adapted"
            )
        self.hypothesis, self.diversity, self.weight_norm = hypothesis, diversity, weight_norm
        self.adapting = replace(self.adapting, frozen=(hypothesis,))

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        super().build(phase, net, data)
        output = net.module_of("classifier.out")
        if self.weight_norm and not parametrize.is_parametrized(output):
            normalise_weight(output)

    def target_step(self, net: Net, drawn: Batch, progress: Progress) -> Iterator[Update]:
        out = net(drawn.x, "target")
        assert out.logits is not None
        yield Update(
            self.losses(out.logits, drawn),
            outputs={"target": DomainOutput(drawn.x, out.features, out.logits)},
        )

    def losses(self, logits: Tensor, drawn: Batch) -> dict[str, Tensor]:
        """logits: (B, K) of a batch of the target."""
        return {
            "entropy": entropy_loss(logits),
            "diversity": self.diversity * diversity_loss(logits),
        }
