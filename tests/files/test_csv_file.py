"""No cell of a csv is a formula, and every text comes back as it was."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlrun.data.examples.image_set import ImageSet
from tlrun.evaluate.evaluators.class_figures import write_predictions
from tlrun.files.csv_file import Writer, marked, read_rows, unmarked
from tlrun.inference.predict import Prediction, write_csv
from tlrun.report.read.run_record import read_record

NAMES = ("=1+1", "+cmd|'/C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "'=1", "＝1")


@pytest.mark.parametrize("name", NAMES)
def test_formulas_are_marked(name: str) -> None:
    assert marked(name) == f"'{name}"


@pytest.mark.parametrize("text", ["cat", "", "-0.5", "+1e-4", "1=1", "a-b", "'quoted'", "'", "'1"])
def test_the_rest_is_left_as_it_is(text: str) -> None:
    assert marked(text) == unmarked(text) == text


@given(st.text(alphabet=st.sampled_from("'=+-@\t\r\n 1.5ea＝"), max_size=8) | st.text(max_size=8))
def test_every_text_comes_back(text: str) -> None:
    assert unmarked(marked(text)) == text


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))))
def test_rows_come_back(cells: list[str]) -> None:
    stream = io.StringIO(newline="")
    writer = Writer(stream)
    writer.writerows([[f"c{n}" for n in range(len(cells) + 1)], ["x", *cells]])
    stream.seek(0)
    assert [list(row.values()) for row in read_rows(stream)] == [["x", *cells]]


def cells_of(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [cell for row in csv.reader(file) for cell in row]


def test_class_names_in_predictions(tmp_path: Path) -> None:
    path, k = tmp_path / "predictions.csv", len(NAMES)
    images = ImageSet("x", torch.zeros(k, 1, 2, 2, dtype=torch.uint8), torch.arange(k), NAMES)
    write_predictions(path, images, torch.arange(k), torch.eye(k), NAMES)
    assert not [c for c in cells_of(path) if c[:1] in tuple("=+-@\t\r＝") and c]
    (tmp_path / "label_space.json").write_text(json.dumps({"classes": NAMES}))
    (tmp_path / "config.yaml").touch()
    found = read_record(tmp_path).predictions
    assert found is not None
    assert found.label.tolist() == found.prediction.tolist() == list(range(k))


def test_those_of_predict(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    rows = [Prediction(f"{name}.png", name, 0.5) for name in NAMES]
    write_csv(path, Prediction._fields[:3], rows)
    with path.open(encoding="utf-8", newline="") as file:
        found = list(read_rows(file))
    assert [(row["path"], row["label"]) for row in found] == [(r.path, r.label) for r in rows]
    assert not [c for c in cells_of(path) if c[:1] in tuple("=+-@\t\r＝") and c]
