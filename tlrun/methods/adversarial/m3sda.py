"""M3SDA: the moments of the features alike in all sources and the target.

    min over f, h of   mean_i R_i  +  trade_off · Σ_k [ mean_i ‖m_k(S_i) − m_k(T)‖₂
                                                       + mean_(i<j) ‖m_k(S_i) − m_k(S_j)‖₂ ]

R_i is the cross-entropy of source i and m_k, k = 1 .. moments, the k-th moment of a batch's
features: (B, D), each by itself, of f(x) or of a later layer. Peng et al., "Moment matching for
multi-source domain adaptation", ICCV 2019, eq. 1 (k = 1, 2) and code (five, trade_off = 0.0005, the
features that enter the last linear layer, behind batch norm); without M3SDA-β (heads for each
source, driven apart and together as in MCD): one head serves all sources.
x: (B, C, H, W) of each domain; y: (B,) int64.
Published on Digits-Five, MNIST-M as the target: 69.8 (M3SDA), 72.8 (M3SDA-β).
"""

from __future__ import annotations

from collections.abc import Iterator

from tlrun.config.ranges import Repeats, Weight
from tlrun.data.problems.pair import Data
from tlrun.losses.disparity import moment_distance
from tlrun.methods.adversarial.multi_source_adaptation import MultiSourceAdaptation, sources_of
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.batch_norm_forward import domain_outputs
from tlrun.methods.discrepancy.layer_discrepancy import activation, check_several, taps_of
from tlrun.methods.generalisation.multi_source import risks
from tlrun.models.net import Net


class M3SDA(MultiSourceAdaptation):
    """trade_off: of the distance. moments: the highest one. centred: whether those from the second
    on are about the batch's mean, as in the authors' code, or plain, as in the paper's equation.
    standardised: whether each feature is first brought to mean 0 and variance 1 over all domains
    together. unbiased: whether a distance is squared and freed of what two batches of one domain
    would have. layer: "features", "logits" or a stage ("classifier.fc1").
    """

    needs_images = False

    def __init__(
        self,
        trade_off: Weight = 0.0005,
        moments: Repeats = 5,
        centred: bool = True,
        standardised: bool = False,
        unbiased: bool = False,
        layer: str = "features",
    ) -> None:
        self.trade_off, self.moments, self.centred = trade_off, moments, centred
        self.standardised, self.unbiased, self.layer = standardised, unbiased, layer
        self.taps = taps_of([layer])

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        super().build(phase, net, data)
        for stage in self.taps:
            net.width_of(stage)  # a clear error for a stage that is not there

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        out = self.forward(net, batch)
        sources = sources_of(batch)
        shown = {name: activation(part, self.layer) for name, part in out.items()}
        check_several(*shown.values())
        apart = moment_distance(
            [shown[name] for name in sources],
            shown["target"],
            self.moments,
            self.centred,
            self.standardised,
            self.unbiased,
        )
        losses = {"classification": risks(out, sources).mean(), "moments": self.trade_off * apart}
        yield Update(losses, outputs=domain_outputs(batch, out), metrics={"moment_distance": apart})
