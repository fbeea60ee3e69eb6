"""Figures of a classification, from predicted and true class indices.

predictions, labels: (n,) int64; a label below 0 means unknown and is left out. Floats are shares in
[0, 1], NaN where there is nothing to count.
"""

from __future__ import annotations

import torch
from torch import Tensor


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Share of right predictions."""
    known = labels >= 0
    return float((predictions == labels)[known].double().mean())


def confusion(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(K, K) int64: row = true class, column = predicted class."""
    known = labels >= 0
    cell = labels[known] * num_classes + predictions[known]
    return torch.bincount(cell, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_accuracy(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(K,) float64: recall of every class, NaN for a class without examples."""
    table = confusion(predictions, labels, num_classes).double()
    return table.diagonal() / table.sum(1)


def balanced_accuracy(predictions: Tensor, labels: Tensor, num_classes: int) -> float:
    """Mean recall over the classes that have examples."""
    return float(per_class_accuracy(predictions, labels, num_classes).nanmean())


def macro_f1(predictions: Tensor, labels: Tensor, num_classes: int) -> float:
    """Mean of F1 = 2 TP / (2 TP + FP + FN) over the classes that are labelled or predicted."""
    table = confusion(predictions, labels, num_classes).double()
    return float((2 * table.diagonal() / (table.sum(0) + table.sum(1))).nanmean())


def effective_classes(predictions: Tensor, num_classes: int) -> float:
    """exp(entropy) of the histogram of predictions: 1 for one class, K if spread evenly."""
    share = torch.bincount(predictions, minlength=num_classes).double() / len(predictions)
    return float(torch.special.entr(share).sum().exp())
