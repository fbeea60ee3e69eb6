"""`tlrun features RUN_DIR` or `tlrun features key=value ...`: features of all images, in files.

One .npz for each domain, with the images of training, validation and test one after the other:

    features   (n, D) float32       labels   (n,) class names, "" where the data hold none
    paths      (n,) of the images   split    (n,) train | val | test
    class_names   of all classes in order             domain, backbone   what it was made of

They are for other tools, and `data=features` takes them. Labels are written as the data hold them,
the target's too: no run is trained here, and what a later run may see of them is its own affair.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.config.saved import load_config
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.streams import images_per_pass
from tlrun.data.problems.label_space import LabelSpace
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import Data, build_data
from tlrun.data.problems.trained import with_statistics
from tlrun.engine.precision import autocast
from tlrun.errors import ConfigError, RunError
from tlrun.experiment.assemble import device_of
from tlrun.experiment.auto import resolve_auto
from tlrun.experiment.evaluate import prepare_as_trained, refuse_unread
from tlrun.experiment.initial_weights import pretrained_weights
from tlrun.experiment.trained_images import refuse_trained_images
from tlrun.inference import predict
from tlrun.messages import plural
from tlrun.methods.query import Query
from tlrun.models.build import build_net
from tlrun.models.net import Net
from tlrun.process import prepare_process
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
Features = Callable[[Tensor, str], Tensor]  # x (B, ...) and its domain -> (B, D)
FOLDER = "features"  # in the run's own


@dataclass
class Rows:
    """The images of one domain. x: (n, D) float32; the lists have n entries."""

    x: np.ndarray
    labels: list[str]
    paths: list[str]
    split: list[str]


def of_run(run_path: Path, overrides: Sequence[str], output: Path | None) -> list[Path]:
    """By the selected weights of a run, of its data or of others (`data=...`)."""
    run = RunDir.open(run_path)
    refuse_unread(overrides)
    cfg = config_on_data(run, overrides)
    model = predict.load(run.path)
    config = prepared(cfg, trained=True)
    data = as_the_run_takes(all_labels(config), run, "the run")
    refuse_trained_images(run, config, data, overrides)
    model.to(device_of(config, 0, 1))

    def features(x: Tensor, domain: str) -> Tensor:
        found = model.method.predict(model.net, x, Query(domain=domain)).features
        if found is None:
            raise RunError(f"the method of {run.path} has no features to write")
        return found

    return write(config, data, features, output or run.path / FOLDER)


def of_config(overrides: Sequence[str], config_dir: Path | None, output: Path | None) -> list[Path]:
    """By the backbone of a configuration, with the weights that it comes with."""
    cfg = compose(list(overrides), config_dir=config_dir)
    config = prepared(cfg)
    init = str(config["init"])
    if init not in ("auto", "pretrained"):
        raise ConfigError(
            f"init={init}: features are made with init=pretrained, or by a trained run: tlrun "
            "features RUN_DIR"
        )
    weights = pretrained_weights(init, config["backbone"].get("weights"))
    if weights is None:
        log.warning("the backbone has random weights; init=pretrained gives it learned ones")
    data = all_labels(config)
    net = backbone_net(config, data, weights)
    name = f"features_{data.name}_{config['backbone']['name']}"
    return write(config, data, net.features, output or Path(name))


def prepared(cfg: DictConfig, trained: bool = False) -> dict[str, Any]:
    """The config as this machine understands it, and the process set up for it."""
    config: dict[str, Any] = plain(resolve_auto(cfg, trained))
    prepare_process(config, 0, 1)
    return config


def config_on_data(run: RunDir, overrides: Sequence[str]) -> DictConfig:
    """The run's own configuration, or on other data if the overrides name some."""
    cfg = load_config(run.config, list(overrides))
    if any(override.startswith("data") for override in overrides):
        prepare_as_trained(cfg, run, overrides)
    return cfg


def as_the_run_takes(data: Data, run: RunDir, name: str) -> Data:
    """The data under the statistics of the run. name: of the run, in the ConfigError for inputs of
    another shape."""
    space = LabelSpace.from_json(run.read_label_space())
    data = with_statistics(data, space.preprocess)
    if tuple(data.input_shape) != space.input_shape:
        raise ConfigError(
            f"{name} takes inputs of {space.input_shape}, and these data have {data.input_shape}: "
            "set data.size and data.channels as in the run"
        )
    return data


def backbone_net(config: dict[str, Any], data: Data, weights: Any) -> Net:
    """The backbone of a configuration, in eval mode on its device; random weights by the seed."""
    torch.manual_seed(int(config["seed"]))
    net = build_net({"backbone": {**config["backbone"], "weights": weights}}, data.input_shape)
    return net.to(device_of(config, 0, 1)).eval()


def all_labels(config: dict[str, Any]) -> Data:
    """The data with every label that they have."""
    asked = Options(
        seed=int(config["seed"]),
        target_labels="all",
        target_val_labels="all",
        shared_classes=False,
    )
    return build_data(config["data"], asked)


def write(config: dict[str, Any], data: Data, features: Features, folder: Path) -> list[Path]:
    """A file for each domain, told in a line each; returns them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}; set --output") from error
    device = device_of(config, 0, 1)
    size = images_per_pass(int(config["evaluate"]["batch_size"]), data.input_shape)
    written: list[Path] = []
    for domain in single_domains(data):
        with torch.no_grad(), autocast(config["trainer"]["precision"], device):
            rows = rows_of(data, domain, features, device, size)
        if rows is None:
            continue
        path = folder / f"{domain}.npz"
        with path.open("wb") as file:
            np.savez(
                file,
                features=rows.x,
                labels=np.array(rows.labels),
                paths=np.array(rows.paths),
                split=np.array(rows.split),
                class_names=np.array(data.classes),
                domain=np.array(data.domains[domain].name),
                backbone=np.array(str(config["backbone"]["name"])),
            )
        written.append(path)
        _tell(path, rows)
    if [path.stem for path in written] == ["source", "target"]:
        keys = [f"data.{path.stem}.path={path}" for path in written]
        print(f"to train on them: tlrun data=features backbone=mlp {shlex.join(keys)}")
    return written


def _tell(path: Path, rows: Rows) -> None:
    count, width = rows.x.shape
    parts = [f"{rows.split.count(s):,} {s}" for s in SPLITS if s in rows.split]
    labelled = sum(label != "" for label in rows.labels)
    print(
        f"{path}: {plural(count, 'image')} ({', '.join(parts)}), {plural(width, 'feature')} each; "
        f"labels of {labelled:,}, as the data hold them"
    )


def single_domains(data: Data) -> list[str]:
    """All domains; of several sources each one, not their union."""
    union = "source" in data.domains and "source" not in data.sources
    return [domain for domain in data.domains if not (union and domain == "source")]


def rows_of(
    data: Data, domain: str, features: Features, device: torch.device, size: int
) -> Rows | None:
    """All images of a domain once each, those of training first; None for a domain without any.

    size: images in a forward pass.
    """
    side = "target" if domain == "target" else "source"
    blocks: list[np.ndarray] = []
    rows = Rows(np.empty((0, 0), np.float32), [], [], [])
    for split, examples in apart(data, domain).items():
        passed = data.batches(examples, device, size)
        steps = -(-len(examples) // size)
        for x, _, _ in tqdm(passed, f"{domain} {split}", steps, leave=False, disable=None):
            blocks.append(features(x, side).float().cpu().numpy())
        rows.labels += labels_of(examples)
        rows.paths += examples.paths or [""] * len(examples)
        rows.split += [split] * len(examples)
    if not blocks:
        return None
    rows.x = np.concatenate(blocks)
    return rows


def apart(data: Data, domain: str) -> dict[str, ImageSet]:
    """The sets of a domain by split, without the images that an earlier one holds."""
    sets = {split: data.role(f"{domain}_{split}") for split in SPLITS}
    return each_once({split: found for split, found in sets.items() if found is not None}, set())


def each_once(sets: dict[str, ImageSet], held: set[tuple[int, int]]) -> dict[str, ImageSet]:
    """The sets without images that are in `held` or in one before them; none that is empty then."""
    out: dict[str, ImageSet] = {}
    for split, examples in sets.items():
        rows = rows_in(examples)
        new = [i for i, row in enumerate(rows) if row not in held]
        held = held | set(rows)
        if new:
            out[split] = examples.subset(torch.tensor(new))
    return out


def rows_in(examples: ImageSet) -> list[tuple[int, int]]:
    """Which image each example is: its store and the row there."""
    rows = range(len(examples)) if examples.rows is None else examples.rows.tolist()
    return [(id(examples.pixels), row) for row in rows]


def labels_of(examples: ImageSet) -> list[str]:
    """Class names, "" where there is none."""
    if examples.labels is None or examples.classes is None:
        return [""] * len(examples)
    return [examples.classes[label] for label in examples.labels.tolist()]
