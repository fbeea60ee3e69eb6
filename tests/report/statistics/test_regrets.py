"""What each rule would have lost: by hand, of a run and of a sweep."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.html_page import Page
from helpers.run_folders import make_run
from tlrun.report.figures.regrets import draw_regrets
from tlrun.report.pages.write import write_report
from tlrun.report.read.entries import Missing
from tlrun.report.read.run_record import read_record
from tlrun.report.statistics.regrets import judge, over_runs, regret_table

# accuracy, im, bnm, used classes: im is fooled by the collapse at the end, bnm picks step 1
ROWS = [(0.6, 0.1, 9.0, 9.0), (0.9, 0.5, 2.0, 9.0), (0.8, 0.7, 3.0, 9.0), (0.3, 1.0, 1.0, 1.5)]


def evaluation(step: int, values: tuple[float, ...], phase: str = "adapt") -> dict[str, Any]:
    accuracy, im, bnm, used = values
    return {
        "step": step,
        "phase": phase,
        "split": "eval",
        "source_val/accuracy": 0.9,
        "target_val/effective_classes": used,
        "validator/information_maximization": im,
        "validator/bnm": bnm,
        "validator/constant": 1.0,
        "validator/absent": None,
        "oracle/target_test_accuracy": accuracy,
    }


def run_of(
    path: Path, rows: list[dict[str, Any]], step: int = 30, guard: dict[str, Any] | None = None
) -> Path:
    run = make_run(path, baseline=False, images=10)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = json.loads((run / "summary.json").read_text())
    summary["selected"]["step"] = step
    summary["selection_guard"] |= guard or {}
    (run / "summary.json").write_text(json.dumps(summary))
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = [evaluation(10 * k, values) for k, values in enumerate(ROWS, start=1)]
    return run_of(tmp_path / "run", rows)


def found(run: Path) -> dict[str, tuple[int, float]]:
    return {c.rule: (c.row["step"], round(c.loss, 6)) for c in judge(read_record(run))}


def test_choices_and_losses_by_hand(run: Path) -> None:
    assert found(run) == {
        "information_maximization": (30, 0.1),  # step 40 is barred by the guard
        "constant": (30, 0.1),  # of equals the later
        "bnm": (10, 0.3),
        "last": (40, 0.6),
    }
    assert [c.rule for c in judge(read_record(run))][-2:] == ["bnm", "last"]
    correlations = {c.rule: c.spearman for c in judge(read_record(run))}
    # Ranks of accuracy 2 4 3 1; of im 1 2 3 4: 1 - 6 * (1 + 4 + 0 + 9) / 60
    assert correlations["information_maximization"] == pytest.approx(-0.4)
    # Of bnm 4 2 3 1: 1 - 6 * (4 + 4 + 0 + 0) / 60
    assert correlations["bnm"] == pytest.approx(0.2)
    assert correlations["constant"] is None
    assert correlations["last"] is None


def test_the_table_ends_with_the_oracle(run: Path) -> None:
    table = regret_table(read_record(run))
    assert table is not None
    assert ["bnm", "10", "60.0", "30.0", "+0.20"] in table.rows
    assert ["last", "40", "30.0", "60.0", "–"] in table.rows
    assert table.rows[-1] == ["oracle", "20", "90.0", "0.0", "–"]


def test_the_limits_are_those_of_the_run(tmp_path: Path) -> None:
    rows = [evaluation(10 * k, values) for k, values in enumerate(ROWS, start=1)]
    run = run_of(tmp_path / "run", rows, guard={"min_effective_classes": 0.05})
    assert found(run)["information_maximization"] == (40, 0.6)
    run = run_of(tmp_path / "two", rows, guard={"num_classes": 2})  # 1.5 of 2 classes is enough
    assert found(run)["information_maximization"] == (40, 0.6)


def test_no_floor_where_the_run_had_none(tmp_path: Path) -> None:
    """A last phase without the source may forget it: the run has said what it applied."""
    rows = [evaluation(10 * k, values) for k, values in enumerate(ROWS, start=1)]
    rows[2]["source_val/accuracy"] = 0.2
    strict = run_of(tmp_path / "strict", rows)
    free = run_of(tmp_path / "free", rows, guard={"source_floor": 0.0})
    assert found(strict)["information_maximization"] == (20, 0.0)
    assert found(free)["information_maximization"] == (30, 0.1)


def test_the_guard_of_a_run_that_does_not_say_it_is_not_guessed(tmp_path: Path) -> None:
    rows = [evaluation(10 * k, values) for k, values in enumerate(ROWS, start=1)]
    run = run_of(tmp_path / "run", rows)
    summary = json.loads((run / "summary.json").read_text())
    del summary["selection_guard"]
    (run / "summary.json").write_text(json.dumps(summary))
    assert found(run) == {}
    assert regret_table(read_record(run)) is None
    with pytest.raises(Missing, match="does not say what the guard"):
        draw_regrets(read_record(run), tmp_path / "x.png")


def test_only_the_last_phase_competes(tmp_path: Path) -> None:
    before = [evaluation(10 * k, (0.99, 5.0, 50.0, 9.0), "source") for k in (1, 2, 3)]
    rows = [evaluation(10 * k, values) for k, values in enumerate(ROWS, start=1)]
    run = run_of(tmp_path / "run", before + rows)
    assert found(run)["information_maximization"] == (30, 0.1)
    assert found(run)["bnm"] == (10, 0.3)


def test_without_an_oracle_there_is_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", labelled=False, baseline=False, images=10)
    record = read_record(run)
    assert judge(record) == []
    assert regret_table(record) is None
    assert over_runs([record]) == []
    with pytest.raises(Missing, match="the oracle"):
        draw_regrets(record, tmp_path / "x.png")


def test_a_run_of_no_evaluation(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path / "run", evaluations=0, baseline=False, images=10))
    assert judge(record) == []


def test_the_page_has_the_table_and_no_file_has_the_figures(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlrun.report.figures import plots

    monkeypatch.setattr(plots, "PLOTS", {"regrets": draw_regrets})
    before = (run / "summary.json").read_bytes()
    page = Page(write_report(run))
    assert "Target test there, %" in page.text
    assert page.tags.count("img") == 1
    assert (run / "summary.json").read_bytes() == before


def test_means_over_the_runs_of_a_sweep(tmp_path: Path) -> None:
    rows = [evaluation(10 * k, values) for k, values in enumerate(ROWS, start=1)]
    other = [evaluation(10 * k, ROWS[-k]) for k in (1, 2, 3, 4)]  # backwards
    runs = [run_of(tmp_path / "a", rows), run_of(tmp_path / "b", other, step=20)]
    make_run(tmp_path / "c", state="running")
    records = [read_record(path) for path in [*runs, tmp_path / "c"]]
    table = {row.rule: row for row in over_runs(records)}
    assert table["last"].loss == pytest.approx((0.6 + 0.3) / 2)
    assert table["last"].worst == pytest.approx(0.6)
    assert table["last"].spearman is None
    assert table["bnm"].loss == pytest.approx(0.3)
    assert table["bnm"].spearman == pytest.approx(0.2)
    assert table["information_maximization"].n == 2
    losses = [row.loss for row in over_runs(records)]
    assert losses == sorted(losses)
    page = Page(write_report(tmp_path))
    assert "Mean Spearman" in page.text
    assert "45.0" in page.text
