"""Rows of metrics.jsonl: evaluations alone are those that are left of all rows."""

import json

import pytest

from tlrun.report.read.rows import read_evaluations, read_rows

ROWS = [
    {"step": 0, "phase": "source", "split": "eval", "source_val/accuracy": 0.1},
    {"step": 10, "phase": "source", "split": "train", "loss/classification": 2.0, "time": 0.1},
    {"step": 10, "phase": "source", "split": "eval", "source_val/accuracy": 0.5},
    {"step": 12, "phase": "source", "split": "train", "loss/a": None, "metric/b": {"c": 1}},
    {"step": 5, "phase": "adapt", "split": "train", "loss/classification": 1.0},  # counts anew
    {"step": 5, "phase": "adapt", "split": "eval", "source_val/accuracy": 0.7},
    {"split": "eval", "step": 8, "phase": 'a "name"', "x": 1},
    {"step": 9, "phase": 'a "name"', "split": "train", "loss/a": 1},
    {"step": 9, "phase": 'a "name"', "split": "eval", "x": 2},
]


@pytest.mark.parametrize("torn", ["", '{"step": 11, "phase": "adapt", "split": "train", "loss'])
def test_evaluations_alone_are_those_of_all_rows(torn, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)) + f"\nno json\n[1]\n{torn}")
    rows = [row for row in read_rows(path) if row["split"] == "eval"]
    assert read_evaluations(path) == rows
    assert [row["global_step"] for row in rows] == [0, 10, 17, 20, 21]
    assert read_evaluations(tmp_path / "none") == []
