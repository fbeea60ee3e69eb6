"""Optimizers with named groups, and learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from tlrun.errors import ConfigError, did_you_mean
from tlrun.models.net import PUBLISHED_HEAD, Net

SCHEDULES = ("constant", "cosine", "dann", "step")
OPTIMIZERS = ("adam", "adamw", "sgd")
SHARED_KEYS = ("lr", "weight_decay", "head_lr_multiplier", "layer_decay")  # of every optimizer


def learning_rate_factor(schedule: Mapping[str, Any], step: int, total: int) -> float:
    """What the base learning rate is multiplied with at `step` (0-based) of `total`.

    constant: 1. cosine: ½(1 + cos πp). step: gamma^(milestones passed, given as shares of `total`).
    dann: (1 + αp)^−β with p = step/total, α = 10, β = 0.75 (Ganin et al., JMLR 2016, section
    5.2.2). All but `dann` accept `warmup_steps`: a linear rise from 1/warmup to 1 before p starts
    to count, over at most half of `total`, so that a short phase does not end at its highest rate.
    """
    name = str(schedule["name"])
    warmup = min(int(schedule.get("warmup_steps") or 0), total // 2)
    if step < warmup:
        return (step + 1) / warmup
    p = (step - warmup) / max(total - warmup, 1)
    if name == "constant":
        return 1.0
    if name == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * p))
    if name == "dann":
        return float((1.0 + schedule.get("alpha", 10.0) * p) ** -schedule.get("beta", 0.75))
    if name == "step":
        passed = sum(p >= milestone for milestone in schedule.get("milestones", ()))
        return float(schedule.get("gamma", 0.1) ** passed)
    raise ConfigError(f"schedule.name={name}: {did_you_mean(name, SCHEDULES)}")


def make_optimizer(
    cfg: Mapping[str, Any], net: Net, parts: tuple[str, ...] | None
) -> torch.optim.Optimizer:
    """One optimizer with a group per part, named like the part; frozen parameters are left out.

    `head_lr_multiplier` scales the learning rate of every part but the backbone and the head that
    its weights came with, `layer_decay` that of the backbone's stages, which then have a group
    each. Weight decay is applied to all parameters of a group, as the papers of this field do, but
    to none of a module that says `no_weight_decay`.
    """
    groups: list[dict[str, Any]] = []
    for name, scale in learning_rate_scales(cfg, net, parts).items():
        parameters = list(net.parameters_of([name]))
        if parameters:
            lr = float(cfg["lr"]) * scale
            groups.append({"params": parameters, "name": name, "lr": lr, "base_lr": lr})
            if getattr(net.module_of(name), "no_weight_decay", False):
                groups[-1]["weight_decay"] = 0.0
    if not groups:
        raise ConfigError(
            "nothing is left to train: every part is frozen; "
            "unfreeze one or set the phase's steps to 0"
        )
    name, decay = str(cfg["name"]), float(cfg.get("weight_decay", 0.0))
    if name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=float(cfg["lr"]),
            momentum=float(cfg.get("momentum", 0.0)),
            nesterov=bool(cfg.get("nesterov", False)),
            weight_decay=decay,
        )
    if name in ("adam", "adamw"):
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        beta1, beta2 = cfg.get("betas", (0.9, 0.999))
        return kind(
            groups,
            lr=float(cfg["lr"]),
            betas=(float(beta1), float(beta2)),
            weight_decay=decay,
            fused=True,
        )
    raise ConfigError(f"optimizer.name={name}: {did_you_mean(name, OPTIMIZERS)}")


def learning_rate_scales(
    cfg: Mapping[str, Any], net: Net, parts: tuple[str, ...] | None
) -> dict[str, float]:
    """Part, or with `layer_decay` stage of the backbone -> what its learning rate is times.

    Layer-wise decay (Howard & Ruder, ACL 2018; Clark et al., ICLR 2020): d^(L - l) for stage l of
    L - 1, the head being stage L. A stage without a weight matrix (a norm of its own, as resnet's
    bn1) counts to the one before it. Frozen stages count as well.
    """
    head, decay = float(cfg.get("head_lr_multiplier", 1.0)), float(cfg.get("layer_decay", 1.0))
    scales: dict[str, float] = {}
    for part in net.parts if parts is None else parts:
        if part == PUBLISHED_HEAD:  # learned already, as the backbone
            scales[part] = 1.0
        elif not part.startswith("backbone"):
            scales[part] = head
        elif decay == 1.0 or "." in part:
            scales[part] = 1.0
        else:
            stages = net.path(part)
            heavy = [any(p.ndim > 1 for p in net.parameters_in(stage)) for stage in stages]
            last = max(sum(heavy), 1)
            for index, stage in enumerate(stages):
                scales[stage] = decay ** (last + 1 - max(sum(heavy[: index + 1]), 1))
    return scales


def merged(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """The config's optimizer or schedule with a phase's changes on top.

    An override that names another one replaces it: keys of an Adam mean nothing to an SGD. Of the
    numbers that both know, the learning rate and the like stay unless the override has them.
    """
    if "name" not in override or override["name"] == base["name"]:
        return {**base, **override}
    shared = {key: base[key] for key in SHARED_KEYS if key in base}
    return {**shared, **override}


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Of all groups. `defaults["current_lr"]`, of which they are multiples, is for the log."""
    optimizer.defaults["current_lr"] = optimizer.defaults["lr"] * factor
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
