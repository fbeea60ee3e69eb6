"""Which layers are carried over, which start anew, which are held still: `transfer.*` and `init`.

Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014: which
layers to carry over depends on the task, so each of the three is a list of stage names or patterns:

    transfer.carry=[backbone.conv1] transfer.reinit=[classifier] transfer.freeze=[backbone.conv*]

`carry` null means all. What is not carried, or named by `reinit`, gets fresh weights as its layers
draw them (`reset_parameters`), batch statistics included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlrun.errors import ConfigError
from tlrun.models.net import Net

Parts = Mapping[str, Mapping[str, Tensor]]  # part -> its state dict, as in a checkpoint


@dataclass
class Fate:
    """What became of a stage. origin: carried | new. why: of a new one."""

    stage: str
    parameters: int
    origin: str
    frozen: bool
    why: str = ""

    def row(self) -> dict[str, Any]:
        return asdict(self)


def transfer(
    net: Net,
    *,
    known: Mapping[str, str],
    carry: Iterable[str] | None = None,
    reinit: Iterable[str] = (),
    freeze: Iterable[str] = (),
) -> list[Fate]:
    """Give fresh weights to what is not carried over; returns the fate of every stage.

    known: the stages that hold weights worth carrying -> "" or, for those that do not, why not
    (their weights are new already). Sets `net.carried`. Raises ConfigError for a pattern that
    matches nothing, or a stage that is both carried by name and re-initialised.
    """
    kept = set(net.stages() if carry is None else net.select(carry))
    renewed, still = set(net.select(reinit)), set(net.select(freeze))
    if carry is not None and kept & renewed:
        raise ConfigError(
            f"transfer.carry and transfer.reinit both name {sorted(kept & renewed)[0]}: "
            "leave it in one of them"
        )
    table = []
    for stage in net.stages():
        why = known.get(stage, "nothing to carry")
        if not why and stage in renewed:
            why = "transfer.reinit"
        elif not why and stage not in kept:
            why = "not in transfer.carry"
        if why.startswith(("transfer.", "not in")):
            reinitialise(net, stage)
        count = sum(p.numel() for p in net.parameters_in(stage))
        table.append(Fate(stage, count, "new" if why else "carried", stage in still, why))
    net.carried = tuple(fate.stage for fate in table if fate.origin == "carried")
    return table


def reinitialise(net: Net, stage: str) -> None:
    """Fresh weights and statistics for the modules of a stage, from torch's generator.

    Parameters that belong to no stage (a transformer's class token) stay as they are.
    """
    for module in net.module_of(stage).modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
        elif isinstance(module, nn.MultiheadAttention):
            module._reset_parameters()


@torch.no_grad()
def load_parts(net: Net, parts: Parts) -> dict[str, str]:
    """Copy another run's weights into the stages they fit; returns `known` for `transfer`.

    A stage whose tensors are missing there or have other shapes (a head of other classes) stays as
    it is, and the reason stands in its place.
    """
    known = {}
    for stage in net.stages():
        part = stage.partition(".")[0]
        own = _tensors(net, stage)
        there = parts.get(part)
        if there is None:
            known[stage] = f"no '{part}' there"
            continue
        missing = [n for n, v in own.items() if n not in there and isinstance(v, nn.Parameter)]
        if missing:
            known[stage] = f"no '{missing[0]}' there"
        elif any(n in there and there[n].shape != v.shape for n, v in own.items()):
            known[stage] = "of another shape there"
        else:
            for name, value in own.items():
                if name in there:
                    value.copy_(there[name])
            known[stage] = ""
    return known


def _tensors(net: Net, stage: str) -> dict[str, Tensor]:
    """Parameters and buffers of a stage (themselves, not copies) by their name in its part.

    As in `Net.parameters_in`, what lies in no stage belongs to the first one.
    """
    part, _, inner = stage.partition(".")
    stages = list(getattr(net[part], "stage_names", ())) or [""]

    def owner(name: str) -> str:
        return next((s for s in stages if not s or name.startswith(f"{s}.")), stages[0])

    everything = {**dict(net[part].named_buffers()), **dict(net[part].named_parameters())}
    return {name: value for name, value in everything.items() if owner(name) == inner}


def print_table(table: Iterable[Fate]) -> str:
    """The table for log and terminal."""
    rows = list(table)
    width = max((len(fate.stage) for fate in rows), default=0)
    lines = [
        f"  {fate.stage:<{width}}  {fate.parameters:>10,}  {fate.origin:<7}  "
        f"{'frozen' if fate.frozen else 'trained':<7}  {fate.why}".rstrip()
        for fate in rows
    ]
    return "\n".join(["what became of each layer:", *lines])
