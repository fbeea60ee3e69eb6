"""The public sets: readers on small files of the same format, and the real ones where they are."""

import bz2
import gzip
import io
import os
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from helpers.data_files import idx, put, real_data
from tlrun.data.sets import mnist, mnistm, svhn, usps
from tlrun.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("TLRUN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def png(array):
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def small_mnist(root):
    for split, n in (("train", 12), ("t10k", 6)):
        images = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        put(root / f"MNIST/raw/{split}-images-idx3-ubyte.gz", idx(images))
        put(
            root / f"MNIST/raw/{split}-labels-idx1-ubyte.gz", idx(np.arange(n, dtype=np.uint8) % 10)
        )
    return root


def test_mnist_reads_gz_in_place(small_mnist):
    parts = mnist.mnist()
    assert parts.train.shape == (1, 28, 28)
    assert parts.train.labels.tolist() == [*range(10), 0, 1]
    assert not any(p.suffix != ".gz" for p in (small_mnist / "MNIST/raw").iterdir())
    odd = mnist.mnist(digits="odd").train
    assert odd.labels.tolist() == [1, 3, 5, 7, 9, 1]
    assert mnist.mnist(size=32, fit="center").train.data[:, :, 2:30, 2:30].equal(parts.train.data)
    with pytest.raises(ConfigError, match="all, even or odd"):
        mnist.mnist(digits="some")


def test_labels_are_read_anew_and_the_cache_holds_none(small_mnist):
    before = mnist.mnist().train
    labels = np.zeros(12, np.uint8)
    put(small_mnist / "MNIST/raw/train-labels-idx1-ubyte.gz", idx(labels))
    after = mnist.mnist().train
    assert after.labels.sum() == 0
    assert after.checksum == before.checksum


def test_damaged_idx(root):
    for damage in (b"nonsense", gzip.compress(b"\0\0\x08"), idx(np.zeros((4, 4), np.uint8))[:-9]):
        path = put(root / "x.gz", damage)
        with pytest.raises(DataError, match="damaged"):
            mnist.read_idx(path)


def mnistm_zip(root, split, images):
    path = root / f"MNIST-M/mnist_m_{split}{'_first' if split == 'train' else ''}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for i in reversed(range(len(images))):
            archive.writestr(f"mnist_m_{split}/{i:08}.png", png(images[i]))
    lines = "".join(f"{i:08}.png {i % 10}\n" for i in range(len(images) + 3))  # more than there are
    put(root / f"MNIST-M/mnist_m_{split}_labels.txt", lines.encode())


def test_mnistm_zip(root):
    images = RNG.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    for split in ("train", "test"):
        mnistm_zip(root, split, images)
    parts = mnistm.mnistm()
    assert np.array_equal(parts.train.data.numpy(), images[:, 2:30, 2:30].transpose(0, 3, 1, 2))
    assert parts.train.labels.tolist() == [0, 1, 2, 3, 4]
    assert "5 of Ganin's 59,001 train images" in parts.card.notes[0]
    (root / "MNIST-M/mnist_m_test_labels.txt").write_text("00000000.png 3\n")
    with pytest.raises(DataError, match=r"no label for '00000001\.png'"):
        mnistm.mnistm()


def release(root, split, content, name=None):
    raw = io.BytesIO()
    torch.save(content, raw)
    path = root / f"MNIST-M/mnist_m_{split}.pt.tar.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name or f"mnist_m_{split}.pt")
        info.size = raw.tell()
        raw.seek(0)
        tar.addfile(info, raw)
    return path


def test_mnistm_release(root):
    images = torch.randint(0, 256, (6, 28, 28, 3), dtype=torch.uint8)
    for split in ("train", "test"):
        release(root, split, (images, torch.arange(6)))
    for _ in range(2):  # decoded, then from the cache
        parts = mnistm.mnistm()
        assert torch.equal(parts.train.data, images.permute(0, 3, 1, 2))
        assert parts.test.labels.tolist() == list(range(6))


class Evil:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_a_pickle_in_the_release_is_not_run(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = release(root, "train", (Evil(), 1))
    with pytest.raises(DataError, match="only tensors and plain values"):
        mnistm.read_release(path, "mnist_m_train.pt")
    assert not (tmp_path / "pwned").exists()


def test_a_path_in_the_archive_cannot_escape(root, tmp_path):
    images = torch.zeros(2, 28, 28, 3, dtype=torch.uint8)
    path = release(root, "train", (images, torch.arange(2)), "../../mnist_m_train.pt")
    before = sorted(tmp_path.rglob("*"))
    assert mnistm.read_release(path, "mnist_m_train.pt")[0].shape == (2, 3, 28, 28)
    assert sorted(tmp_path.rglob("*")) == before  # nothing was unpacked


def test_usps_text(root):
    values = RNG.uniform(-1, 1, (4, 256))
    text = "".join(
        f"{label} " + " ".join(f"{i}:{v:.6f}" for i, v in enumerate(row, 1)) + " \n"
        for label, row in zip((10, 1, 5, 2), values, strict=True)
    )
    for name in ("usps.bz2", "usps.t.bz2"):
        put(root / "USPS" / name, bz2.compress(text.encode()))
    parts = usps.usps(size=16)
    want = ((np.round(values, 6).astype(np.float32) + 1) / 2 * 255).astype(np.uint8)
    assert np.array_equal(parts.train.data.numpy().reshape(4, 256), want)
    assert parts.train.labels.tolist() == [9, 0, 4, 1]
    assert "not the published file" in parts.card.notes[0]
    assert usps.usps().train.data[:, :, :4].sum() == 0
    put(root / "USPS/usps.bz2", b"damaged")
    with pytest.raises(DataError, match="damaged"):
        usps.usps()


def test_svhn_mat(root):
    for n, name in ((5, "train"), (3, "test"), (2, "extra")):
        images = RNG.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
        (root / "SVHN").mkdir(parents=True, exist_ok=True)
        labels = np.arange(10, 10 - n, -1)[:, None]
        savemat(root / f"SVHN/{name}_32x32.mat", {"X": images, "y": labels})
    parts = svhn.svhn()
    assert parts.train.labels.tolist() == [0, 9, 8, 7, 6]
    assert parts.train.shape == (3, 32, 32)
    assert len(svhn.svhn(extra=True).train) == 7
    (root / "SVHN/test_32x32.mat").write_bytes(b"damaged")
    with pytest.raises(DataError, match="damaged"):
        svhn.svhn()


def test_sources_and_checksums_are_torchvisions():
    datasets = pytest.importorskip("torchvision.datasets", exc_type=(ImportError, RuntimeError))
    assert dict(datasets.MNIST.resources) == mnist.MD5
    assert set(mnist.MIRRORS) <= set(datasets.MNIST.mirrors)
    assert {v[1]: v[2] for v in datasets.USPS.split_list.values()} == usps.MD5
    assert {v[1]: v[2] for v in datasets.SVHN.split_list.values()} == svhn.MD5


@real_data
def test_real_mnist_and_mnistm_show_the_same_digits():
    """Image i of MNIST-M is MNIST digit i: the labels agree."""
    grey, colour = mnist.mnist(), mnistm.mnistm()
    n = len(colour.train)
    agree = (grey.train.labels[:n] == colour.train.labels).float().mean()
    assert agree > 0.999
    assert len(colour.test) == 9001
    assert (grey.test.labels[:9001] == colour.test.labels).float().mean() > 0.999


@real_data
def test_real_usps_equals_torchvision():
    datasets = pytest.importorskip("torchvision.datasets", exc_type=(ImportError, RuntimeError))
    theirs = datasets.USPS(os.path.join(os.environ["TLRUN_DATA"], "USPS"), train=False)
    ours = usps.usps(size=16).test
    assert np.array_equal(ours.data[:, 0].numpy(), theirs.data)
    assert ours.labels.tolist() == theirs.targets


@real_data
def test_generated_mnistm():
    source, target = mnist.mnist(digits="even"), mnistm.mnistm_generated()
    assert target.train.checksum == mnistm.GENERATED["train"]
    assert target.test.checksum == mnistm.GENERATED["test"]
    assert len(source.train) == len(target.train) == 30_000
    assert (source.train.labels == target.train.labels).float().mean() < 0.12  # another order
