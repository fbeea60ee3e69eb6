"""Which layers are carried over, which start anew, which are held still: `transfer.*` and `init`.

Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014: which
layers to carry over depends on the task, so each of the three is a list of stage names or patterns:

    transfer.carry=[backbone.conv1] transfer.reinit=[classifier] transfer.freeze=[backbone.conv*]

`carry` null means all; `cut` = n is `carry=["[:n]"]`, the first n stages. What is not carried, or
is named by `reinit`, gets fresh weights as a new net of the same configuration has them, batch
statistics included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlrun.errors import ConfigError
from tlrun.models.net import Net

Parts = Mapping[str, Mapping[str, Tensor]]  # part -> its state dict, as in a checkpoint


@dataclass
class StageTransfer:
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
    fresh: Callable[[], Net],
    carry: Iterable[str] | None = None,
    reinit: Iterable[str] = (),
    freeze: Iterable[str] = (),
) -> list[StageTransfer]:
    """Give fresh weights to what is not carried over; returns what became of every stage.

    known: the stages that hold weights worth carrying -> "" or, for those that do not, why not
    (their weights are new already). fresh: makes a new net of the same structure, whose weights the
    others get; called only if there are any. Sets `net.carried`. Raises ConfigError for a pattern
    that matches nothing, or a stage that is both carried by name and re-initialised.
    """
    kept, renewed = chosen(net, carry, reinit)
    why = {stage: known.get(stage, "nothing to carry") for stage in net.stages()}
    dropped = {
        stage: "transfer.reinit" if stage in renewed else "not carried, as asked"
        for stage, reason in why.items()
        if not reason and (stage in renewed or stage not in kept)
    }
    if dropped:
        reinitialise(net, dropped, fresh())
    why |= dropped
    net.carried = tuple(stage for stage, reason in why.items() if not reason)
    still = set(net.select(freeze))
    return [
        StageTransfer(
            stage,
            sum(p.numel() for p in net.parameters_in(stage)),
            "new" if reason else "carried",
            stage in still,
            reason,
        )
        for stage, reason in why.items()
    ]


def chosen(
    net: Net, carry: Iterable[str] | None, reinit: Iterable[str]
) -> tuple[set[str], set[str]]:
    """The stages that `carry` (None = all) and `reinit` name. ConfigError if both name one."""
    kept = set(net.stages() if carry is None else net.select(carry))
    renewed = set(net.select(reinit))
    if carry is not None and kept & renewed:
        raise ConfigError(
            f"transfer.carry and transfer.reinit both name {sorted(kept & renewed)[0]}: "
            "leave it in one of them"
        )
    return kept, renewed


@torch.no_grad()
def reinitialise(net: Net, stages: Iterable[str], fresh: Net) -> None:
    """Parameters and buffers of a new net for some stages.

    A whole net, since the rules of initialisation are the backbone's own: torchvision's resnets
    draw their convolutions otherwise than `Conv2d.reset_parameters` does, and what is a bare
    parameter (a class token, a layer scale) has no such method at all.
    """
    for stage in stages:
        theirs = _tensors(fresh, stage)
        for name, value in _tensors(net, stage).items():
            value.copy_(theirs[name])


@torch.no_grad()
def load_parts(net: Net, parts: Parts, unfit: Mapping[str, str] | None = None) -> dict[str, str]:
    """Copy another run's weights into the stages they fit; returns `known` for `transfer`.

    A stage whose tensors are missing there or have other shapes (a head of other classes) stays as
    it is, and the reason stands in its place. unfit: stages not to load, and why.
    """
    known = dict(unfit or {})
    for stage in net.stages():
        if stage in known:
            continue
        part = stage.partition(".")[0]
        own = {_bare(n): v for n, v in _tensors(net, stage).items() if ".lora_" not in n}
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


def lacking_in_file(net: Net, stage: str) -> str:
    """Why a stage of a net from a file of weights is not carried over; "" if it is.

    The backbone's `not_in_file` names the tensors that stayed new (`load_weight_file`).
    """
    absent = set(getattr(net[stage.partition(".")[0]], "not_in_file", ()))
    found = next((name for name in _tensors(net, stage) if name in absent), None)
    return f"no '{found}' in the file" if found else ""


def _bare(name: str) -> str:
    """The name of a tensor before peft wrapped its layer; its adapters (.lora_) are new."""
    return name.replace(".base_layer.", ".")


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


def print_table(table: Iterable[StageTransfer]) -> str:
    """The table for log and terminal."""
    rows = list(table)
    width = max((len(stage.stage) for stage in rows), default=0)
    lines = [
        f"  {stage.stage:<{width}}  {stage.parameters:>10,}  {stage.origin:<7}  "
        f"{'frozen' if stage.frozen else 'trained':<7}  {stage.why}".rstrip()
        for stage in rows
    ]
    return "\n".join(["what became of each layer:", *lines])
