"""Figures of a classification, from predicted and true class indices.

predictions, labels: (n,) int64; a label below 0 means unknown and is left out. Floats are shares in
[0, 1], NaN where there is nothing to count.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Share of right predictions."""
    labelled = labels >= 0
    return float((predictions == labels)[labelled].double().mean())


def counts_by_class(predictions: Tensor, labels: Tensor, num_classes: int) -> list[Tensor]:
    """(K,) int64 each: how often a class is recognised (TP), is the true one, and is predicted.

    The diagonal and the sums of the confusion matrix, which itself is of 800 MB for 10,000 classes.
    """
    labelled = labels >= 0
    predictions, labels = predictions[labelled], labels[labelled]
    right = labels[predictions == labels]
    return [torch.bincount(of, minlength=num_classes) for of in (right, labels, predictions)]


def per_class_accuracy(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(K,) float64: recall of every class, NaN for a class without examples."""
    right, true, _ = counts_by_class(predictions, labels, num_classes)
    return right.double() / true


def balanced_accuracy(predictions: Tensor, labels: Tensor, num_classes: int) -> float:
    """Mean recall over the classes that have examples."""
    return float(per_class_accuracy(predictions, labels, num_classes).nanmean())


def macro_f1(predictions: Tensor, labels: Tensor, num_classes: int) -> float:
    """Mean of F1 = 2 TP / (2 TP + FP + FN) over the classes that are labelled or predicted."""
    right, true, predicted = counts_by_class(predictions, labels, num_classes)
    return float((2 * right.double() / (true + predicted)).nanmean())


def iou(boxes: Tensor, truth: Tensor) -> Tensor:
    """(n,) intersection over union of boxes (n, 4) = (left, top, right, bottom), in any one unit.

    A box whose sides are crossed has no area. NaN in `truth` (unknown) gives NaN.
    """
    low = torch.maximum(boxes[:, :2], truth[:, :2])
    high = torch.minimum(boxes[:, 2:], truth[:, 2:])
    both = (high - low).clamp_min(0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).clamp_min(0).prod(1) for b in (boxes, truth)]
    return both / (areas[0] + areas[1] - both).clamp_min(1e-12)


def box_values(boxes: Tensor, truth: Tensor) -> dict[str, float]:
    """Mean iou, the share with iou ≥ 0.5, and the mean absolute error as `loss`; NaN left out."""
    has_truth = ~truth.isnan().any(1)
    overlaps = iou(boxes[has_truth].double(), truth[has_truth].double())
    return {
        "iou": float(overlaps.mean()),
        "iou_50": float((overlaps >= 0.5).double().mean()),
        "loss": float((boxes[has_truth] - truth[has_truth]).abs().mean()),
    }


def delta_m(
    figures: Mapping[str, float], alone: Mapping[str, float], lower_is_better: Collection[str] = ()
) -> float:
    """Δm = 1/T Σ_t (−1)^(l_t) (M_t − S_t) / S_t over the tasks of both; NaN without any.

    figures: M_t of the joint model; alone: S_t of models of one task each; l_t = 1 where lower is
    better. Maninis et al., "Attentive single-tasking of multiple tasks", CVPR 2019.
    """
    gains = [
        (-1 if task in lower_is_better else 1) * (figures[task] - alone[task]) / alone[task]
        for task in figures
        if alone.get(task)
    ]
    return sum(gains) / len(gains) if gains else math.nan


def effective_classes(predictions: Tensor, num_classes: int) -> float:
    """exp(entropy) of the histogram of predictions: 1 for one class, K if spread evenly."""
    share = torch.bincount(predictions, minlength=num_classes).double() / len(predictions)
    return float(torch.special.entr(share).sum().exp())
