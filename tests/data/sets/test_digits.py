"""The bundled pair: the recipe is recomputed here without the package's own functions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.data.sets import digits

CONF = Path(__file__).parents[3] / "conf" / "data"


@pytest.fixture(scope="module")
def data():
    return build_data(
        OmegaConf.load(CONF / "digits_digitsm.yaml"), Options(seed=0, target_labels="all")
    )


def test_checksums(data):
    got = {
        f"{name}/{split}": data.role(f"{domain}_{split}").checksum
        for domain, name in (("source", "digits"), ("target", "digits_m"))
        for split in ("train", "val", "test")
    }
    assert got == digits.CHECKSUMS


def test_no_digit_is_in_two_parts():
    parts = [digits.part(d, s) for d in ("source", "target") for s in ("train", "val", "test")]
    assert sorted(np.concatenate(parts).tolist()) == list(range(1797))


def test_source_digit_is_the_enlarged_scan(data):
    index = digits.part("source", "test")[7]
    small = np.rint(load_digits().images[index] / 16 * 255).astype(np.uint8)
    want = np.asarray(Image.fromarray(small).resize((24, 24), Image.Resampling.BICUBIC))
    got = data.role("source_test").read(torch.tensor([7]))[0, 0].numpy()
    assert np.array_equal(got[2:26, 2:26], want)
    assert got.sum() == want.sum(dtype=int)
    assert data.role("source_test").labels[7] == load_digits().target[index]


def test_target_image_is_photo_minus_digit(data):
    """Outside the digit a target image is a piece of one of the photographs, unchanged."""
    image = data.role("target_train").read(torch.tensor([4]))[0].permute(1, 2, 0).numpy()
    corner = image[:2]  # the padding: two rows of 28 pixels
    places = 0
    for photo in load_sample_images().images:
        windows = np.lib.stride_tricks.sliding_window_view(photo, (2, 28, 3))[:-26, :, 0]
        places += int((windows == corner).all((2, 3, 4)).sum())
    assert places == 1


def test_three_crops_per_training_digit(data):
    labels = data.role("target_train").labels.view(-1, 3)
    assert (labels == labels[:, :1]).all()
    assert len(data.role("target_train")) == 1800
    assert len(data.role("target_test")) == 201


def test_nothing_depends_on_the_seed(data):
    other = build_data(OmegaConf.load(CONF / "digits_digitsm.yaml"), Options(seed=9))
    assert other.role("target_train").checksum == data.role("target_train").checksum
    assert other.role("source_val").checksum == data.role("source_val").checksum


def test_files_that_scikit_learn_keeps_elsewhere(tmp_path, monkeypatch):
    _, labels = digits.enlarged()
    photos = digits._photos()
    monkeypatch.setattr(digits, "_sklearn_datasets", lambda: tmp_path)
    scans, found = digits._scans()
    assert np.array_equal(scans, load_digits().images)
    assert np.array_equal(found, labels)
    assert np.array_equal(digits._photos(), photos)
