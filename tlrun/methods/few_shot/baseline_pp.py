"""Baseline++: as `baseline`, with cosines in place of inner products, which keeps classes compact.

    scores_k = s · cos(w_k, f(x))               for the base classes, and for those of an episode

Chen, Liu, Kira, Wang, Huang, "A Closer Look at Few-shot Classification", ICLR 2019: several points
above `baseline` with shallow nets. The new w_k start at the class means of the normalised support
(Qi, Brown, Lowe, "Low-Shot Learning with Imprinted Weights", CVPR 2018), where the paper draws them
at random, so the same support always gives the same head.
x: (B, C, H, W); y: (B,) int64 of the base classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tlrun.config.ranges import BelowOne, LearningRate, NotNegative, Positive, Size
from tlrun.data.problems.pair import Data
from tlrun.methods.base import Phase
from tlrun.methods.few_shot.baseline import Baseline
from tlrun.methods.few_shot.episodic import class_means
from tlrun.models.heads import CosineHead
from tlrun.models.net import Net


class BaselinePP(Baseline):
    """scale: s. The other arguments as for `baseline`."""

    joint = True

    def __init__(
        self,
        scale: Positive = 10.0,
        fit_steps: Size = 100,
        fit_lr: LearningRate = 0.1,
        fit_decay: NotNegative = 0.0,
        label_smoothing: BelowOne = 0.0,
    ) -> None:
        super().__init__(fit_steps, fit_lr, fit_decay, label_smoothing)
        self.scale = scale

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        head = CosineHead(net.feature_dim, len(data.source_classes), self.scale)
        net.add("classifier", head)

    def classify(self, net: Net, query: Tensor, support: Tensor, y: Tensor) -> Tensor:
        return self.prototype_scores(net, query, self.prototypes(net, support, y))

    def prototypes(self, net: Net, support: Tensor, y: Tensor) -> Tensor:
        support = F.normalize(support, dim=2)
        return self.fit(self._cosines, support, y, [class_means(support, y)])[0]

    def base_prototypes(self, net: Net, features: Tensor, y: Tensor) -> Tensor:
        """The w_k that training has learned."""
        weight: Tensor = net["classifier"].weight  # type: ignore[assignment]
        return weight.detach()

    def prototype_scores(self, net: Net, query: Tensor, prototypes: Tensor) -> Tensor:
        return self._cosines(F.normalize(query, dim=2), prototypes)

    def _cosines(self, x: Tensor, weight: Tensor) -> Tensor:
        """x: (E, M, D) of length 1, weight: (E, K, D) -> (E, M, K)."""
        return self.scale * torch.einsum("emd,ekd->emk", x, F.normalize(weight, dim=2))
