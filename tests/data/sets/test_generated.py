"""MNIST-M made from MNIST and photographs: the formula, recomputed pixel by pixel."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.data_files import idx, put
from tlrun.data.sets import mnist, mnistm
from tlrun.errors import DataError

RNG = np.random.default_rng(1)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """12 + 6 digits and one smooth photograph per split, in BSDS500's archive layout."""
    monkeypatch.setenv("TLRUN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "cache"))
    for split, n in (("train", 12), ("t10k", 6)):
        digits = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        put(tmp_path / f"data/MNIST/raw/{split}-images-idx3-ubyte.gz", idx(digits))
        labels = np.arange(n, dtype=np.uint8) % 10
        put(tmp_path / f"data/MNIST/raw/{split}-labels-idx1-ubyte.gz", idx(labels))
    archive = tmp_path / "data" / mnistm.BSDS
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as tar:
        for split in ("train", "test"):
            out = io.BytesIO()
            Image.fromarray(RNG.integers(0, 256, (34, 30, 3), dtype=np.uint8)).save(out, "JPEG")
            info = tarfile.TarInfo(f"BSR/BSDS500/data/images/{split}/1.jpg")
            info.size = len(out.getvalue())
            tar.addfile(info, io.BytesIO(out.getvalue()))
    return archive


def test_every_image_is_a_photo_crop_minus_a_digit(small):
    digits = mnist.mnist().train
    target = mnistm.mnistm_generated().train
    (photo,) = mnistm.bsds_photos(small, "train")
    crops = np.lib.stride_tricks.sliding_window_view(photo, (28, 28, 3))[:, :, 0]
    crops = crops.reshape(-1, 28, 28, 3).transpose(0, 3, 1, 2).astype(int)
    used = []
    for image, label in zip(target.data.numpy(), target.labels.tolist(), strict=True):
        match = [
            i
            for i in range(12)
            if (np.abs(crops - digits.data[i].numpy().astype(int)) == image).all((1, 2, 3)).any()
        ]
        assert len(match) == 1
        assert digits.labels[match[0]] == label
        used += match
    assert sorted(used) == [1, 3, 5, 7, 9, 11]  # the source (digits=even) has the others
    assert used != sorted(used)  # in another order


def test_it_is_deterministic(small, tmp_path, monkeypatch):
    first = mnistm.mnistm_generated(seed=0)
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "other"))
    again = mnistm.mnistm_generated(seed=5)
    assert torch.equal(first.train.data, again.train.data)
    assert first.test.checksum == again.test.checksum


def test_a_damaged_archive_of_photographs(small):
    small.write_bytes(b"no tar")
    with pytest.raises(DataError, match="damaged"):
        mnistm.mnistm_generated()
