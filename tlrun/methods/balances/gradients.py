"""Balances that act on gradients, through torchjd (`pip install 'tlrun[mtl]'`).

For the parameters that more than one task reaches, the rows of J (T, n) are the gradients of the
task losses and the update is A(J); a parameter that one task alone reaches (its head) gets its
plain gradient. A is one of

    pcgrad        Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020
    mgda          Désidéri 2012; Sener and Koltun, NeurIPS 2018: the shortest convex combination
    cagrad        Liu et al., "Conflict-averse gradient descent", NeurIPS 2021
    imtl_g        Liu et al., "Towards impartial multi-task learning", ICLR 2021
    aligned_mtl   Senushkin et al., "Independent component alignment", CVPR 2023
    upgrad        Quinton and Rey, "Jacobian descent for multi-objective optimization", 2024
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tlrun.config.ranges import NotNegative
from tlrun.errors import ConfigError
from tlrun.methods.balances.base import Balance
from tlrun.models.net import Net

MISSING = "this balance needs torchjd: pip install 'tlrun[mtl]'"


class JacobianBalance(Balance):
    """aggregate: A, of J (T, n) in fp32 -> (n,)."""

    several_processes = False  # A of a part of the batch is not that part of A

    def aggregate(self, jacobian: Tensor) -> Tensor:
        raise NotImplementedError

    def combine(
        self, losses: dict[str, Tensor], net: Net, parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rows = [
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            for loss in losses.values()
        ]
        reached = [sum(g is not None for g in column) for column in zip(*rows, strict=True)]
        shared = [i for i, count in enumerate(reached) if count > 1]
        jacobian = torch.stack(
            [
                torch.cat([_or_zero(row[i], parameters[i]).flatten() for i in shared])
                if shared
                else torch.zeros(0)
                for row in rows
            ]
        )
        found: dict[int, Tensor] = {
            i: next(row[i] for row in rows if row[i] is not None)
            for i, count in enumerate(reached)
            if count == 1
        }
        if shared:
            sizes = [parameters[i].numel() for i in shared]
            flat = self.aggregate(jacobian.float()).split(sizes)
            found |= {i: g.view_as(parameters[i]) for i, g in zip(shared, flat, strict=True)}
        # a scalar with just that gradient: the engine scales, averages and clips it as any other
        value = torch.stack([(parameters[i] * g.detach()).sum() for i, g in found.items()]).sum()
        return value, {}


class GradientBalance(JacobianBalance):
    """aggregator: the class in torchjd.aggregation; options: its arguments."""

    def __init__(self, aggregator: str, **options: Any) -> None:
        try:
            from torchjd import aggregation

            self.aggregate = getattr(aggregation, aggregator)(**options)  # type: ignore[method-assign]
        except ImportError as error:  # torchjd itself, or what the aggregator needs
            raise ConfigError(MISSING) from error


def _or_zero(gradient: Tensor | None, parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient


class PCGrad(GradientBalance):
    """No argument."""

    def __init__(self) -> None:
        super().__init__("PCGrad")


class MGDA(GradientBalance):
    """No argument."""

    def __init__(self) -> None:
        super().__init__("MGDA")


class CAGrad(GradientBalance):
    """c: how far the update may lie from the mean gradient, in [0, 1)."""

    def __init__(self, c: NotNegative = 0.5) -> None:
        super().__init__("CAGrad", c=c)


class IMTLG(GradientBalance):
    """No argument."""

    def __init__(self) -> None:
        super().__init__("IMTLG")


class AlignedMTL(GradientBalance):
    """No argument."""

    def __init__(self) -> None:
        super().__init__("AlignedMTL")


class UPGrad(GradientBalance):
    """No argument."""

    def __init__(self) -> None:
        super().__init__("UPGrad")
