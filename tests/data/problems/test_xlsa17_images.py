"""xlsa17's proposed splits with the images themselves, in a tiny copy of AwA2's layout."""

import numpy as np
import pytest
from scipy.io import savemat

from helpers.data_files import write_image
from tlrun.data.problems.options import Options
from tlrun.data.problems.zero_shot import xlsa17
from tlrun.errors import DataError

CLASSES = ("antelope", "grizzly+bear", "killer+whale")
EACH = 12


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "cache"))
    names = [f"{c}/{c}_1{i:04d}.jpg" for c in CLASSES for i in range(EACH)]
    for n, name in enumerate(names):
        write_image(tmp_path / "JPEGImages" / name, n)
    theirs = [f"/BS/work/data/Animals_with_Attributes2//JPEGImages/{name}" for name in names]
    cells = np.array([[np.array([name], object)] for name in theirs], object)
    labels = np.repeat(np.arange(1, 4), EACH)[:, None]
    features = np.zeros((4, len(names)))
    savemat(tmp_path / "res101.mat", {"image_files": cells, "labels": labels, "features": features})
    row = np.arange(1, 2 * EACH + 1)
    savemat(
        tmp_path / "att_splits.mat",
        {
            "att": np.eye(3),
            "allclasses_names": np.array([[c] for c in CLASSES], object),
            "trainval_loc": row[row % 4 != 0][:, None],
            "test_seen_loc": row[row % 4 == 0][:, None],
            "test_unseen_loc": np.arange(2 * EACH + 1, 3 * EACH + 1)[:, None],
        },
    )
    return tmp_path


def load(folder, images="JPEGImages"):
    place = str(folder / images)
    return xlsa17(options=Options(), path=str(folder), images=place, size=12, normalize="half")


def test_images_by_the_published_rows(folder):
    data = load(folder)
    sizes = {role: len(data.role(role)) for role in ("source_test", "target_test")}
    assert sizes == {"source_test": 6, "target_test": EACH}
    assert len(data.role("source_train")) + len(data.role("source_val")) == 18
    assert data.role("source_train").shape == (3, 12, 12)
    for role in ("source_train", "source_test", "target_test"):
        examples = data.role(role)
        for path, label in zip(examples.paths, examples.labels.tolist(), strict=True):
            assert f"/{examples.classes[label]}/" in path


def test_what_is_not_there_is_named(folder):
    with pytest.raises(DataError, match=r"data\.images=.* holds no 'antelope/antelope_10000\.jpg'"):
        load(folder, "..")
    (folder / "JPEGImages" / "antelope" / "antelope_10003.jpg").unlink()
    with pytest.raises(DataError, match=r"no image at '.*antelope_10003\.jpg'"):
        load(folder)
