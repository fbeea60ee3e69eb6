"""The names of all methods, and a session of any of them on the bundled data of its kind."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from omegaconf import OmegaConf

from helpers import small
from tlrun.config.build import build, locate
from tlrun.config.packaged import conf_dir
from tlrun.experiment.session import Session
from tlrun.methods.base import Requirements
from tlrun.models.backbones import DannCNN

METHODS = sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))
DATA = {
    "class": "digits_digitsm",
    "episodes": "digits_episodes",
    "attributes": "digits_attributes",
    "tasks": "digits_fours_nines",
}  # kind of data -> the bundled set of that kind
SEVERAL_SOURCES = "digits_styles_digitsm"
FEATURES = DannCNN((3, 28, 28), width=0.1).feature_dim


def requirements_of(name: str) -> Requirements:
    """What the method with its default arguments needs; nothing is composed for it."""
    node = OmegaConf.load(conf_dir() / "method" / f"{name}.yaml")
    return cast(Requirements, build(node).requirements)


def session_of(name: str, folder: Path) -> Session:
    """All that two steps of the method need; nothing is trained yet."""
    cfg = OmegaConf.load(conf_dir() / "method" / f"{name}.yaml")
    needs = locate(cfg._target_).requirements
    data = SEVERAL_SOURCES if needs.sources > 1 else DATA[needs.kind]
    overrides = [f"method={name}", f"data={data}", "trainer.steps=2"]
    if needs.open_set:
        overrides += ["data.label_spaces=open", "data.source_classes=[0, 1, 2, 3, 4]"]
    if needs.kind == "episodes":  # MAML learns anew in every one
        overrides += ["data.val_episodes=2", "data.test_episodes=10"]
    if "text" in cfg:  # vectors of the classes' names, as many numbers as the narrow net's features
        file = Path(folder).with_name("texts.npz")
        vectors = np.random.default_rng(0).standard_normal((10, FEATURES))
        np.savez(file, features=vectors, classes=np.arange(10).astype(str))
        overrides += [f"method.text={file}"]
    return small.session(folder, *overrides)
