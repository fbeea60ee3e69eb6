"""What the page warns of, what it says of its origin, and which setting it calls chosen."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.html_page import Page
from helpers.run_folders import make_run, make_sweep
from tlrun.report.pages.write import find_jobs, write_report
from tlrun.report.read.run_record import read_record
from tlrun.report.statistics.cautions import cautions
from tlrun.report.statistics.chosen import chosen_settings
from tlrun.report.statistics.leaderboard import leaderboard_of
from tlrun.report.statistics.matrix import matrices
from tlrun.report.statistics.provenance import commands, never_begun

METRIC = "target_test/accuracy"


def run(path: Path, method: str, seed: int = 0, *overrides: str, **given: Any) -> Path:
    given = {"data": "mnist_usps", "baseline": False, "images": 10, "evaluations": 2} | given
    return make_run(path, method=method, seed=seed, overrides=overrides, **given)


def change(path: Path, name: str, **values: Any) -> None:
    whole = json.loads((path / name).read_text())
    (path / name).write_text(json.dumps(whole | values))


def said(path: Path, missing: int = 0) -> str:
    return "\n".join(
        cautions(leaderboard_of([read_record(job) for job in find_jobs(path)]), missing)
    )


def test_nothing_to_say(tmp_path: Path) -> None:
    for method in ("source_only", "dann"):
        for seed in range(3):
            job = run(tmp_path / f"{method}{seed}", method, seed)
            change(job, "environment.json", git={"tlrun": {"sha": "0123", "dirty": False}})
    assert said(tmp_path) == ""


def test_missing_jobs_seeds_and_budgets(tmp_path: Path) -> None:
    run(tmp_path / "a0", "source_only", 0)
    run(tmp_path / "a1", "source_only", 1)
    slow = run(tmp_path / "b0", "dann", 0)
    run(tmp_path / "b1", "dann", 1, state="failed", error="NaN")
    change(slow, "summary.json", images_seen=1024000)
    text = said(tmp_path, missing=2)
    assert "3 of 6 jobs have no result (1 failed, 2 never begun)" in text
    assert "not every group has the same seeds (0, 1 for most; dann has 0)" in text
    assert "different numbers of images (source_only 512,000, dann 1,024,000)" in text
    assert "The steps are equal (2,000)" in text
    assert "At most two seeds each" in text
    change(slow, "summary.json", steps=4000)
    assert "The steps differ too" in said(tmp_path)


def test_what_holds_for_several_data_is_said_once(tmp_path: Path) -> None:
    for place, data in enumerate(("mnist_usps", "usps_mnist", "mnist_mnistm", "photo→sketch")):
        for method, images in (("source_only", 1000), ("dann", 2000 + (place // 2) * 1000)):
            for seed in range(2 if (method, place) == ("dann", 3) else 3):
                job = run(tmp_path / f"{method}{place}{seed}", method, seed, data=data)
                change(job, "summary.json", images_seen=images, steps=10)
    warned = cautions(leaderboard_of([read_record(job) for job in find_jobs(tmp_path)]))
    (budget,) = (sentence for sentence in warned if "different numbers of images" in sentence)
    assert budget == (
        "All 4 data sets: methods saw different numbers of images. "
        "mnist_mnistm; photo→sketch: source_only 1,000, dann 3,000. "
        "mnist_usps; usps_mnist: source_only 1,000, dann 2,000. "
        "The steps are equal (10): a method that reads target images sees more in a step."
    ).replace("photo→sketch", "photo → sketch")
    (seeds,) = (sentence for sentence in warned if "same seeds" in sentence)
    assert seeds.startswith("photo→sketch: not every group has the same seeds (")


def test_some_of_many_pairs_are_counted_and_named(tmp_path: Path) -> None:
    for k in range(8):
        for method in ("source_only", "dann"):
            job = run(tmp_path / f"{method}{k}", method, data=f"a→{k}")
            if method == "dann" and k < 6:
                change(job, "summary.json", backbone="lenet")
    sentences = cautions(leaderboard_of([read_record(job) for job in find_jobs(tmp_path)]))
    assert [one for one in sentences if "backbone" in one] == [
        "6 of 8 pairs (a → 0; a → 1; a → 2; a → 3 and 2 more): jobs differ in the backbone "
        "(lenet (1 job), dann_cnn (1 job))."
    ]


def test_what_makes_jobs_unlike(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a", "dann"), run(tmp_path / "b", "mcd")
    run(tmp_path / "c", "dann")  # the same as the first
    change(
        first,
        "summary.json",
        selection_rule="snd",
        selection_fell_back=True,
        backbone="lenet",
        resumed_with={"trainer.steps": 3},
    )
    change(
        second,
        "environment.json",
        versions={"tlrun": "0.2.0", "torch": "2.15.0"},
        host="another",
        data={"domains": {"target": {"splits": {"test": {"checksum": "ffff"}}}}},
    )
    text = said(tmp_path)
    for expected in (
        "selected by different rules: information_maximization (2 jobs), snd (1 job)",
        "In 1 of 3 jobs no evaluation passed the guard",
        "jobs differ in the backbone",
        "were tested on different images",
        "tlrun 0.1.0 (2 jobs), 0.2.0 (1 job)",
        "3 of 3 jobs ran with uncommitted changes",
        "2 different machines",
        "1 of 3 jobs were resumed with changed settings",
        "1 completed job with the method, data, settings and seed of another",
        "One seed each",
    ):
        assert expected in text, expected


def test_commands_and_jobs_never_begun(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "commands:\n  abc:\n    overrides: ['method=source_only,dann', 'seed=range(2)', "
        "'data=mnist_usps', 'hydra.launcher.n_jobs=2']\n    config_dir: my_conf\n"
    )
    run(tmp_path / "a", "source_only", 0)
    run(tmp_path / "b", "dann", 1)
    jobs = [read_record(job) for job in find_jobs(tmp_path)]
    made = "tlrun -m method=source_only,dann 'seed=range(2)' data=mnist_usps"
    assert commands(tmp_path) == [f"{made} hydra.launcher.n_jobs=2 --config-dir my_conf"]
    assert never_begun(tmp_path, jobs) == (
        2,
        ["data=mnist_usps method=dann seed=0", "data=mnist_usps method=source_only seed=1"],
    )
    (tmp_path / "b" / "overrides.yaml").unlink()  # died before it wrote it: may be any
    jobs = [read_record(job) for job in find_jobs(tmp_path)]
    assert never_begun(tmp_path, jobs) == (2, [])
    run(tmp_path / "c", "mcd")  # not of this command: nothing can be told
    jobs = [read_record(job) for job in find_jobs(tmp_path)]
    assert never_begun(tmp_path, jobs) == (0, [])
    page = Page(write_report(tmp_path))
    assert "Made by" in page.text
    assert "my_conf" in page.text


def test_matrix(tmp_path: Path) -> None:
    board = leaderboard_of([read_record(job) for job in find_jobs(make_sweep(tmp_path / "sweep"))])
    selected, last, oracle = matrices(board.groups, board.metric, board.rules)
    assert [one.rule for one in (selected, last, oracle)] == ["selected", "last", "oracle"]
    assert selected.heads == ["mnist_usps", "usps_mnist"]
    rows = {row.name: row for row in selected.rows}
    assert list(rows) == ["dann optimizer.lr=0.01", "dann optimizer.lr=0.03", "source_only"]
    assert [cell.best for cell in rows["dann optimizer.lr=0.01"].cells] == [True, True]
    assert rows["dann optimizer.lr=0.01"].best
    assert rows["dann optimizer.lr=0.01"].average == pytest.approx((0.89 + 0.77) / 2)
    assert rows["dann optimizer.lr=0.03"].cells[1].few
    assert not rows["dann optimizer.lr=0.01"].cells[1].few
    one_data = [group for group in board.groups if group.data == "mnist_usps"]
    assert matrices(one_data, board.metric, board.rules) == []


def test_the_chosen_setting_is_the_selectors(tmp_path: Path) -> None:
    for lr, final, value in (("0.01", 0.8, 2.0), ("0.03", 0.9, 1.0)):
        for seed in (0, 1):
            job = run(tmp_path / f"{lr}_{seed}", "dann", seed, f"optimizer.lr={lr}", final=final)
            row = {"step": 1800, "split": "eval", "validator/information_maximization": value}
            (job / "metrics.jsonl").write_text(json.dumps(row))
    groups = leaderboard_of([read_record(job) for job in find_jobs(tmp_path)]).groups
    (row,) = chosen_settings(groups, METRIC)
    assert (row.settings, row.best_settings) == ("optimizer.lr=0.01", "optimizer.lr=0.03")
    assert (row.value, row.lost) == pytest.approx((2.0, 0.1))
    assert "tune on test labels" in said(tmp_path)
    assert "Settings chosen without target labels" in Page(write_report(tmp_path)).text
