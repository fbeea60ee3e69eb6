"""Pictures that a run describes itself: each kind is drawn, a damaged entry is left out."""

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.html_page import Page
from helpers.run_folders import make_run
from tlrun.report.figures.picture_kinds import (
    _decimals,
    draw_bars,
    draw_heatmap,
    draw_lines,
    numbers,
)
from tlrun.report.figures.pictures import read_pictures
from tlrun.report.pages.write import write_report
from tlrun.report.read.entries import Missing
from tlrun.run_folder.run_dir import RunDir

HEATMAP = {
    "name": "matrix",
    "title": "Task matrix",
    "text": "After learning each task.",
    "kind": "heatmap",
    "x": ["a", "b"],
    "y": ["first", "second"],
    "values": [[90.5, None], [70, 80]],
    "unit": "%",
}
LINES = {
    "name": "by-shot",
    "title": "By shots",
    "kind": "lines",
    "x_label": "shots",
    "series": [{"name": "ours", "x": [1, 5], "y": [40, None], "error": [1, 2]}],
}
BARS = {
    "name": "gain",
    "kind": "bars",
    "labels": ["box", "mask"],
    "series": [{"name": "joint", "values": [1, -2]}, {"name": "alone", "values": [None, 0]}],
}


def write(path: Path, entries: object) -> Path:
    path.write_text(json.dumps(entries))
    return path


@pytest.mark.usefixtures("no_plots")
def test_each_kind_becomes_a_file_and_a_section(tmp_path: Path) -> None:
    run = RunDir(make_run(tmp_path / "run", images=20))
    damaged = [{**HEATMAP, "name": "bad", "title": "Torn", "x": ["a"]}, {**BARS, "name": "../x"}, 7]
    write(run.pictures, [HEATMAP, *damaged, LINES, BARS])
    page = Page(write_report(run.path))
    page.assert_self_contained()
    assert {path.stem for path in run.plots.iterdir()} == {"matrix", "by-shot", "gain"}
    assert page.tags.count("img") == 3
    places = [page.text.index(text) for text in ("Task matrix", "After learning", "By shots")]
    assert places == sorted(places)
    assert "gain" in page.text  # no title: the name stands for it
    assert "Torn: row 1 of 'values' has 2 entries, not 1." in page.text
    assert "pictures.json, entry 3: its name is '../x'" in page.text
    assert "pictures.json, entry 4: it is no object" in page.text


@pytest.mark.parametrize(("content", "reason"), [("{torn", "JSON"), ("{}", "no list")])
def test_a_damaged_file_is_one_reason(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "pictures.json"
    path.write_text(content)
    (picture,) = read_pictures(path)
    with pytest.raises(Missing, match=reason):
        picture.draw(tmp_path / "x.png")


def test_names_are_taken_once(tmp_path: Path) -> None:
    path = write(tmp_path / "pictures.json", [{**BARS, "name": "curves"}, LINES, LINES])
    first, second, third = read_pictures(path, taken=("curves",))
    assert second.name == "by-shot"
    for picture in (first, third):
        with pytest.raises(Missing, match="is taken"):
            picture.draw(tmp_path / "x.png")
    assert read_pictures(tmp_path / "none.json") == []


@pytest.mark.parametrize(
    ("draw", "entry", "reason"),
    [
        (draw_heatmap, {**HEATMAP, "values": [[None, None]] * 2}, "holds no number"),
        (draw_heatmap, {**HEATMAP, "values": [[1, 2]]}, "1 entries, not 2"),
        (draw_heatmap, {**HEATMAP, "x": []}, "'x' is no list"),
        (draw_lines, {**LINES, "series": []}, "'series' is no list"),
        (draw_lines, {"series": [{"x": [1, "b"], "y": [1, 2]}]}, "mixes"),
        (draw_lines, {"series": [{"x": [1, 2], "y": [1]}]}, "1 entries, not 2"),
        (draw_lines, {"series": [{"x": [1], "y": [1], "error": [True]}]}, "no number"),
        (draw_bars, {**BARS, "series": [3]}, "no object"),
        (draw_bars, {**BARS, "labels": ["box"]}, "2 entries, not 1"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, draw, entry, reason: str) -> None:
    with pytest.raises(Missing, match=reason):
        draw(entry, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_an_unknown_kind_names_the_known_ones(tmp_path: Path) -> None:
    (picture,) = read_pictures(write(tmp_path / "p.json", [{**BARS, "kind": "pie"}]))
    with pytest.raises(Missing, match="'pie', not one of heatmap, lines, bars"):
        picture.draw(tmp_path / "x.png")


def test_large_and_awkward_content_is_drawn(tmp_path: Path) -> None:
    names = [f"$name_{k}$ of some length" for k in range(60)]
    values = [[float(i - j) for j in range(60)] for i in range(60)]
    draw_heatmap({**HEATMAP, "x": names, "y": names, "values": values}, tmp_path / "h.png")
    series = [{"name": name, "x": names, "y": values[0]} for name in names[:10]]
    draw_lines({"series": series}, tmp_path / "l.png")
    draw_bars({"labels": names, "series": [{"values": values[1]}]}, tmp_path / "b.png")
    assert len(list(tmp_path.glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("values", "narrow", "decimals"),
    [
        ([95.1, 3.0], False, 1),
        ([95.1], True, 0),
        ([1.5, -0.2], False, 2),
        ([12345.0], False, 0),
        ([0.0], False, 2),
        ([0.0004, float("nan")], False, 6),
    ],
)
def test_numbers_of_a_picture_share_their_decimals(values, narrow, decimals) -> None:
    assert _decimals(np.array(values), narrow) == decimals


def test_null_and_nan_are_gaps() -> None:
    assert str(numbers([1, None, float("nan")], "it", 3).tolist()) == "[1.0, nan, nan]"
