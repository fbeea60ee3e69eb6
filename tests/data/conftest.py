"""Shared pieces of the data tests: a private cache, one thread, small image folders, real data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

REAL = os.environ.get("TLRUN_DATA")
real_data = pytest.mark.skipif(not REAL, reason="needs the real data sets: set TLRUN_DATA")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """A machine with an empty cache and no TLRUN_DATA."""
    monkeypatch.delenv("TLRUN_DATA", raising=False)
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_image(path: Path, seed: int, mode: str = "RGB", size: tuple[int, int] = (20, 16)) -> Path:
    """A random image file; the extension decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def image_folder(tmp_path, no_data):
    """make(name, {class: count}) -> a folder per class."""

    def make(name: str, counts: dict[str, int], seed: int = 0) -> Path:
        root = tmp_path / name
        for c, (label, count) in enumerate(counts.items()):
            for i in range(count):
                write_image(root / label / f"{i}.png", seed + 1000 * c + i)
        return root

    return make
