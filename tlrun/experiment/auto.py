"""What `auto` means on this machine, so that the saved config says what was run."""

from __future__ import annotations

import torch
from omegaconf import DictConfig, OmegaConf

from tlrun.config.build import build
from tlrun.engine.precision import resolve_device, resolve_precision
from tlrun.evaluate.selection import resolve_min_effective_classes, without_target


def resolve_auto(cfg: DictConfig) -> DictConfig:
    """A copy with `auto` replaced; of `baseline` only once the data are known (baselines.py)."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    device = resolve_device(str(cfg.trainer.device))
    cfg.trainer.precision = resolve_precision(str(cfg.trainer.precision), device)
    if cfg.trainer.threads == "auto":
        cfg.trainer.threads = torch.get_num_threads()
    if cfg.baseline == "auto":
        # "before adaptation" costs about half as much again: only for methods that adapt, and
        # only where there is one (`has_baseline`, once the data are known)
        needs = build(cfg.method, "method").requirements
        adapts = (
            "target" in needs.streams
            and cfg.target_labels in ("auto", "none")
            and needs.target_labels == "none"
        )
        cfg.baseline = "auto" if adapts else False
    cfg.select.min_effective_classes = resolve_min_effective_classes(
        cfg.select.min_effective_classes, cfg.data.get("label_spaces", "shared")
    )
    if cfg.target_images == "none":
        cfg.select.name = without_target(str(cfg.select.name))
    return cfg
