"""A run folder as a finished run leaves it, with random weights: nothing is trained here."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from tlrun.config.compose import compose
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.data.problems.label_space import LabelSpace
from tlrun.engine import checkpoint
from tlrun.methods.build import build_method, build_trained_net
from tlrun.run_folder.run_dir import RunDir

torch.set_num_threads(1)
CLASSES = ["cat", "dog", "fox"]


def write_run(path, overrides, shape, normalize, **more) -> SimpleNamespace:
    run = RunDir.create(path)
    cfg = compose(overrides)
    OmegaConf.save(cfg, run.config)
    preprocess = Preprocess(shape, normalize, **more)
    space = {
        "classes": CLASSES,
        "tasks": {"class": {"kind": "class", "classes": CLASSES}},
        "domains": ["source", "target"],
        "facts": {},
        "input_shape": list(preprocess.output_shape),
        "preprocess": preprocess.spec(),
    }
    run.write_json(run.label_space, space)
    method, data = build_method(cfg), LabelSpace.from_json(space)
    torch.manual_seed(0)
    seen = preprocess.output_shape
    net = build_trained_net(cfg, method, method.phases(data), data, seen)
    for domain in ("source", "target"):  # statistics of their own
        with torch.no_grad():
            net(torch.randn(16, *seen) + (domain == "target"), domain)
    run.checkpoints.mkdir()
    parts = {name: part.state_dict() for name, part in net.parts.items()}
    chosen = {"parts": parts, "method": method.state_dict()}
    checkpoint.save(run.checkpoints / "bnm.pt", chosen, {"step": 3})
    flat = {**parts, "classifier": {k: torch.zeros_like(v) for k, v in parts["classifier"].items()}}
    checkpoint.save(run.checkpoints / "last.pt", {"parts": flat, "method": {}}, {"step": 4})
    run.write_json(run.summary, {"selection_rule": "bnm"})
    return SimpleNamespace(run=run, net=net.eval(), method=method, preprocess=preprocess)


@pytest.fixture(scope="session")
def run_writer():
    return write_run


@pytest.fixture(scope="session")
def image_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "images"
    return write_run(path, ["method=dann", "backbone=dann_cnn"], (3, 28, 28), "half")


@pytest.fixture(scope="session")
def feature_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "features"
    return write_run(path, ["method=source_only", "backbone=mlp"], (10,), "none")


@pytest.fixture
def images(tmp_path):
    """A folder of three images of other sizes and modes, one below it, and a file that is none."""
    draws = np.random.default_rng(0)
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for name, mode, size in [("b.png", "RGB", 28), ("a.jpg", "L", 40), ("more/c.png", "RGBA", 20)]:
        pixels = draws.integers(0, 256, (size, size, 4), dtype=np.uint8)
        Image.fromarray(pixels, "RGBA").convert(mode).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder
