"""Optimal transport between two batches. Pure functions, in fp32; the plan is scipy's, exact.

Damodaran, Kellenberger, Flamary, Tuia and Courty, "DeepJDOT: deep joint distribution optimal
transport for unsupervised domain adaptation", ECCV 2018, eq. 6 and 7.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from tlrun.fp32 import in_fp32


@in_fp32
def label_costs(labels: Tensor, logits: Tensor) -> Tensor:
    """CE(y_s,i, p_t,j) = −log p_t,j[y_s,i]. labels: (B,) int64, logits: (B', K) -> (B, B')."""
    return -logits.log_softmax(1)[:, labels].T


@in_fp32
def optimal_coupling(cost: Tensor, parts: Tensor | None = None) -> Tensor:
    """argmin over γ of Σ_ij γ_ij c_ij, where column j sums to 1/B and row i to parts[i]/B.

    cost: (B, B) -> (B, B) float32 without gradient. parts: (B,) int64 that sum to B, by default
    ones. Between two uniform sets of the same size a permutation (times 1/B) is optimal (Birkhoff
    and von Neumann), so the plan is a linear assignment, solved on the CPU; a row of n parts stands
    n times in it. Raises ValueError for sets of other sizes. A cost that is not finite counts as 0:
    the loss itself will tell.
    """
    count, other = cost.shape
    if count != other:
        raise ValueError(
            f"optimal transport needs as many source images as target's: {count}, {other}"
        )
    table = torch.nan_to_num(cost.detach(), posinf=0.0, neginf=0.0)
    plan = torch.zeros_like(table)
    who = torch.arange(count)
    if parts is not None:
        who = who.repeat_interleave(parts.cpu())
    rows, columns = linear_sum_assignment(table.cpu()[who].numpy())
    plan[who[torch.as_tensor(rows)], torch.as_tensor(columns)] = 1 / count
    return plan


def parts_of_classes(labels: Tensor, shares: Tensor) -> Tensor:
    """How many of B equal parts each source image gets, so that its class has its share of them.

    labels: (B,) int64; shares: (K,) at least 0, of classes -> (B,) int64 that sum to B. Shares of
    classes without an image in the batch fall to the others. The parts of a class are its share of
    B, rounded so that all sum to B (largest remainders), and are dealt to its images in turn.
    """
    count, classes = len(labels), labels.cpu().numpy()
    present, sizes = np.unique(classes, return_counts=True)
    wanted = shares.detach().double().cpu().numpy()[present]
    if wanted.sum() <= 0:  # of all classes that are there none is thought to be in the target
        wanted = sizes.astype(float)
    wanted = wanted / wanted.sum() * count
    whole = np.floor(wanted).astype(int)
    whole[np.argsort(whole - wanted, kind="stable")[: count - whole.sum()]] += 1
    parts = np.zeros(count, dtype=np.int64)
    for c, size, total in zip(present, sizes, whole, strict=True):
        parts[classes == c] = total // size + (np.arange(size) < total % size)
    return torch.from_numpy(parts)
