"""A search in a sweep folder: read leniently, shown with what the oracle would have chosen."""

import csv
import json
from pathlib import Path

import pytest

from helpers.html_page import Page
from helpers.run_folders import make_search
from tlrun.report.figures.search_plots import _spans_decades, draw_history, draw_params
from tlrun.report.pages.write import write_report
from tlrun.report.read.entries import Missing
from tlrun.report.read.run_record import read_record
from tlrun.report.statistics.search import SearchRecord, fresh_seeds, read_search, sentences, table

METRIC = "target_test/accuracy"


def found_in(path: Path) -> SearchRecord:
    jobs = [read_record(job) for job in sorted(path.glob("job*"))]
    found = read_search(path, jobs, METRIC)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_search(tmp_path_factory.mktemp("search") / "search")
    write_report(path)
    return path


def test_best_and_oracle(folder: Path) -> None:
    found = found_in(folder)
    assert found.best is not None
    assert found.oracle is not None
    assert (found.best.number, found.oracle.number) == (1, 2)
    assert found.params == ["optimizer.lr"]  # "net" has one value only
    assert found.spearman() == pytest.approx(0.5)
    assert [row.trial.number for row in table(found)] == [1, 2, 0, 3]
    text = " ".join(sentences(found))
    assert "4 trials (3 completed, 1 failed) by the sampler tpe, for the highest" in text
    assert "Best: trial 1 with 2: optimizer.lr=0.001 net=a." in text
    assert "the oracle would have chosen trial 2 with 90.0 %" in text.replace("The o", "the o")
    assert "the search lost 10.0 points" in text


def test_without_target_test_nothing_else_takes_its_place(folder: Path) -> None:
    jobs = [read_record(job) for job in sorted(folder.glob("job*"))]
    found = read_search(folder, jobs, "source_test/accuracy")  # evaluate.target_test=false
    assert found is not None
    assert found.oracle is None
    assert [trial.test for trial in found.trials] == [None] * 4
    assert "Target test was left out" in " ".join(sentences(found))


def test_a_trial_of_several_seeds(tmp_path: Path) -> None:
    folder = make_search(tmp_path)
    whole = json.loads((folder / "search.json").read_text())
    first, second = whole["trials"][0], whole["trials"][2]
    whole["trials"] = [
        {**first, "jobs": ["job0", "job1"], "start": True},
        {**second, "number": 1, "jobs": ["job2"]},
        {"number": 2, "jobs": ["job3"], "params": {}, "value": None, "state": "guarded"},
        {"number": 3, "jobs": [], "params": {}, "value": None, "state": "waiting"},
    ]
    (folder / "search.json").write_text(json.dumps(whole))
    found = found_in(folder)
    assert found.trials[0].test == pytest.approx(0.7)  # of 0.6 and 0.8
    assert [trial.failed for trial in found.trials] == [False, False, True, False]
    notes = {row.trial.number: row.notes for row in table(found)}
    assert notes[0] == ["the setting as it was"]
    assert notes[1] == ["best", "the oracle's choice"]
    assert notes[2][0] == "no evaluation passed the guard"
    assert "The oracle would have chosen the same trial." in " ".join(sentences(found))


def test_the_command_for_fresh_seeds_searches_no_more(tmp_path: Path) -> None:
    found = found_in(make_search(tmp_path))
    assert found.best is not None
    words = found.best.records[0].overrides
    words += ["search=optuna", "search/space=mcd", "launcher=joblib"]
    command = fresh_seeds(found)
    assert command is not None
    assert command.startswith("tlrun -m method=dann ")
    assert not {"search", "launcher"} & set(command.replace("=", " ").replace("/", " ").split())


def test_minimize(tmp_path: Path) -> None:
    found = found_in(make_search(tmp_path, direction="minimize"))
    assert found.best is not None
    assert found.best.number == 0
    assert found.spearman() == pytest.approx(-0.5)


def test_page(folder: Path) -> None:
    page = Page(folder / "report.html")
    page.assert_self_contained()
    for expected in ("the oracle's choice", "for reading only", "The loss became NaN at step 3."):
        assert expected in page.text, expected
    assert "tlrun -m method=dann data=mnist_usps optimizer.lr=0.001 seed=1,2,3" in page.text
    assert "leads with" not in page.text  # the trial in front by test figures is no winner
    assert {path.name for path in (folder / "plots").iterdir()} == {
        "learning_curves.png",
        "search_history.png",
        "search_params.png",
    }


def test_the_best_of_the_leaderboard_is_what_the_search_chose(folder: Path) -> None:
    rows = list(csv.DictReader((folder / "leaderboard.csv").open()))
    against = {row["optimizer.lr"]: row["against_best/difference"] for row in rows}
    assert against["0.001"] == ""
    assert float(against["0.01"]) == pytest.approx(0.1)  # better by test, and not the best


def test_a_search_that_has_only_begun_or_is_damaged(tmp_path: Path) -> None:
    folder = make_search(tmp_path / "a")
    trials = json.loads((folder / "search.json").read_text())["trials"]
    for trial in trials:
        trial["value"] = None
    (folder / "search.json").write_text(json.dumps({"trials": trials}))
    found = found_in(folder)
    assert found.best is None
    assert "No trial has a value yet." in sentences(found)
    for draw in (draw_history, draw_params):
        with pytest.raises(Missing):
            draw(found, tmp_path / "none.png")
    assert "No trial has a value yet." in Page(write_report(folder)).text
    for broken in ("{", "[]", '{"trials": 3}'):
        (folder / "search.json").write_text(broken)
        assert read_search(folder, [], METRIC) is None
    (folder / "search.json").write_text('{"trials": [7, {"value": "much"}]}')
    assert "Leaderboard" in Page(write_report(folder)).text


def test_an_axis_is_logarithmic_where_the_values_span_decades() -> None:
    assert _spans_decades([1e-4, 3e-4, 1e-3, 1e-2, 1e-1])
    assert not _spans_decades([0.01, 0.2, 0.5, 0.7, 0.9])  # even, and only begins near 0
    assert not _spans_decades([0.0, 0.001, 0.1])
    assert not _spans_decades([1, 2, 4, 8])
