"""Files as data sets have them on disk, and the mark of tests that need the real ones."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REAL = os.environ.get("TLRUN_DATA")
real_data = pytest.mark.skipif(not REAL, reason="needs the real data sets: set TLRUN_DATA")


def write_image(path: Path, seed: int, mode: str = "RGB", size: tuple[int, int] = (20, 16)) -> Path:
    """A random image file; the extension decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def put(path: Path, content: bytes) -> Path:
    """Write a file, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def idx(array: np.ndarray) -> bytes:
    """The array of uint8 in the gzipped format of MNIST's files."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(head + array.tobytes())
