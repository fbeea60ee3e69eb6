"""What `auto` means on this machine, so that the saved config says what was run."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from tlrun.config.one_set import has_source
from tlrun.data.pipeline.prefetch import auto_workers
from tlrun.data.problems.domain_words import is_transductive
from tlrun.engine.precision import resolve_device, resolve_precision
from tlrun.evaluate.selection import (
    resolve_min_effective_classes,
    without_source,
    without_target,
)
from tlrun.experiment.image_input import follow_weights
from tlrun.experiment.initial_weights import settle_weight_file
from tlrun.methods.base import Method
from tlrun.methods.build import build_method


def resolve_auto(cfg: DictConfig, trained: bool = False) -> DictConfig:
    """A copy with `auto` replaced; of `baseline` only once the data are known (baselines.py).

    trained: there is a checkpoint, so the weights that it started from need not be there.
    """
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    device = resolve_device(str(cfg.trainer.device))
    cfg.trainer.precision = resolve_precision(str(cfg.trainer.precision), device)
    if cfg.trainer.threads == "auto":
        cfg.trainer.threads = torch.get_num_threads()
    if cfg.trainer.workers == "auto":
        cfg.trainer.workers = auto_workers(int(cfg.trainer.devices))
    if not trained:
        settle_weight_file(cfg)
    method = build_method(cfg)
    if not trained:
        follow_weights(cfg, method.init)
    if cfg.baseline == "auto":
        # "before adaptation" costs about half as much again: only for methods that adapt, and
        # only where there is one (`has_baseline`, once the data are known)
        needs = method.requirements
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
    if cfg.data.get("transductive") == "auto":
        cfg.data.transductive = is_transductive(cfg.data, _labels(cfg, method))
    if not has_source(cfg.data):
        resolve_without_source(cfg, method)
    return cfg


def _labels(cfg: DictConfig, method: Method) -> Any:
    """`target_labels`, with what the method needs in place of auto."""
    needed = method.requirements.target_labels
    return needed if cfg.target_labels == "auto" else cfg.target_labels


def resolve_without_source(cfg: DictConfig, method: Method) -> None:
    """Start from the backbone's own weights where a source would have come first, and choose by
    the target's validation labels where there are any. Changes `cfg`."""
    if cfg.init == "auto" and method.init == "source" and cfg.backbone.get("weights"):
        cfg.init = "pretrained"
    labels, val = _labels(cfg, method), cfg.target_val_labels
    if val == "auto":
        val = "all" if labels == "all" else "none"
    cfg.select.name = without_source(str(cfg.select.name), val not in ("none", 0))
