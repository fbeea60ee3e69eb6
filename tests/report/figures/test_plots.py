"""Each picture is drawn from a whole run folder, and left out with the reason without its input."""

import json
import logging
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.run_folders import make_run
from tlrun.errors import ConfigError
from tlrun.report.figures import curves
from tlrun.report.figures.embedding import (
    POINTS_PER_DOMAIN,
    Features,
    read_features,
    source_share,
    to_plane,
)
from tlrun.report.figures.plots import confusion, draw_plots
from tlrun.report.figures.style import figure, short
from tlrun.report.read.entries import Missing
from tlrun.report.read.rows import add_global_step, series
from tlrun.report.read.run_record import read_record
from tlrun.report.statistics.regrets import spearman

CHEAP = ("curves", "confusion", "by_class", "regrets", "validators")


def reasons(path: Path) -> dict[str, str]:
    return draw_plots(read_record(path))[1]


def test_a_whole_run_gives_all_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path / "run", images=100)
    with caplog.at_level(logging.WARNING):
        written = draw_plots(read_record(run))[0].values()
    assert {path.name for path in written} == {f"{name}.png" for name in (*CHEAP, "embedding")}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert not caplog.records
    assert not list((run / "plots").glob(".*"))  # no drafts left


def test_no_run_folder_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run folder"):
        read_record(tmp_path)


@pytest.mark.usefixtures("no_map")
def test_target_without_labels_shows_what_was_predicted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", labelled=False, images=50)
    drawn, left_out = draw_plots(read_record(run))
    assert set(drawn) == {"curves", "predicted"}
    assert set(left_out) == {"embedding"}


@pytest.mark.usefixtures("no_map")
def test_zero_steps_and_torn_files_do_not_crash(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", evaluations=0, baseline=False, images=50)
    assert "nothing was logged" in reasons(run)["curves"]
    (run / "metrics.jsonl").write_text(
        '{"step": 1, "split": "eval", "source_val/accuracy": 0.5}\n{"step": 2, "spl'
    )
    (run / "summary.json").write_text("{torn")
    (run / "predictions.csv").write_text("")
    (run / "label_space.json").write_text("[]")
    left_out = reasons(run)
    assert "curves" not in left_out
    assert "no predictions" in left_out["confusion"]
    assert "no predictions" in left_out["by_class"]


@pytest.mark.usefixtures("no_map")
def test_nan_and_constant_rows_are_skipped(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", baseline=False, images=50)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if row["split"] == "eval":
            row["validator/snd"] = None
            row["validator/bnm"] = 0.5
        else:
            row["loss/domain"] = float("nan")
            row["lr"] = 0.0
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "curves" not in reasons(run)
    assert "validators" not in reasons(run)
    assert "regrets" not in reasons(run)


@pytest.mark.usefixtures("no_map")
def test_a_stale_picture_is_taken_away(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", images=50)
    draw_plots(read_record(run))
    (run / "predictions.csv").unlink()
    draw_plots(read_record(run))
    assert not (run / "plots" / "confusion.png").exists()


@pytest.mark.usefixtures("no_map")
def test_a_fault_in_a_picture_does_not_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tlrun.report.figures import plots

    def fail(record, path):
        raise ZeroDivisionError("boom")

    monkeypatch.setitem(plots.PLOTS, "curves", fail)
    run = make_run(tmp_path / "run", images=50)
    assert "ZeroDivisionError: boom" in reasons(run)["curves"]
    assert "could not be drawn" in caplog.text


@pytest.mark.usefixtures("no_map")
@pytest.mark.parametrize("classes", [65, 14, 2])
def test_many_and_awkward_class_names(tmp_path: Path, classes: int) -> None:
    names = tuple(f"$class_{k}$ <b>{'x' * 30}" for k in range(classes))
    run = make_run(tmp_path / "run", classes=names, images=classes * 4)
    assert set(reasons(run)) == {"embedding"}


def test_confusion_counts(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", classes=("a", "b", "c"), baseline=False, images=9)
    (run / "predictions.csv").write_text(
        "index,path,label,prediction,confidence\n0,,a,a,.9\n1,,a,b,.8\n2,,b,b,\n3,,,c,.7\n4,,c,c,.7\n"
    )
    record = read_record(run)
    assert confusion(record).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert record.accuracy_by_class == {"a": 0.5, "b": 1.0, "c": 1.0}


def test_phases_that_count_anew_follow_each_other() -> None:
    rows = [{"step": s, "phase": p} for p, s in (("a", 0), ("a", 10), ("b", 0), ("b", 5))]
    assert [row["global_step"] for row in add_global_step(rows)] == [0, 10, 10, 15]
    going_on = [{"step": s, "phase": p} for p, s in (("a", 0), ("a", 10), ("b", 12))]
    assert [row["global_step"] for row in add_global_step(going_on)] == [0, 10, 12]


def test_the_selected_step_is_found_in_its_phase(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", baseline=False, images=10)
    rows = [{"step": s, "phase": p, "split": "eval"} for p in "ab" for s in (100, 200)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = json.loads((run / "summary.json").read_text())
    for phase, at in (("a", 100), ("b", 300)):
        summary["selected"] |= {"step": 100, "phase": phase}
        (run / "summary.json").write_text(json.dumps(summary))
        assert read_record(run).selected_at == at


def test_series_skips_null_and_text() -> None:
    rows = [
        {"global_step": 1.0, "k": 2},
        {"global_step": 2.0, "k": None},
        {"global_step": 3.0, "k": "x"},
        {"global_step": 4.0, "k": float("inf")},
    ]
    at, value = series(rows, "k")
    assert at.tolist() == [1.0]
    assert value.tolist() == [2.0]


def test_spearman_by_hand() -> None:
    table = np.array([[0, 1.0, 0.1], [1, 2.0, 0.3], [2, 3.0, 0.2]])
    assert spearman(table) == pytest.approx(0.5)  # 1 - 6 * 2 / (3 * 8)
    assert spearman(np.array([[0, 1.0, 0.1], [1, 1.0, 0.3]])) is None


def test_map_is_repeatable_and_quick(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", baseline=False, images=10)
    features = read_features(run / "features.npz")
    assert np.isfinite(features.x).all()
    assert len(features.x) == 2 * POINTS_PER_DOMAIN  # of 1000, one row is NaN
    begin = time.process_time()
    plane = to_plane(features.x)
    # CPU time: 1.5 s on a quiet core. With scikit-learn's own 1000 iterations and threads that spin
    # it was ten times as much.
    assert time.process_time() - begin < 20
    assert plane.shape == (len(features.x), 2)
    few = np.arange(0, len(features.x), 10)
    assert np.array_equal(to_plane(features.x[few]), to_plane(features.x[few]))


def test_map_of_small_or_flat_features(tmp_path: Path) -> None:
    one_dimension = np.random.default_rng(0).normal(size=(40, 1))
    assert to_plane(one_dimension).shape == (40, 2)
    path = tmp_path / "features.npz"
    domain = np.repeat([0, 1], 20)
    np.savez(path, features=np.ones((40, 3)), label=domain, domain=domain)
    with pytest.raises(Missing, match="the same"):
        read_features(path)
    np.savez(path, features=one_dimension[:25], label=domain[:25], domain=domain[:25])
    with pytest.raises(Missing, match="fewer than 10"):
        read_features(path)
    path.write_bytes(b"PK torn")
    with pytest.raises(Missing, match="readable"):
        read_features(path)


def test_source_share_tells_apart_from_mixed() -> None:
    rng = np.random.default_rng(0)
    x, domain = rng.normal(size=(400, 5)), np.repeat([0, 1], 200)
    label = np.zeros(400, dtype=np.int64)
    share, mixed = source_share(Features(x, label, domain))
    assert share == pytest.approx(mixed, abs=0.05)
    apart, _ = source_share(Features(x + 20 * domain[:, None], label, domain))
    assert apart == 0


def test_short_keeps_both_ends() -> None:
    assert short("short") == "short"
    assert short("class number 12", 10) == "class … 12"


def test_the_curves_have_every_task_and_a_measured_target(tmp_path: Path) -> None:
    figures = {"what_val/accuracy": 0.1, "target_val/iou": 0.2, "where_val/iou": 0.2}
    others = {"source_val/accuracy": 0.3, "what_val/loss": 1.0}
    rows = [{"global_step": step, **figures, **others} for step in (0, 1)]
    names = [name for name, _, _ in curves._tasks(rows)]
    assert names == ["what, validation", "where IoU, validation"]
    alone = [{"global_step": 0, "target_val/accuracy": 0.4}]
    assert [name for name, _, _ in curves._tasks(alone)] == ["target, validation"]


def test_a_name_in_another_script_is_no_warning(tmp_path, recwarn):
    with figure(tmp_path / "a.png", 2) as (_, axes):
        axes[0, 0].set_title("数字 Käse 𓀀")
    assert (tmp_path / "a.png").stat().st_size > 0
    assert not recwarn.list
