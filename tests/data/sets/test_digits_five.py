"""Digits-Five from the authors' files, made tiny, and from the sets of the same names."""

import numpy as np
import pytest
import torch
from scipy.io import savemat

from helpers.data_files import real_data
from tlrun.config.compose import compose
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.data.sets.digits_five import FILES, digits_five
from tlrun.errors import DataError

LABELS = {"train": np.arange(30) % 10, "test": np.arange(20) % 10}


def images(split, *shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (len(LABELS[split]), *shape), dtype=np.uint8)


@pytest.fixture
def authors(tmp_path, no_data, monkeypatch):
    """The six files as they are published: axes, one-hot labels, cells, 10 for 0 (SVHN)."""
    home = tmp_path / "sets" / "Digit-Five"
    home.mkdir(parents=True)
    hot = {f"label_{s}": np.eye(10)[labels] for s, labels in LABELS.items()}
    flat = {f"{s}_label": labels[:, None] for s, labels in LABELS.items()}
    savemat(home / "mnist_data.mat", {f"{s}_32": images(s, 32, 32) for s in LABELS} | hot)
    savemat(home / "mnistm_with_label.mat", {s: images(s, 28, 28, 3) for s in LABELS} | hot)
    savemat(home / "syn_number.mat", {f"{s}_data": images(s, 32, 32, 3) for s in LABELS} | flat)
    for split, labels in LABELS.items():
        x = images(split, 32, 32, 3).transpose(1, 2, 3, 0)
        y = np.where(labels == 0, 10, labels)[:, None]
        savemat(home / f"svhn_{split}_32x32.mat", {"X": x, "y": y})
    cells = np.empty((2, 2), object)
    for i, (split, labels) in enumerate(LABELS.items()):
        cells[i] = [images(split, 1, 28, 28) / 255, labels[:, None]]
    savemat(home / "usps_28x28.mat", {"dataset": cells})
    monkeypatch.setenv("TLRUN_DATA", str(tmp_path / "sets"))
    return home


@pytest.mark.parametrize("domain", FILES)
def test_the_authors_files(domain, authors):
    side = 28 if domain in ("mnist_m", "usps") else 32
    for splits in (
        digits_five(domains=[domain], size=side),
        digits_five(domains=[domain], size=side, root=str(authors)),
    ):
        assert [len(splits.train), len(splits.test)] == [30, 20]
        assert splits.test.labels.tolist() == LABELS["test"].tolist()
        colours = () if domain in ("mnist", "usps") else (3,)
        expected = images("test", *((1,) if domain == "usps" else ()), side, side, *colours)
        pixels = splits.test.read(torch.arange(20)).numpy()
        if colours:
            expected = expected.transpose(0, 3, 1, 2)
        assert np.array_equal(pixels, expected.reshape(pixels.shape))


def test_the_draw_is_fixed(authors):
    few = [digits_five(domains=["syn"], seed=seed, max_train=7, max_test=None) for seed in (0, 1)]
    assert [len(few[0].train), len(few[0].test)] == [7, 20]
    assert few[0].train.checksum == few[1].train.checksum


def test_a_joined_target_and_several_sources(authors):
    cfg = compose(["data=digits_five", "data.target=[syn,usps]"])
    data = build_data(cfg.data, Options(seed=0))
    assert data.sources == ("mnist", "mnist_m", "svhn")
    assert len(data.role("target_test")) == 40
    assert data.role("target_train").labels is None
    assert data.role("target_test").read(torch.arange(40)).shape == (40, 3, 32, 32)


def test_absent(tmp_path, no_data, monkeypatch):
    monkeypatch.setenv("TLRUN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"Digits-Five \(syn\) is not .* Digit-Five/syn_number.mat"):
        digits_five(domains=["syn"])
    with pytest.raises(DataError, match="MNIST is not on this machine"):
        digits_five(domains=["mnist"], download=False)


@real_data
def test_the_sets_of_the_same_names():
    mnist, usps = (digits_five(domains=[name]) for name in ("mnist", "usps"))
    assert [len(mnist.train), len(mnist.test)] == [25_000, 9_000]
    assert [len(usps.train), len(usps.test)] == [7_291, 2_007]
    assert mnist.card.notes == ["from the set mnist"]
