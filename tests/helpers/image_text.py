"""Images and texts of six classes in one space, and runs of vision-language methods on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tlrun.cli.main import main

COMMON = (
    "data=features",
    "data.source=null",
    "data.target.path=images.npz",
    "backbone=mlp",
    "backbone.hidden=[]",
    "select=last",
    "report=none",
    "trainer.threads=1",
    "trainer.precision=fp32",
)


def write_space(folder: Path, seed: int = 1) -> None:
    """images.npz (600 of 32 dimensions), texts.npz (three near each mean) and one_text.npz."""
    draws = np.random.default_rng(seed)
    names = np.array([f"class{k}" for k in range(6)])
    means = draws.standard_normal((6, 32))
    y = np.arange(600) % 6
    images = means[y] + 1.6 * draws.standard_normal((600, 32))
    np.savez(folder / "images.npz", features=images, labels=names[y])
    texts = np.repeat(means, 3, 0) + 2.5 * draws.standard_normal((18, 32))
    np.savez(folder / "texts.npz", features=texts, classes=np.repeat(names, 3))
    np.savez(folder / "one_text.npz", features=texts[::3], classes=names)


def accuracy(folder: Path, *words: str) -> float:
    """Target test of `tlrun WORDS` in the working folder, where the files are."""
    assert main([*COMMON, *words, f"hydra.run.dir={folder}"]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    return float(summary["selected"]["target_test/accuracy"])
