"""A swept number becomes an axis: the figure against it, a line per combination of the rest."""

from pathlib import Path

import pytest

from helpers.html_page import Page
from helpers.run_folders import make_run
from tlrun.report.figures.axes import draw_axes, entry, numeric_keys
from tlrun.report.pages.write import find_jobs, write_report
from tlrun.report.read.entries import Missing
from tlrun.report.read.run_record import read_record
from tlrun.report.statistics.groups import group_jobs

METRIC = "target_test/accuracy"


def sweep(path: Path, seeds=(0, 1), **axes) -> Path:
    """A job per cell; its figure grows with the first axis and falls with the second."""
    (first, xs), *rest = [(key.replace("__", "."), values) for key, values in axes.items()]
    others = [(key, value) for key, values in rest for value in values] or [("tags", "[]")]
    for i, x in enumerate(xs):
        for j, (key, value) in enumerate(others):
            for seed in seeds:
                make_run(
                    path / f"job{i}{j}{seed}",
                    seed=seed,
                    overrides=(f"{first}={x}", f"{key}={value}"),
                    final=0.5 + 0.05 * i - 0.1 * j + 0.02 * seed,
                    baseline=False,
                    images=10,
                    evaluations=2,
                )
    return path


def groups_of(path: Path):
    return group_jobs([read_record(job) for job in find_jobs(path)])


def test_the_page_plots_the_figure_against_the_swept_number(tmp_path):
    folder = sweep(
        tmp_path / "sweep", transfer__cut=(0, 1, 2), transfer__freeze_carried=("false", "true")
    )
    page = Page(write_report(folder))
    page.assert_self_contained()
    assert "Against transfer.cut" in page.text
    assert "Against transfer.freeze_carried" not in page.text  # no number
    assert page.tags.count("img") == 2
    assert (folder / "plots" / "against_transfer.cut.png").stat().st_size > 5000


def test_lines_hold_mean_and_spread_in_per_cent(tmp_path):
    folder = sweep(tmp_path, transfer__cut=(0, 1, 2), transfer__freeze_carried=("false", "true"))
    found = entry(groups_of(folder), "transfer.cut", METRIC)
    assert (found["kind"], found["x_label"]) == ("lines", "transfer.cut")
    assert found["y_label"] == "target test accuracy, %"
    tuned, frozen = found["series"]
    assert (tuned["name"], frozen["name"]) == (
        "transfer.freeze_carried=false", "transfer.freeze_carried=true"
    )  # fmt: skip
    assert tuned["x"] == [0.0, 1.0, 2.0]
    assert tuned["y"] == pytest.approx([51.0, 56.0, 61.0])
    assert frozen["y"] == pytest.approx([41.0, 46.0, 51.0])
    assert tuned["error"] == pytest.approx([2**0.5] * 3)


def test_uneven_values_stand_side_by_side_in_order(tmp_path):
    folder = sweep(tmp_path, optimizer__lr=("0.01", "1e-4", "0.001"))
    groups = groups_of(folder)
    (line,) = entry(groups, "optimizer.lr", METRIC)["series"]
    assert line["x"] == ["1e-4", "0.001", "0.01"]
    assert line["y"] == pytest.approx([56.0, 61.0, 51.0])
    assert line["name"] == ""
    assert [key for key, _ in draw_axes(groups, METRIC, tmp_path / "plots")] == ["optimizer.lr"]


def test_one_seed_has_no_error_bar(tmp_path):
    groups = groups_of(sweep(tmp_path, seeds=(0,), target_labels=(1, 2, 5)))
    (line,) = entry(groups, "target_labels", METRIC)["series"]
    assert line["error"] == [None] * 3
    ((_, path),) = draw_axes(groups, METRIC, tmp_path / "plots")
    assert path.exists()


def test_methods_and_data_are_lines_of_their_own_where_there_are_several(tmp_path):
    for method in ("dann", "source_only"):
        for k in (1, 2, 5):
            make_run(
                tmp_path / f"{method}{k}",
                method=method,
                overrides=(f"target_labels={k}",),
                baseline=False,
                images=10,
                evaluations=2,
            )
    found = entry(groups_of(tmp_path), "target_labels", METRIC)
    assert [line["name"] for line in found["series"]] == ["dann", "source_only"]


def test_a_failed_cell_leaves_a_gap(tmp_path):
    folder = sweep(tmp_path, optimizer__lr=("1e-4", "1e-3", "1e-2"), terms=("[]", "[entropy]"))
    for seed in (0, 1):
        (folder / f"job10{seed}" / "status.json").write_text('{"state": "failed"}')
    plain, other = entry(groups_of(folder), "optimizer.lr", METRIC)["series"]
    assert plain["x"] == other["x"]
    assert plain["y"][1] is None
    assert other["y"][1] is not None


def test_two_values_and_words_are_no_axis(tmp_path):
    groups = groups_of(sweep(tmp_path, transfer__cut=(0, 1), optimizer=("adam", "sgd", "adamw")))
    assert numeric_keys(groups) == []
    assert draw_axes(groups, METRIC, tmp_path / "plots") == []


def test_too_many_lines_and_no_result_are_left_out(tmp_path):
    folder = sweep(tmp_path / "a", seeds=(0,), a=(1, 2, 3), b=[f"v{i}" for i in range(13)])
    with pytest.raises(Missing, match="13 lines"):
        entry(groups_of(folder), "a", METRIC)
    for k in (1, 2, 3):
        make_run(tmp_path / "b" / f"{k}", overrides=(f"a={k}",), state="failed")
    with pytest.raises(Missing, match="no two values"):
        entry(groups_of(tmp_path / "b"), "a", METRIC)


def test_a_picture_that_no_longer_holds_is_removed(tmp_path):
    old = tmp_path / "plots" / "against_gone.png"
    old.parent.mkdir()
    old.touch()
    draw_axes([], METRIC, tmp_path / "plots")
    assert not old.exists()
