"""TIM: class means that move to where all queries of an episode are told apart surely and evenly.

    p_ik ∝ exp(−τ/2 ‖z_i − w_k‖²),   w_k = mean of z over the support of class k at the start
    min over w:  λ CE_support(p)  +  Σ_k p̂_k log p̂_k  −  α/|Q| Σ_i Σ_k p_ik log p_ik,   p̂ = mean_Q p

The last two are the mutual information of queries and answers. As the paper's TIM-ADM, q standing
for the answers of the queries, `iterations` times and in closed form:

    q_ik ∝ p_ik^(1+α) / (Σ_i p_ik^(1+α))^½
    w_k  ← [c Σ_S (y z + p (w_k − z)) + r Σ_Q (q z + p (w_k − z))] / [c Σ_S y + r Σ_Q q],
           c = λ / (1 + α),   r = |S| / |Q|

Boudiaf, Ziko, Rony, Dolz, Piantanida and Ben Ayed, "Transductive Information Maximization For
Few-Shot Learning", NeurIPS 2020, eq. 9 to 11. z and the training are those of `simple_shot`: the
paper scales to length 1 without centring. It is transductive, what is said of one query depends on
the others, and it takes classes to be about as frequent among the queries, as they are in episodes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tlrun.config.ranges import BelowOne, Count, NotNegative, Positive, Size
from tlrun.losses.distances import squared_distances
from tlrun.methods.few_shot.episodic import class_means
from tlrun.methods.few_shot.simple_shot import SimpleShot
from tlrun.models.net import Net


class TIM(SimpleShot):
    """temperature: τ. support_weight: λ. conditional_weight: α. iterations: updates of w.

    The other arguments as for `simple_shot`.
    """

    joint = False  # its answers are no scores of prototypes of the support

    def __init__(
        self,
        temperature: Positive = 15.0,
        support_weight: Positive = 0.1,
        conditional_weight: NotNegative = 0.1,
        iterations: Size = 150,
        images: Count = 10_000,
        label_smoothing: BelowOne = 0.0,
    ) -> None:
        super().__init__(images, label_smoothing)
        self.temperature, self.iterations = temperature, iterations
        self.support_weight, self.conditional_weight = support_weight, conditional_weight

    def classify(self, net: Net, query: Tensor, support: Tensor, y: Tensor) -> Tensor:
        asked, known = spanned(self.centred(net, query), self.centred(net, support))
        w = class_means(known, y)
        labels = F.one_hot(y).to(w).expand(len(known), -1, -1)
        c = self.support_weight / (1 + self.conditional_weight)
        r = known.shape[1] / asked.shape[1]
        for _ in range(self.iterations):
            p = self._log_p(asked, w).exp()
            q = self._answers(p)
            known_p = self._log_p(known, w).exp()
            pull = c * _pull(known, labels, known_p, w) + r * _pull(asked, q, p, w)
            w = pull / (c * labels.sum(1) + r * q.sum(1))[:, :, None]
        return self._log_p(asked, w)

    def _log_p(self, z: Tensor, w: Tensor) -> Tensor:
        """(E, n, way), of z (E, n, D) and w (E, way, D)."""
        return (-self.temperature / 2 * squared_distances(z, w)).log_softmax(2)

    def _answers(self, p: Tensor) -> Tensor:
        """q (E, Q, way), of p of the same shape."""
        sharp = p ** (1 + self.conditional_weight)
        q = sharp / sharp.sum(1, keepdim=True).clamp_min(1e-12).sqrt()
        return q / q.sum(2, keepdim=True)


def spanned(query: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """The same vectors (E, Q, D) and (E, M, D) in an orthonormal basis of their span where that is
    narrower than D: w stays in it, and no distance changes."""
    together = torch.cat([query, support], dim=1)
    if together.shape[1] < together.shape[2]:
        together = torch.linalg.qr(together.mT, mode="r").R.mT
    asked, known = together.split([query.shape[1], support.shape[1]], dim=1)
    return asked, known


def _pull(z: Tensor, y: Tensor, p: Tensor, w: Tensor) -> Tensor:
    """Σ_i (y_ik z_i + p_ik (w_k − z_i)): z (E, n, D), y and p (E, n, way), w (E, way, D)."""
    return torch.einsum("enk,end->ekd", y - p, z) + p.sum(1)[:, :, None] * w
