"""Experts behind a shared backbone, and gates that mix them for each task: MMoE, CGC and PLE.

    y_t = Σ_i softmax(W_t u)_i E_i(u),      E_i(u) = ReLU(A_i u + b_i)

u are the features (B, D), E_i the experts that task t may use. MMoE (Ma et al., "Modeling task
relationships in multi-task learning with multi-gate mixture-of-experts", KDD 2018, eq. 5-7): all
experts are shared. CGC (Tang et al., "Progressive layered extraction", RecSys 2020, eq. 1-4): some
are shared, and each task has further ones that no other task uses. PLE puts several levels on each
other: a task's experts and gate of the next level are given y_t, the shared ones the mixture of a
shared gate over all experts of this level.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tlrun.fp32 import in_fp32

SHARED = ""  # in place of a task: the experts of all


class Gate(nn.Module):
    """u (B, D) -> the weights of `experts` experts, (B, experts), which add up to 1 in each row."""

    def __init__(self, in_dim: int, experts: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, experts, bias=False)

    @in_fp32
    def forward(self, u: Tensor) -> Tensor:
        return self.linear(u).softmax(1)


class Level(nn.Module):
    """One extraction: inputs by task and SHARED -> mixtures by task, and by SHARED unless last.

    in_dim: of all inputs. units: of every expert. shared, own: numbers of experts, of all and of
    each task.
    """

    def __init__(
        self, tasks: Sequence[str], in_dim: int, units: int, shared: int, own: int, last: bool
    ) -> None:
        super().__init__()
        self.tasks = list(tasks)
        counts = dict.fromkeys(self.tasks, own) | {SHARED: shared}
        self.experts = nn.ModuleDict(
            {
                key(name): nn.ModuleList(expert(in_dim, units) for _ in range(count))
                for name, count in counts.items()
            }
        )
        self.gates = nn.ModuleDict({key(t): Gate(in_dim, own + shared) for t in self.tasks})
        if not last:
            self.gates[key(SHARED)] = Gate(in_dim, own * len(self.tasks) + shared)

    def forward(self, inputs: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
        """inputs: (B, in_dim) each. wanted: of which tasks, or SHARED, the mixtures are needed."""
        wanted = list(wanted)
        needed = [*self.tasks, SHARED] if SHARED in wanted else [*wanted, SHARED]
        made = {
            name: [one(inputs[name]) for one in self._experts_of(name)]
            for name in dict.fromkeys(needed)
        }
        everything = [*self.tasks, SHARED]
        return {
            name: mixture(
                self.gates[key(name)](inputs[name]),
                [h for of in (everything if name == SHARED else (name, SHARED)) for h in made[of]],
            )
            for name in wanted
        }

    def _experts_of(self, name: str) -> Iterable[nn.Module]:
        experts = self.experts[key(name)]
        assert isinstance(experts, nn.ModuleList)
        return experts


class Experts(nn.Module):
    """Levels of experts: features (B, in_dim) -> what each task's head is given, (B, units).

    own=0 and levels=1 is MMoE, levels=1 CGC, more of them PLE.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        in_dim: int,
        units: int,
        shared: int,
        own: int = 0,
        levels: int = 1,
    ) -> None:
        super().__init__()
        self.tasks, self.feature_dim = list(tasks), units
        self.levels = nn.ModuleList(
            Level(tasks, units if i else in_dim, units, shared, own, i == levels - 1)
            for i in range(levels)
        )

    def forward(self, features: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """features: (B, in_dim) of the backbone. tasks: those whose mixtures are wanted."""
        now = dict.fromkeys([*self.tasks, SHARED], features)
        for level in self.levels[:-1]:
            now = level(now, [*self.tasks, SHARED])
        mixtures: dict[str, Tensor] = self.levels[-1](now, tasks)
        return mixtures


def key(task: str) -> str:
    """The name of a task's experts and gate among the parameters."""
    return f"task_{task}" if task else "shared"


def expert(in_dim: int, units: int) -> nn.Module:
    return nn.Sequential(nn.Linear(in_dim, units), nn.ReLU())


@in_fp32
def mixture(weights: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """Σ_i w_i h_i. weights: (B, n); experts: n of (B, units)."""
    return torch.einsum("bn,nbu->bu", weights, torch.stack(list(experts)))
