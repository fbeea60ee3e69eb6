"""Optimal transport between two batches. Pure functions, in fp32; the plan is scipy's, exact.

Damodaran, Kellenberger, Flamary, Tuia and Courty, "DeepJDOT: deep joint distribution optimal
transport for unsupervised domain adaptation", ECCV 2018, eq. 6 and 7.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from tlrun.fp32 import in_fp32


@in_fp32
def label_costs(labels: Tensor, logits: Tensor) -> Tensor:
    """CE(y_s,i, p_t,j) = −log p_t,j[y_s,i]. labels: (B,) int64, logits: (B', K) -> (B, B')."""
    return -logits.log_softmax(1)[:, labels].T


@in_fp32
def optimal_coupling(cost: Tensor) -> Tensor:
    """argmin over γ of Σ_ij γ_ij c_ij with rows and columns that sum to 1/B.

    cost: (B, B) -> (B, B) float32 without gradient. Between two uniform sets of the same size a
    permutation (times 1/B) is optimal (Birkhoff and von Neumann), so the plan is a linear
    assignment, solved on the CPU. Raises ValueError for sets of other sizes. A cost that is not
    finite counts as 0: the loss itself will tell.
    """
    count, other = cost.shape
    if count != other:
        raise ValueError(
            f"optimal transport needs as many source images as target's: {count}, {other}"
        )
    table = torch.nan_to_num(cost.detach(), posinf=0.0, neginf=0.0)
    rows, columns = linear_sum_assignment(table.cpu().numpy())
    plan = torch.zeros_like(table)
    plan[torch.as_tensor(rows), torch.as_tensor(columns)] = 1 / count
    return plan
