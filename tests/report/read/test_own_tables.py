"""Tables that a run describes itself."""

import json
from pathlib import Path

import pytest

from helpers.html_page import Page
from helpers.run_folders import make_run
from tlrun.report.pages.write import write_report
from tlrun.report.read.own_tables import read_tables
from tlrun.run_folder.run_dir import RunDir

TABLE = {
    "name": "shots",
    "title": "By <way> and shot",
    "text": "Over 600 episodes.",
    "columns": ["setting", "accuracy", "note"],
    "rows": [["1-shot", "48.3 ± 0.6", "text"], [5, 1234.5, None], ["x", 0.123456, True]],
}


@pytest.mark.usefixtures("no_plots")
def test_tables_are_sections_of_the_page(tmp_path: Path) -> None:
    run = RunDir(make_run(tmp_path / "run", images=20))
    run.tables.write_text(
        json.dumps([TABLE, {**TABLE, "name": "b", "title": "Bad", "rows": [[1]]}])
    )
    page = Page(write_report(run.path))
    for expected in ("By <way> and shot", "Over 600 episodes.", "48.3 ± 0.6"):
        assert expected in page.text
    assert "Bad: a row has not 3 cells, one per column." in page.text


def test_how_cells_are_written(tmp_path: Path) -> None:
    path = tmp_path / "tables.json"
    path.write_text(json.dumps([TABLE]))
    (table,), left_out = read_tables(path)
    assert table.rows[1:] == [["5", "1,234", "–"], ["x", "0.1235", "true"]]
    assert table.numeric == [False, True, False]
    assert left_out == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{torn", "JSON"),
        ("[3]", "no object"),
        (json.dumps([{**TABLE, "columns": []}]), "'columns' is no list"),
        (json.dumps([{**TABLE, "rows": []}]), "'rows' is no list"),
    ],
)
def test_damaged_tables_are_left_out(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "tables.json"
    path.write_text(content)
    tables, left_out = read_tables(path)
    assert tables == []
    assert reason in left_out[0][1]


def test_a_name_is_taken_once_and_no_file_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "tables.json"
    assert read_tables(path) == ([], [])
    path.write_text(json.dumps([TABLE, TABLE]))
    tables, left_out = read_tables(path)
    assert len(tables) == 1
    assert "is taken" in left_out[0][1]
