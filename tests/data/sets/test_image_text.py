"""Made-up images near texts: what stays, what a world draws, and where the centres lie."""

import numpy as np
import pytest
import torch

from tlrun.data.examples.class_vectors import packaged, read_class_vectors
from tlrun.data.sets.image_text import image_text
from tlrun.errors import ConfigError

CLASSES = tuple(f"class{k}" for k in range(6))


def everything(**words):
    """All examples in one order, x (n, 32) and labels (n,)."""
    splits = image_text(**words)
    sets = [s for s in (splits.train, splits.val, splits.test) if s is not None]
    x = torch.cat([s.read(torch.arange(len(s))) for s in sets])
    y = torch.cat([s.labels for s in sets])
    order = np.lexsort(x.numpy().T)
    return x.numpy()[order], y.numpy()[order]


def test_a_world_is_drawn_by_its_number_and_cut_by_the_seed():
    x, y = everything(seed=1, world=3)
    again, _ = everything(seed=2, world=3)
    other, _ = everything(seed=1, world=4)
    np.testing.assert_array_equal(x, again)
    assert np.abs(x - other).max() > 1
    assert np.bincount(y).tolist() == [200] * 6
    first, second = (image_text(seed=s).test.labels for s in (1, 2))
    assert not torch.equal(first, second)


def test_the_images_lie_about_the_texts():
    """Without gap and variation an image is the mean of its texts, so no error is left."""
    x, y = everything(gap=0.0, variation=0.0)
    table = np.genfromtxt(packaged("image_text"), delimiter=",", skip_header=1)[:, 1:]
    np.testing.assert_allclose(x, table.reshape(6, 3, 32).mean(1)[y], atol=1e-6)
    x, y = everything(gap=0.0, variation=2.0, per_class=500)
    spread = np.stack([x[y == k].std(0) for k in range(6)])
    assert spread.mean() == pytest.approx(2, abs=0.02)


def test_its_texts_are_found_by_name_and_a_file_by_its_path(tmp_path):
    assert read_class_vectors(packaged("image_text"), CLASSES).shape == (6, 32)
    assert packaged(str(tmp_path / "texts.npz")) == tmp_path / "texts.npz"


def test_few_images_of_a_class_are_refused():
    with pytest.raises(ConfigError, match="at least 10"):
        image_text(per_class=9)
