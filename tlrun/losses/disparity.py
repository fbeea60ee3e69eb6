"""How far two classifiers, or the moments of several domains, lie apart. All in fp32.

Saito et al., "Maximum Classifier Discrepancy for Unsupervised Domain Adaptation" (MCD), CVPR 2018;
Zhang et al., "Bridging Theory and Algorithm for Domain Adaptation" (MDD), ICML 2019; Peng et al.,
"Moment Matching for Multi-Source Domain Adaptation" (M3SDA), ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from tlrun.fp32 import in_fp32

SMALL = 1e-5  # added to variances, as in batch norm


@in_fp32
def discrepancy(a_logits: Tensor, b_logits: Tensor) -> Tensor:
    """mean |softmax(a) − softmax(b)| over images and classes (MCD).

    a_logits, b_logits: (B, K) of two heads on the same images -> scalar in [0, 2/K].
    """
    return (a_logits.softmax(1) - b_logits.softmax(1)).abs().mean()


@in_fp32
def unlikelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """mean −log(1 − p(label)): small where the label is thought improbable.

    logits: (B, K), K > 1; labels: (B,) int64 -> scalar. As log Σ_k e^(z_k) − log Σ_(k≠y) e^(z_k),
    which stays finite where p rounds to 1.
    """
    others = logits.masked_fill(one_hot(labels, logits.shape[1]).bool(), -torch.inf)
    return (logits.logsumexp(1) - others.logsumexp(1)).mean()


@in_fp32
def margin_disparity(
    auxiliary_source: Tensor,
    main_source: Tensor,
    auxiliary_target: Tensor,
    main_target: Tensor,
    gamma: float,
) -> Tensor:
    """γ · E_S CE(h'(x), ŷ) + E_T[ −log(1 − p_h'(ŷ|x)) ], ŷ = argmax h(x) (MDD).

    All (B, K) logits: of the auxiliary head h' and the main head h -> scalar. The auxiliary head
    makes it small: to agree with the main one on the source and to differ on the target. The
    features make it large, by a reversed gradient. The main head has no gradient here.
    """
    agree = cross_entropy(auxiliary_source, main_source.argmax(1))
    return gamma * agree + unlikelihood(auxiliary_target, main_target.argmax(1))


@in_fp32
def moment_distance(
    sources: Sequence[Tensor],
    target: Tensor,
    order: int = 5,
    centred: bool = True,
    standardised: bool = False,
    unbiased: bool = False,
) -> Tensor:
    """Σ_k [ mean_i ‖m_k(S_i) − m_k(T)‖₂ + mean_(i<j) ‖m_k(S_i) − m_k(S_j)‖₂ ], k = 1 .. order.

    sources: (B_i, D) of each, target: (B, D) -> scalar. m_1 is the mean over the batch; for k > 1
    m_k is E (x − m_1)^k of each feature, or with centred=False E x^k, which counts a difference of
    means again in every order. M3SDA's eq. 1 is not centred, its authors' code is.

    standardised: each feature first has mean 0 and variance 1 over the images of all domains
    together, so that no k outweighs the others by the features' scale, and to shrink them gains
    nothing. Ours; the paper supposes features in [0, 1].

    unbiased: instead of each length its square less what two batches of one domain would have,
    Σ_d var(x_d^k) / B of both, so that equal domains have 0 on average and not some noise that only
    less varied features lower. Ours too; may be negative, and needs two rows of each domain.
    """
    domains = [*sources, target]
    if standardised:
        domains = _standardised(domains)
    powers = [x - x.mean(0) for x in domains] if centred else domains
    total = torch.zeros((), device=target.device)
    for k in range(1, order + 1):
        values = domains if k == 1 else [x.pow(k) for x in powers]
        own, goal = values[:-1], values[-1]
        total = total + _mean_distance([(v, goal) for v in own], unbiased)
        total = total + _mean_distance(list(combinations(own, 2)), unbiased)
    return total


def _standardised(domains: Sequence[Tensor]) -> list[Tensor]:
    """(x − mean) / std of each feature over all domains together; a dead feature stays 0.

    domains: (B_i, D) float32 each.
    """
    together = torch.cat(list(domains))
    variance, mean = torch.var_mean(together, dim=0, correction=0)
    return [(x - mean) * (variance + SMALL).rsqrt() for x in domains]


def _mean_distance(pairs: Sequence[tuple[Tensor, Tensor]], unbiased: bool) -> Tensor | float:
    """Mean over pairs of ‖E a − E b‖₂, or an unbiased estimate of its square; 0 without a pair.

    a: (B, D), b: (B', D). The gradient of a length at 0 is 0, not NaN.
    """
    if not pairs:
        return 0.0
    apart = torch.stack([a.mean(0) - b.mean(0) for a, b in pairs])
    if not unbiased:
        return torch.linalg.vector_norm(apart, dim=1).mean()
    noise = torch.stack([a.var(0) / len(a) + b.var(0) / len(b) for a, b in pairs])
    return (apart.square() - noise).sum(1).mean()
