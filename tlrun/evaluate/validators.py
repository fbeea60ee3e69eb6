"""Validators: scores of a model that need no target label. Higher is always better.

Each is a function of the predictions on the splits that it names, and is computed at every
evaluation; selection is a separate, pure function over the logged rows (selection.py).

    @validator("my_score", reads=("target_val",))
    def my_score(sets):
        return float(sets["target_val"].logits.max(1).values.mean())

p below are the softmax probabilities (n, K) and H the entropy in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tlrun.errors import ConfigError
from tlrun.evaluate.density_ratio import density_ratio
from tlrun.evaluate.metrics import accuracy
from tlrun.fp32 import in_fp32

SND_TEMPERATURE = 0.05
MCC_TEMPERATURE = 2.5


@dataclass
class SetOutput:
    """What the model says about one split: features (n, D), logits (n, K), labels (n,) or None."""

    features: Tensor
    logits: Tensor
    labels: Tensor | None = None

    def subset(self, index: Tensor) -> SetOutput:
        labels = None if self.labels is None else self.labels[index]
        return replace(
            self, features=self.features[index], logits=self.logits[index], labels=labels
        )


Sets = Mapping[str, SetOutput]


@dataclass(frozen=True)
class Validator:
    """score(sets) -> float. reads: splits it needs. needs_labels: of the source among them.
    quadratic: cost grows with the square of the images, or a model is fitted to them, so it sees at
    most `max_images` of each split."""

    name: str
    score: Callable[[Sets], float]
    reads: tuple[str, ...]
    needs_labels: bool = False
    quadratic: bool = False


VALIDATORS: dict[str, Validator] = {}


def validator(
    name: str,
    *,
    reads: tuple[str, ...] = ("target_val",),
    needs_labels: bool = False,
    quadratic: bool = False,
) -> Callable[[Callable[[Sets], float]], Callable[[Sets], float]]:
    """Register a function of {split: SetOutput}. Labels of the target cannot be asked for: with
    needs_labels it gets those of the source, and the target's images without theirs."""
    if needs_labels and all(split.startswith("target") for split in reads):
        raise ConfigError(f"validator '{name}' must not read target labels: let it read source_val")

    def register(score: Callable[[Sets], float]) -> Callable[[Sets], float]:
        VALIDATORS[name] = Validator(name, score, reads, needs_labels, quadratic)
        return score

    return register


@in_fp32
def compute_validators(sets: Sets, max_images: int, seed: int) -> dict[str, float | None]:
    """Every registered validator; None where its splits are absent, or scores or outputs are not
    finite.

    The images of the quadratic ones are drawn once per seed: the same at every evaluation of a run.
    """
    values: dict[str, float | None] = {}
    few = {s: _at_most(p, max_images, seed) for s, p in sets.items()}  # once: ratios are remembered
    for v in VALIDATORS.values():
        given = {split: sets[split] for split in v.reads if split in sets}
        usable = len(given) == len(v.reads) and all(_sound(p) for p in given.values())
        # A target label never reaches a validator, not even by mistake.
        labelled = {s for s in given if v.needs_labels and not s.startswith("target")}
        if not usable or any(given[s].labels is None for s in labelled):
            values[v.name] = None
            continue
        given = {s: few[s] if v.quadratic else p for s, p in given.items()}
        given = {s: p if s in labelled else replace(p, labels=None) for s, p in given.items()}
        score = v.score(given)
        values[v.name] = score if math.isfinite(score) else None
    return values


@validator("source_accuracy", reads=("source_val",), needs_labels=True)
def source_accuracy(sets: Sets) -> float:
    """Share of right predictions on the source's validation images."""
    source = sets["source_val"]
    assert source.labels is not None
    return accuracy(source.logits.argmax(1), source.labels)


@validator("entropy")
def entropy(sets: Sets) -> float:
    """−mean H(p): confidence. Best when all images fall in one class, so not for use alone."""
    return -_mean_entropy(_probabilities(sets["target_val"]))


@validator("diversity")
def diversity(sets: Sets) -> float:
    """H(mean p): how evenly the classes are used, whether rightly or not."""
    return float(torch.special.entr(_probabilities(sets["target_val"]).mean(0)).sum())


@validator("information_maximization")
def information_maximization(sets: Sets) -> float:
    """H(mean p) − mean H(p): confident and diverse (Shi & Sha 2012; Liang et al. 2020)."""
    return diversity(sets) + entropy(sets)


@validator("bnm")
def bnm(sets: Sets) -> float:
    """‖p‖_* / n, the nuclear norm of p (Cui et al. 2020), from the K x K Gram matrix."""
    p = _probabilities(sets["target_val"])
    eigenvalues = torch.linalg.eigvalsh(p.T @ p)
    return float(eigenvalues.clamp_min(0).sqrt().sum()) / len(p)


@validator("snd", quadratic=True)
def snd(sets: Sets) -> float:
    """Soft neighbourhood density (Saito et al., ICCV 2021): mean entropy of softmax(u uᵀ / 0.05).

    u: the softmax outputs p, each divided by its length; an image is no neighbour of itself. High
    when images lie in dense neighbourhoods, so at its highest, ln(n − 1), when all outputs are the
    same. Their code gives the diagonal −1/0.05 where it is left out here, a weight below e⁻²⁰.
    """
    u = F.normalize(_probabilities(sets["target_val"]), dim=1)
    similarity = u @ u.T / SND_TEMPERATURE
    similarity.fill_diagonal_(-torch.inf)
    return _mean_entropy(similarity.softmax(1))


@validator("mcc")
def mcc(sets: Sets) -> float:
    """−class confusion (Jin et al., ECCV 2020) of all target images: trace(C̃) / K − 1, in [−1, 0].

    C = pᵀ diag(1 + e^−H) p with softmax at T = 2.5, C̃: its rows divided by their sums (in which the
    scale of the weights cancels). A collapsed model scores low: the row of an unused class is all
    confusion. The loss of a batch, where a class may be missing, counts such a row as none.
    """
    p = (sets["target_val"].logits.double() / MCC_TEMPERATURE).softmax(1)
    weights = 1 + torch.exp(-torch.special.entr(p).sum(1, keepdim=True))
    confusion = (weights * p).T @ p
    # A class that never gets any probability at all counts as wholly confused.
    agreed = confusion.diagonal() / confusion.sum(1).clamp_min(torch.finfo(p.dtype).tiny)
    return float(agreed.mean()) - 1


@validator("iwcv", reads=("source_val", "target_val"), needs_labels=True, quadratic=True)
def iwcv(sets: Sets) -> float:
    """Importance-weighted validation (Sugiyama et al., JMLR 2007): mean w(x) · [prediction right].

    Unbiased for target accuracy if the domains differ in p(x) only, overlap, and w is the true
    ratio of their densities. The weights are not normalised, so it may exceed 1.
    """
    weights, right = _weighted(sets)
    return float((weights * right).mean())


@validator("dev", reads=("source_val", "target_val"), needs_labels=True, quadratic=True)
def dev(sets: Sets) -> float:
    """Deep embedded validation (You et al., ICML 2019): `iwcv` with w as its control variate.

    mean(a) + η (mean(w) − 1), a = w · [right], η = −Cov(a, w) / Var(w): the mean of w should be 1,
    and what it misses tells how far off mean(a) is. It is 1 − their risk under the 0-1 loss.
    """
    weights, right = _weighted(sets)
    weighted, spread = weights * right, weights - weights.mean()
    variance = (spread**2).mean()
    slope = -(weighted * spread).mean() / variance if variance > 0 else variance
    return float(weighted.mean() + slope * (weights.mean() - 1))


@validator("reverse_validation", reads=("source_val", "target_val"), needs_labels=True)
def reverse_validation(sets: Sets) -> float:
    """Accuracy on the source of a classifier that learned from the target's predicted labels alone.

    Zhong et al. (ECML PKDD 2010); Ganin et al. (JMLR 2016, section 5.1.2) retrain the whole net on
    these labels. Here the features stay as they are and the reverse classifier is the nearest
    class mean by cosine, so that it costs no training at every evaluation.
    """
    source, target = sets["source_val"], sets["target_val"]
    assert source.labels is not None
    sums, counts = _class_sums(_unit(target.features), target.logits)
    similarity = _unit(source.features) @ F.normalize(sums, dim=1).T
    similarity[:, counts == 0] = -torch.inf
    return accuracy(similarity.argmax(1), source.labels)


@validator("class_cluster")
def class_cluster(sets: Sets) -> float:
    """Mean silhouette (Rousseeuw 1987) of the predicted classes in target features, in [−1, 1].

    s = (b − a) / max(a, b); a: mean cosine distance to the others of the own class, b: to the
    nearest other class. Alone in its class: 0. Means of cosines are cosines with sums, so no n x n
    matrix is needed. NaN for fewer than two predicted classes, or features that are all the same.
    """
    target = sets["target_val"]
    f = _unit(target.features)
    sums, counts = _class_sums(f, target.logits)
    if (counts > 0).sum() < 2 or (f - f[0]).abs().max() < 1e-9:
        return math.nan
    own = target.logits.argmax(1, keepdim=True)
    distances = counts - f @ sums.T  # (n, K): summed over the class
    among = counts[own[:, 0]] - 1
    itself = 1 - (f * f).sum(1)  # 0, but 1 for features of 0
    a = (distances.gather(1, own)[:, 0] - itself) / among.clamp_min(1)
    others = (distances / counts.clamp_min(1)).masked_fill(counts == 0, torch.inf)
    b = others.scatter(1, own, torch.inf).min(1).values
    silhouette = (b - a) / torch.maximum(a, b).clamp_min(1e-9)
    return float(torch.where(among > 0, silhouette, 0.0).mean())


def _weighted(sets: Sets) -> tuple[Tensor, Tensor]:
    """(weights, 1 where the prediction is right) of the source's images that have a label."""
    source = sets["source_val"]
    assert source.labels is not None
    known = source.labels >= 0
    weights = density_ratio(source.features, sets["target_val"].features)[known]
    return weights, (source.logits.argmax(1) == source.labels)[known].double()


def _class_sums(features: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """((K, D), (K,)): sum of the features, and how many there are, by predicted class."""
    chosen = F.one_hot(logits.argmax(1), logits.shape[1]).to(features)
    return chosen.T @ features, chosen.sum(0)


def _unit(features: Tensor) -> Tensor:
    """Each of length 1, float64."""
    return F.normalize(features.double(), dim=1)


def _sound(p: SetOutput) -> bool:
    """Whether there are examples and only finite numbers (on which eigenvalues would fail)."""
    return len(p.logits) > 0 and bool(p.logits.isfinite().all() and p.features.isfinite().all())


def _probabilities(predictions: SetOutput) -> Tensor:
    return predictions.logits.double().softmax(1)


def _mean_entropy(p: Tensor) -> float:
    return float(torch.special.entr(p).sum(1).mean())


def _at_most(predictions: SetOutput, count: int, seed: int) -> SetOutput:
    n = len(predictions.logits)
    if n <= count:
        return predictions
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:count]
    return predictions.subset(drawn.to(predictions.logits.device))
