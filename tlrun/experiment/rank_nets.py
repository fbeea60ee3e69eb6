"""The nets that `tlrun rank` scores, each with its data: pretrained backbones, or trained runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tlrun.config.combinations import combinations
from tlrun.config.compose import compose
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import Data, build_data
from tlrun.errors import ConfigError
from tlrun.experiment.assemble import device_of
from tlrun.experiment.features import (
    as_the_run_takes,
    backbone_net,
    config_on_data,
    prepared,
)
from tlrun.experiment.initial_weights import pretrained_weights
from tlrun.inference import predict
from tlrun.methods.query import Query
from tlrun.models.build import build_classifier
from tlrun.models.net import Net
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)

Forward = Callable[[Tensor], Tensor | None]  # x (B, ...) -> logits of the net's own classes (B, Z)
NO_CLASSIFIER = "no classifier"


@dataclass
class Candidate:
    """A net to be scored. note: why it has no LEEP and no NCE, "" where it has."""

    name: str
    config: dict[str, Any]
    data: Data
    net: Net
    forward: Forward
    note: str = ""


def of_configs(overrides: Sequence[str], config_dir: Path | None) -> Iterator[Candidate]:
    """A net for every combination of `backbone=a,b,c` and its like."""
    for name, words in combinations(overrides).items():
        cfg = compose(words, config_dir=config_dir)
        _use_labels(cfg)
        config = prepared(cfg)
        name = name or str(config["backbone"]["name"])
        init = str(config["init"])
        if init not in ("auto", "source", "pretrained"):
            raise ConfigError(
                f"init={init}: rank takes init=pretrained, or trained runs: tlrun rank RUN_DIR"
            )
        backbone = config["backbone"]
        weights = pretrained_weights(init, backbone.get("weights"))
        if weights is None:
            log.warning("%s has random weights; init=pretrained gives it learned ones", name)
        data = labelled(config)
        net = backbone_net(config, data, weights)
        classifier = build_classifier(backbone, weights, net.backbone)
        if classifier is not None:
            forward = _with_classifier(net, classifier.to(device_of(config, 0, 1)))
            yield Candidate(name, config, data, net, forward)
        else:
            yield Candidate(name, config, data, net, _without(net), NO_CLASSIFIER)


def _with_classifier(net: Net, classifier: torch.nn.Module) -> Forward:
    return lambda x: classifier(net.features(x, "target"))


def _without(net: Net) -> Forward:
    def forward(x: Tensor) -> None:
        net.features(x, "target")

    return forward


def of_runs(runs: Sequence[Path], overrides: Sequence[str]) -> Iterator[Candidate]:
    """The selected weights of each run, up to the output of its head, and its own classes."""
    for path in runs:
        run = RunDir.open(path)
        cfg = config_on_data(run, overrides)
        _use_labels(cfg)
        model = predict.load(run.path)
        config = prepared(cfg, trained=True)
        data = as_the_run_takes(labelled(config), run, str(path))
        model.to(device_of(config, 0, 1)).eval()
        yield Candidate(run.path.name, config, data, model.net, _as_predicted(model))


def _as_predicted(model: predict.Model) -> Forward:
    def forward(x: Tensor) -> Tensor | None:
        return model.method.predict(model.net, x, Query(domain="target")).scores

    return forward


def _use_labels(cfg: DictConfig) -> None:
    """All labels of training and validation, unless the user gives a number: `auto` keeps a test
    set apart where labels are used."""
    if cfg.target_labels == "none":
        raise ConfigError("target_labels=none leaves no label to score by: leave it out, or give 5")
    OmegaConf.set_struct(cfg, False)
    if cfg.target_labels == "auto":
        cfg.target_labels, cfg.target_val_labels = "all", "all"


def labelled(config: dict[str, Any]) -> Data:
    """The data with the labels that may be scored by."""
    asked = Options(
        seed=int(config["seed"]),
        target_labels=config["target_labels"],
        target_val_labels=config["target_val_labels"],
        shared_classes=False,
    )
    try:
        data = build_data(config["data"], asked)
    except ConfigError as error:
        if "target_labels" not in str(error):
            raise
        raise ConfigError(f"rank scores by class labels of a target: {error}") from error
    if "target" not in data.domains or data.kind != "class":
        raise ConfigError(
            f"rank scores by class labels of a target; the data '{data.name}' have none "
            f"(their kind is {data.kind})"
        )
    return data
