"""A sweep folder: groups over seeds, three rules, failed jobs, files that other tools read."""

import csv
import json
import math
from pathlib import Path

import pytest

from helpers.html_page import Page
from helpers.run_folders import make_run, make_sweep
from tlrun.report.pages.terminal import sweep_table
from tlrun.report.pages.write import find_jobs, write_leaderboard, write_report
from tlrun.report.read.run_record import read_record
from tlrun.report.statistics.groups import group_jobs, primary_metric
from tlrun.report.statistics.leaderboard import leaderboard_of
from tlrun.report.statistics.significance import difference_of

METRIC = "target_test/accuracy"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_sweep(tmp_path_factory.mktemp("sweeps") / "sweep")
    write_report(folder)
    return folder


def test_csv(sweep: Path) -> None:
    rows = list(csv.DictReader((sweep / "leaderboard.csv").open()))
    assert len(rows) == 7
    first = rows[0]
    assert (first["data"], first["method"], first["optimizer.lr"]) == ("mnist_usps", "dann", "0.01")
    assert float(first[f"selected/{METRIC}/mean"]) == pytest.approx(0.89)
    assert float(first[f"selected/{METRIC}/std"]) == pytest.approx(0.01)
    assert first[f"selected/{METRIC}/n"] == "3"
    assert float(first[f"oracle/{METRIC}/mean"]) == pytest.approx(0.896)
    assert float(first[f"last/{METRIC}/mean"]) == pytest.approx(0.886)
    partial = next(
        row for row in rows if row["data"] == "usps_mnist" and row["optimizer.lr"] == "0.03"
    )
    assert (partial["jobs"], partial["completed"]) == ("3", "2")
    assert [row["method"] for row in rows if row["completed"] == "0"] == ["dann"]


def test_markdown(sweep: Path) -> None:
    text = (sweep / "leaderboard.md").read_text()
    assert "| mnist_usps | dann | 0.01 | 3 | 89.0 ± 1.0 |" in text
    assert "2 of 3" in text
    assert "became NaN at step 812" in text


def test_page(sweep: Path) -> None:
    page = Page(sweep / "report.html")
    page.assert_self_contained()
    assert "mnist_usps: dann optimizer.lr=0.01 leads with 89.0 ± 1.0 %" in page.text
    for expected in (
        "17 completed",
        "1 failed",
        "1 running",
        "became NaN at step 812",
        "job99",
        "tlrun resume",
    ):
        assert expected in page.text, expected
    assert page.tags.count("img") == 1
    assert (
        page.tags.count("table") == 11
    )  # of these 3 by data, one per rule, and one at chosen settings
    assert "Mean Spearman" in page.text


def test_jobs_link_to_their_own_report(tmp_path: Path) -> None:
    job = make_run(tmp_path / "sweep" / "job 1", images=10, baseline=True)
    (job / "report.html").write_text("")
    page = Page(write_report(tmp_path / "sweep"))
    assert page.links == ["job%201/report.html"]
    assert find_jobs(tmp_path / "sweep") == [job]  # its baseline is no job


def test_jobs_that_never_wrote_a_config_are_listed(tmp_path: Path) -> None:
    make_run(tmp_path / "a", baseline=False, images=10)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "status.json").write_text(
        '{"state": "failed", "error": "no space left | on <device>"}'
    )
    page = Page(write_report(tmp_path))
    assert "no space left | on <device>" in page.text
    assert "no space left \\| on &lt;device>" in (tmp_path / "leaderboard.md").read_text()


def test_nothing_completed_yet(tmp_path: Path) -> None:
    make_run(tmp_path / "a", state="running", evaluations=0)
    page = Page(write_report(tmp_path))
    assert "No job has completed yet." in page.text
    assert page.tags.count("img") == 0


def test_only_what_varies_makes_groups(tmp_path: Path) -> None:
    for place, trade_off in enumerate((1, 1, 2)):
        make_run(
            tmp_path / f"{place}",
            seed=place,
            overrides=("optimizer.lr=0.1", f"method.trade_off={trade_off}", "hydra.verbose=true"),
            baseline=False,
            images=10,
        )
    groups = group_jobs([read_record(path) for path in find_jobs(tmp_path)])
    assert [(group.name, len(group.jobs)) for group in groups] == [
        ("dann method.trade_off=1", 2),
        ("dann method.trade_off=2", 1),
    ]


def test_those_that_saw_target_labels_are_marked(tmp_path: Path) -> None:
    make_run(tmp_path / "a", method="target_only", saw_labels=True, baseline=False, images=10)
    page = Page(write_report(tmp_path))
    assert "target_only*" in page.text
    assert "* saw target labels" in page.text
    assert "true" in (tmp_path / "leaderboard.csv").read_text()


def test_paired_comparison_by_hand(tmp_path: Path) -> None:
    for method, values in (("a", (0.9, 0.8, 0.7)), ("b", (0.8, 0.6, 0.4))):
        for seed, value in enumerate(values):
            make_run(
                tmp_path / f"{method}{seed}",
                method=method,
                seed=seed,
                final=value,
                baseline=False,
                images=10,
            )
    make_run(
        tmp_path / "b9", method="b", seed=9, final=0.1, baseline=False, images=10
    )  # has no partner
    a, b = group_jobs([read_record(path) for path in find_jobs(tmp_path)])
    compared = difference_of(b, a, METRIC)
    assert compared is not None
    # Differences -0.1, -0.2, -0.3: t = -0.2 / (0.1 / sqrt 3) = -3.464 with 2 degrees of freedom.
    t = 2 * math.sqrt(3)
    assert (compared.mean, compared.n) == (pytest.approx(-0.2), 3)
    assert compared.p == pytest.approx(
        1 - t / math.sqrt(2 + t * t)
    )  # closed form of the t distribution for 2 degrees
    same = difference_of(a, a, METRIC)
    assert same is not None
    assert (same.mean, same.p, same.n) == (0.0, None, 3)


def test_metric_of_other_families(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", labelled=False, baseline=False, images=10)
    assert primary_metric([read_record(run)]) == "source_test/accuracy"
    summary = json.loads((run / "summary.json").read_text())
    summary["selected"]["harmonic_mean"] = 0.5
    (run / "summary.json").write_text(json.dumps(summary))
    assert primary_metric([read_record(run)]) == "harmonic_mean"
    assert "harmonic mean" in Page(write_report(tmp_path)).text


def test_the_end_of_a_sweep_is_its_table_and_where_the_rest_lies(sweep):
    lines = sweep_table(write_leaderboard(sweep), sweep).splitlines()
    assert lines[0].split() == ["method", "mnist_usps", "usps_mnist", "mean"]
    assert [line.split("  ")[0] for line in lines[1:-1]] == [
        "dann optimizer.lr=0.01",
        "dann optimizer.lr=0.03",
        "source_only",
    ]
    assert lines[3].split()[1:4] == ["61.0", "±", "1.0"]
    assert lines[-1] == f"Leaderboard: {sweep / 'leaderboard.md'}, {sweep / 'report.html'}"


def test_one_pair_has_the_table_of_its_groups_and_a_long_one_is_cut(tmp_path):
    for i in range(20):
        make_run(tmp_path / f"{i:02}", method="dann", overrides=(f"optimizer.lr={i / 100}",))
    lines = sweep_table(write_leaderboard(tmp_path), tmp_path).splitlines()
    assert lines[0].split()[:2] == ["data", "method"]
    assert len(lines) == 1 + 15 + 1 + 1
    assert lines[-2] == "(and 5 more)"
    assert sweep_table(leaderboard_of([]), tmp_path) == ""
