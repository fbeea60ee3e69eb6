"""From the config to a method with all its options, and to the net of a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlrun.config.build import build, plain
from tlrun.methods.base import Method, Phase
from tlrun.models.batch_norm import FROZEN, convert
from tlrun.models.build import build_net
from tlrun.models.net import Net

if TYPE_CHECKING:
    from tlrun.data.problems.pair import Data


def build_method(cfg: Mapping[str, Any]) -> Method:
    """The method of a whole config, complete: nobody sets an option of it afterwards.

    The top-level keys `batch_norm` and `init` replace what the method would choose by itself; they
    are no arguments of its own, so that a method of a user's need not list them.
    """
    method: Method = build(cfg["method"], "method")
    if cfg["batch_norm"] == FROZEN:  # one forward for all: no batch counts
        method.batch_norm, method.frozen_statistics = "joint", True
    elif cfg["batch_norm"] != "auto":
        method.batch_norm = str(cfg["batch_norm"])
    if cfg["init"] != "auto":
        method.init = str(cfg["init"])
    return method


def build_trained_net(
    cfg: Mapping[str, Any],
    method: Method,
    phases: Sequence[Phase],
    data: Data,
    input_shape: Sequence[int],
) -> Net:
    """The net of a finished run: every part that `method` builds, ready for a checkpoint's state.

    data: what its `build` reads. Pretrained weights are not fetched: the state replaces them.
    """
    net = build_net({"backbone": {**plain(cfg["backbone"]), "weights": None}}, input_shape)
    for phase in phases:
        method.build(phase, net, data)
    convert(net, batch_norm_mode(method, phases))
    return net


def batch_norm_mode(method: Method, phases: Sequence[Phase]) -> str:
    """The method's mode; `joint` where all phases draw from one domain: nothing to separate."""
    domains = {stream for phase in phases for stream in phase.streams}
    return method.batch_norm if len(domains) > 1 else "joint"
