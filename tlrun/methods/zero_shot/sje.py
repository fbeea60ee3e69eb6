"""SJE: structured joint embedding, the bilinear model with one hinge, on the worst class.

Akata, Reed, Walter, Lee, Schiele, "Evaluation of Output Embeddings for Fine-Grained Image
Classification", CVPR 2015, eq. 3-4:

    F(x, y) = x̂ᵀ W φ(y),     loss = max_{y ≠ y_n} max(0, margin + F(x_n, y) − F(x_n, y_n))

Phases, shapes and scaling as in DeViSE (devise.py). Published T1 on AWA2's proposed split: 61.9,
H 14.4 (Xian et al., TPAMI 2018).
"""

from __future__ import annotations

from torch import Tensor

from tlrun.methods.zero_shot.devise import DeViSE


class SJE(DeViSE):
    """margin: by which the right class must win, in units of F."""

    def hinge(self, violation: Tensor) -> Tensor:
        return violation.amax(1).mean()
