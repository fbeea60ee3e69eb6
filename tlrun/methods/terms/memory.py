"""What a conservative term keeps of the start: weights (`Anchor`) or a whole net (`FrozenCopy`).

Both are clones outside the net's parts: no optimizer, broadcast or checkpoint of the net touches
them. Their state goes into the checkpoint, so that a resume finds what a kill has lost.

It is the start of a phase with `terms=True`; phases with `terms="continue"` go on with it.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from tlrun.errors import ConfigError
from tlrun.models.net import Net


def check_carried(net: Net, term: str) -> None:
    """Raises ConfigError if nothing was carried over into the net."""
    if not net.carried:
        raise ConfigError(
            f"terms=[{term}] needs weights that were carried over: method=finetune, or "
            "init=RUN_DIR, or init=pretrained"
        )


class Anchor:
    """Clones of the carried parameters, by name in the net."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def remember(self, net: Net, term: str) -> None:
        """Raises ConfigError if nothing was carried over. term: for that sentence."""
        check_carried(net, term)
        carried = {id(p) for stage in net.carried for p in net.parameters_in(stage)}
        self.values = {
            name: parameter.detach().clone()
            for name, parameter in net.named_parameters()
            if id(parameter) in carried
        }

    def away(self, net: Net) -> tuple[list[str], list[Tensor], list[Tensor]]:
        """Of the parameters with an anchor that train: names, themselves w, and w − w⁰."""
        names: list[str] = []
        values: list[Tensor] = []
        anchors: list[Tensor] = []
        for name, parameter in net.named_parameters():
            if name in self.values and parameter.requires_grad:
                self.values[name] = self.values[name].to(parameter.device)
                names.append(name)
                values.append(parameter)
                anchors.append(self.values[name])
        difference = torch._foreach_sub(values, anchors) if values else []
        return names, values, list(difference)

    def new(self, net: Net) -> list[Tensor]:
        """Parameters without an anchor that train."""
        everything = net.named_parameters()
        return [p for name, p in everything if p.requires_grad and name not in self.values]


def add_to_gradients(parameters: list[Tensor], added: list[Tensor], scale: float) -> None:
    """grad += scale · added, in place. Parameters that this update leaves alone are skipped."""
    used = [(p.grad, a) for p, a in zip(parameters, added, strict=True) if p.grad is not None]
    if used:
        torch._foreach_add_([g for g, _ in used], [a for _, a in used], alpha=scale)


class FrozenCopy:
    """The net as it was, in eval mode and without gradients."""

    def __init__(self) -> None:
        self._net: Net | None = None
        self._state: dict[str, Any] | None = None

    def remember(self, net: Net) -> None:
        self._net, self._state = _still(net), None

    @property
    def known(self) -> bool:
        return self._net is not None or self._state is not None

    def of(self, net: Net) -> Net:
        """The teacher. After a resume it is made again, from the structure of `net`."""
        if self._net is None:
            assert self._state is not None
            self._net = _still(net)
            for part in list(self._net.parts):
                if part in self._state:
                    self._net[part].load_state_dict(self._state[part])
                else:  # built after it was remembered
                    del self._net.parts[part]
        return self._net

    def state_dict(self) -> dict[str, Any] | None:
        if self._net is None:
            return self._state
        return {name: part.state_dict() for name, part in self._net.parts.items()}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        self._net, self._state = None, state


def _still(net: Net) -> Net:
    still = copy.deepcopy(net).eval().requires_grad_(False)
    for module in still.modules():  # those of terms belong to the net that trains
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return still
