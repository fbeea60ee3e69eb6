"""Attribute tables in their published formats, and the split into seen and unseen classes."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from helpers import zero_shot
from helpers.data_files import real_data
from tlrun.config.compose import compose
from tlrun.data.examples import attribute_table
from tlrun.data.examples.attribute_table import read_table
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.data.problems.zero_shot import refuse_overlap
from tlrun.errors import ConfigError, DataError
from tlrun.files.archives import load_mat

STROKES = "150c0ba7a15ae33f2a6b3e3c995d9a59e5bfb69499f2a5f15d1dc67529fd7649"


def test_the_strokes_are_those_written_before_any_training():
    path = Path(attribute_table.__file__).parents[1] / "sets" / "digit_strokes.csv"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == STROKES
    table = read_table(bundled="digit_strokes")
    assert table.classes == tuple("0123456789")
    assert len(np.unique(table.values, axis=0)) == 10


def test_csv(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("class,legs,fur\nant,6,0\ncat,4,\n")
    table = read_table(path)
    assert table.attributes == ("legs", "fur")
    np.testing.assert_array_equal(table.rows_of(["cat", "ant"]), [[4, np.nan], [6, 0]])
    path.write_text("\ufeffClass; legs ;fur\nant;6;0,5\ncat;4;\n")  # as a spreadsheet writes it
    found = read_table(path)
    assert found.attributes == ("legs", "fur")
    np.testing.assert_array_equal(found.rows_of(["cat", "ant"]), [[4, np.nan], [6, 0.5]])
    for text, message in (
        ("legs,fur\n1,2\n", "begins with a line"),
        ("class,legs\nant,six\n", "example 1: 'six' in column legs is no number"),
        ("class,legs\nant,6,7\n", "example 1: 3 cells under 2 names"),
        ("class,legs\nant,6\nant,6\n", "'ant' stands twice"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_table(path)
    with pytest.raises(DataError, match="no row in the attribute table"):
        table.rows_of(["catt"])


@real_data
def test_the_published_tables_agree():
    awa = read_table(bundled="awa2")
    assert awa.values.shape == (50, 85)
    assert np.isnan(awa.values).sum() == 4
    binary = read_table(bundled="awa2", matrix="binary").values
    assert set(np.unique(binary)) == {0.0, 1.0}
    root = attribute_table.find(attribute_table.PUBLISHED["awa2"]).parent / "xlsa17/data"
    mat = read_table(root / "AWA2" / "att_splits.mat")
    np.testing.assert_allclose(mat.rows_of(awa.classes), awa.values)
    cub = read_table(bundled="cub")
    assert cub.values.shape == (200, 312)
    assert np.nanmax(cub.values) <= 1


def test_the_groups_and_the_roles():
    data = zero_shot.data()
    assert data.classes == ("ant", "cat", "elk", "gnu", "bee", "hen", "dog", "fox")
    present = {
        role: {data.classes[k] for k in data.role(role).labels.tolist()}
        for role in ("source_train", "source_val", "source_test", "target_test")
    }
    assert present["source_train"] == present["source_test"] == {"ant", "cat", "elk", "gnu"}
    assert present["source_val"] == {"ant", "cat", "elk", "gnu", "bee", "hen"}
    assert present["target_test"] == {"dog", "fox"}
    assert data.role("target_train") is data.role("target_val") is None


def digits(*words):
    return build_data(
        compose(["data=digits_attributes", "method=eszsl", *words]).data, Options(seed=0)
    )


def test_the_bundled_digits():
    data = digits()
    assert data.kind == "attributes"
    assert data.facts.unseen == ["6", "9"]
    assert data.classes[-4:] == ("2", "5", "6", "9")
    assert len(digits("data.validation=[]", "data.draw_validation=3").facts.validation) == 3
    with pytest.raises(ConfigError, match="both unseen and for validation"):
        digits("data.validation=['6']")
    with pytest.raises(ConfigError, match="no class '66'"):
        digits("data.unseen=['66']")
    with pytest.raises(ConfigError, match="not both"):
        digits("data.draw_validation=2")


def test_training_rows_that_meet_test_rows_are_refused(tmp_path):
    draws = np.random.default_rng(0)
    label = np.repeat([1, 2, 3, 4], 6)
    rows = np.arange(1, 25)
    savemat(tmp_path / "res101.mat", {"features": draws.random((5, 24)), "labels": label[:, None]})
    names = np.array([["ant"], ["bee"], ["cat"], ["dog"]], dtype=object)
    locations = {
        "trainval_loc": rows[(label < 4) & (rows % 3 > 0)],
        "test_seen_loc": rows[(label < 4) & (rows % 3 == 0)],
        "test_unseen_loc": rows[label == 4],
        "train_loc": rows[label < 3],
        "val_loc": rows[label == 3],
    }
    splits = {"att": draws.random((3, 4)), "allclasses_names": names, **locations}
    savemat(tmp_path / "att_splits.mat", splits)
    conf = {"_target_": "tlrun.data.problems.zero_shot.xlsa17", "path": str(tmp_path)}
    data = build_data(conf, Options(seed=0))
    assert data.facts.unseen == ["dog"]
    assert data.facts.ready_features
    with pytest.raises(DataError, match=r"6 of 6 test rows are training rows too.*trainval_loc"):
        build_data({**conf, "train": ["train_loc", "val_loc"]}, Options(seed=0))


@real_data
@pytest.mark.parametrize("name", ["AWA1", "AWA2", "SUN"])
def test_the_trap_of_xlsa17_is_refused(name):
    root = attribute_table.find(attribute_table.PUBLISHED["awa2"]).parent
    found = load_mat(root / "xlsa17/data" / name / "att_splits.mat")
    tested = found["test_seen_loc"].ravel()
    refuse_overlap(found["trainval_loc"].ravel(), tested, name)
    trap = np.concatenate([found["train_loc"].ravel(), found["val_loc"].ravel()])
    with pytest.raises(DataError, match=f"{len(tested):,} of {len(tested):,} test rows"):
        refuse_overlap(trap, tested, name)


def test_per_class_limits_the_training_images():
    few = digits("data.per_class=20")
    counts = torch.bincount(few.role("source_train").labels)
    assert counts.max() <= 20
    assert len(few.role("source_test")) == len(digits().role("source_test"))
