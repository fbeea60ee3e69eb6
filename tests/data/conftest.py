"""Fixtures of the data tests: a private cache, one thread, small folders of images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.data_files import write_image


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
