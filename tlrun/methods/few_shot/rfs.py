"""RFS: logistic regression on the support, solved to its end, on features of length 1.

    min over f, h:  E_base CE(h(f(x)), y)                       plain batches, no episodes
    for an episode: min over W, b:  ½ ‖W‖² + C Σ_support CE(W z + b, y),   z = f(x) / ‖f(x)‖

Tian, Wang, Krishnan, Tenenbaum and Isola, "Rethinking Few-Shot Image Classification: A Good
Embedding Is All You Need?", ECCV 2020, without its distillation. `baseline` fits the same kind of
head by a fixed number of gradient steps on features as they are. The solver is scikit-learn's;
of two classes it learns one vector, w_1 − w_0, with its own decay.
x: (B, C, H, W); y: (B,) int64 of the base classes.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tlrun.config.ranges import BelowOne, Positive
from tlrun.methods.few_shot.baseline import Baseline
from tlrun.models.net import Net

MOST_ITERATIONS, TOLERANCE = 1000, 1e-6


class RFS(Baseline):
    """c: C, the inverse of the weight decay.

    label_smoothing: share in [0, 1) that is spread over the base classes.
    """

    def __init__(self, c: Positive = 1.0, label_smoothing: BelowOne = 0.0) -> None:
        super().__init__(label_smoothing=label_smoothing)
        self.c = c

    def classify(self, net: Net, query: Tensor, support: Tensor, y: Tensor) -> Tensor:
        """Scores are log p(k | x): their softmax is p itself."""
        labels = y.cpu().numpy()
        asked, given = (F.normalize(x, dim=2).detach().cpu().double() for x in (query, support))
        found = [
            LogisticRegression(C=self.c, tol=TOLERANCE, max_iter=MOST_ITERATIONS)
            .fit(b.numpy(), labels)
            .predict_log_proba(a.numpy())
            for a, b in zip(asked, given, strict=True)
        ]
        return torch.from_numpy(np.stack(found)).to(query)
