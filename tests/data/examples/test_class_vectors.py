"""Vectors of classes from language: word vectors in GloVe's format, prompts in a feature file."""

import numpy as np
import pytest

from tlrun.data.examples.attribute_table import read_table
from tlrun.data.examples.class_vectors import read_class_vectors
from tlrun.errors import DataError

GLOVE = """\
3 2
polar 1.0 0.0
bear 0.0 1.0
Tiger 0.6 -0.8
grizzly_bear 3.0 4.0
"""


def test_word_vectors(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(GLOVE)
    found = read_class_vectors(path, ["grizzly bear", "polar_bear", "Tiger", "001.Polar+bear"])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(found, [[0.6, 0.8], [half, half], [0.6, -0.8], [half, half]])
    with pytest.raises(DataError, match="no word 'sea' for the class 'Sea_Lion'"):
        read_class_vectors(path, ["Sea_Lion"])
    path.write_text("bear 1 2\npolar 1\npolar 1 x\n")
    with pytest.raises(DataError, match="cannot read the word vectors"):
        read_class_vectors(path, ["polar", "bear"])


def test_prompts_are_an_ensemble_of_unit_vectors(tmp_path):
    draws = np.random.default_rng(0)
    rows, names = draws.standard_normal((7, 5)), np.array(list("abacbca"))
    np.savez(tmp_path / "text.npz", features=rows, classes=names)
    found = read_class_vectors(tmp_path / "text.npz", ["c", "a"])
    for k, name in enumerate("ca"):
        mean = sum(row / np.sqrt((row**2).sum()) for row in rows[names == name])
        np.testing.assert_allclose(found[k], mean / np.sqrt((mean**2).sum()))
    with pytest.raises(DataError, match=r"'d' has no vector in .*text.npz"):
        read_class_vectors(tmp_path / "text.npz", ["d"])
    np.savez(tmp_path / "text.npz", features=np.zeros((1, 3)), classes=np.array(["a"]))
    with pytest.raises(DataError, match="without a direction"):
        read_class_vectors(tmp_path / "text.npz", ["a"])
    np.savez(tmp_path / "text.npz", features=rows)
    with pytest.raises(DataError, match="which class its rows describe"):
        read_class_vectors(tmp_path / "text.npz", ["a"])


def test_a_table_of_vectors(tmp_path):
    """What a zero-shot method takes for attributes."""
    path = tmp_path / "glove.txt"
    path.write_text(GLOVE)
    table = read_table(path, classes=("Tiger", "bear"))
    assert table.classes == ("Tiger", "bear")
    assert table.attributes == ("v1", "v2")
    np.testing.assert_allclose(table.values, [[0.6, -0.8], [0.0, 1.0]])
