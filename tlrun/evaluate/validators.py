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
from tlrun.evaluate.metrics import accuracy

SND_TEMPERATURE = 0.05


@dataclass
class Predictions:
    """What the model says about one split: features (n, D), logits (n, K), labels (n,) or None."""

    features: Tensor
    logits: Tensor
    labels: Tensor | None = None

    def subset(self, index: Tensor) -> Predictions:
        labels = None if self.labels is None else self.labels[index]
        return replace(
            self, features=self.features[index], logits=self.logits[index], labels=labels
        )


Sets = Mapping[str, Predictions]


@dataclass(frozen=True)
class Validator:
    """score(sets) -> float. reads: splits it needs. needs_labels: of those splits. quadratic: cost
    grows with the square of the images, so it sees at most `max_images` of them."""

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
    """Register a function of {split: Predictions}. Labels of the target cannot be asked for."""
    if needs_labels and any(split.startswith("target") for split in reads):
        raise ConfigError(f"validator '{name}' must not read target labels: let it read source_val")

    def register(score: Callable[[Sets], float]) -> Callable[[Sets], float]:
        VALIDATORS[name] = Validator(name, score, reads, needs_labels, quadratic)
        return score

    return register


def compute_validators(sets: Sets, max_images: int, seed: int) -> dict[str, float | None]:
    """Every registered validator; None where its splits are absent, or scores or outputs are not
    finite.

    The images of the quadratic ones are drawn once per seed: the same at every evaluation of a run.
    """
    values: dict[str, float | None] = {}
    for v in VALIDATORS.values():
        given = {split: sets[split] for split in v.reads if split in sets}
        usable = len(given) == len(v.reads) and all(_sound(p) for p in given.values())
        if not usable or (v.needs_labels and any(p.labels is None for p in given.values())):
            values[v.name] = None
            continue
        # A target label never reaches a validator, not even by mistake.
        given = {s: p if v.needs_labels else replace(p, labels=None) for s, p in given.items()}
        if v.quadratic:
            given = {s: _at_most(p, max_images, seed) for s, p in given.items()}
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
    """Soft neighbourhood density (Saito et al. 2021): mean entropy of softmax(f fᵀ / 0.05), no self
    pairs.

    f: features of the target, each of length 1. High when images lie in dense neighbourhoods; like
    `entropy` it can be high for a collapsed model.
    """
    f = F.normalize(sets["target_val"].features.double(), dim=1)
    similarity = f @ f.T / SND_TEMPERATURE
    similarity.fill_diagonal_(-torch.inf)
    return _mean_entropy(similarity.softmax(1))


def _sound(p: Predictions) -> bool:
    """Whether there are examples and only finite numbers (on which eigenvalues would fail)."""
    return len(p.logits) > 0 and bool(p.logits.isfinite().all() and p.features.isfinite().all())


def _probabilities(predictions: Predictions) -> Tensor:
    return predictions.logits.double().softmax(1)


def _mean_entropy(p: Tensor) -> float:
    return float(torch.special.entr(p).sum(1).mean())


def _at_most(predictions: Predictions, count: int, seed: int) -> Predictions:
    n = len(predictions.logits)
    if n <= count:
        return predictions
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:count]
    return predictions.subset(drawn.to(predictions.logits.device))
