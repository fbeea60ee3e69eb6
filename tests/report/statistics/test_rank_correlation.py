"""Scores of stages beside the figures of a sweep over transfer.cut."""

import re

from helpers.html_page import Page
from helpers.run_folders import make_run
from tlrun.experiment.rank import beside_trained
from tlrun.report.pages.write import find_jobs, write_report
from tlrun.report.read.rank import StageScores, read_scores, write_scores
from tlrun.report.read.run_record import read_record
from tlrun.report.statistics.groups import group_jobs, primary_metric
from tlrun.report.statistics.rank_correlation import figures_by_cut, rank_correlations


def sweep(folder, finals):
    for cut, final in finals.items():
        make_run(folder / f"{cut}", overrides=(f"transfer.cut={cut}",), final=final)
    return folder


def stages(values):
    return [
        StageScores("net", f"backbone.s{k}", k, 8, {"logme": value, "leep": None, "knn": 0.5})
        for k, value in enumerate(values, 1)
    ]


def test_a_score_that_orders_as_training_does_has_one_and_the_reverse_minus_one(tmp_path, capsys):
    folder = sweep(tmp_path / "sweep", {0: 0.3, 1: 0.4, 2: 0.5, 3: 0.7})
    records = [read_record(job) for job in find_jobs(folder)]
    groups, metric = group_jobs(records), primary_metric(records)
    found = {row.score: row for row in rank_correlations(stages([1, 2, 3]), groups, metric)}
    assert set(found) == {"LogME", "kNN %"}  # LEEP is of no stage but the last
    means = [group.row("selected", metric).mean for group in groups]
    assert len(set(means)) == 4
    assert found["LogME"].spearman is not None
    assert abs(found["LogME"].spearman - 1) < 1e-9
    assert found["kNN %"].spearman is None  # constant
    assert found["LogME"].n == 3  # cut 0 carries no stage
    other = rank_correlations(stages([3, 2, 1]), groups, metric)
    assert abs(other[0].spearman + 1) < 1e-9
    assert rank_correlations(stages([1, 2]), groups, metric) == []

    assert "Scores without training" not in Page(write_report(folder)).text
    write_scores(folder, stages([1, 2, 3]), {})
    assert [line.values["logme"] for line in read_scores(folder / "rank.csv")] == [1, 2, 3]
    beside_trained(folder)
    assert "LogME +1.00 (n=3)" in capsys.readouterr().out
    page = Page(folder / "report.html")
    assert "Scores without training" in page.text
    html = (folder / "report.html").read_text()
    table = html.partition('id="scores"')[2].partition("</table>")[0]
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in table.split("<tr>")[2:]]
    by_cut = figures_by_cut(groups, metric)
    ((_, trained),) = by_cut.items()
    assert [row[1:3] for row in rows] == [[f"backbone.s{k}", str(k)] for k in (1, 2, 3)]
    assert [float(row[-1]) for row in rows] == [round(100 * trained[k], 1) for k in (1, 2, 3)]
