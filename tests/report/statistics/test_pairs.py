"""Pairs of domains are data: columns of a table, with their mean, and never a setting."""

import csv
import json
import statistics
from pathlib import Path

import pytest

from helpers.html_page import Page
from helpers.run_folders import make_run
from tlrun.report.pages.terminal import text_summary
from tlrun.report.pages.write import find_jobs, write_report
from tlrun.report.read.run_record import read_record
from tlrun.report.statistics.leaderboard import Leaderboard, leaderboard_of
from tlrun.report.statistics.matrix import chosen_matrix, matrices

DOMAINS = ("cartoon", "photo", "sketch")
LIFT = {"cartoon": 0.1, "photo": 0.2, "sketch": 0.0}


def pair(
    sweep: Path, method: str, source: str, target: str, seed: int, final: float, *more: str
) -> Path:
    """A job of `data=pacs`, as a run leaves it."""
    name = "_".join([method, source, target, str(seed), *more])
    run = make_run(
        sweep / name,
        method=method,
        data="pacs",
        seed=seed,
        overrides=(f"data.source={source}", f"data.target={target}", *more),
        final=final,
        baseline=False,
        images=10,
        evaluations=1,
    )
    called(run, f"pacs {source}→{target}", source, target)
    return run


def called(run: Path, title: str, source: str, target: str) -> None:
    summary = json.loads((run / "summary.json").read_text())
    domains = {"source": source.split("+"), "target": [target]}
    (run / "summary.json").write_text(
        json.dumps({**summary, "data_title": title, "domains": domains})
    )


def board(path: Path) -> Leaderboard:
    return leaderboard_of([read_record(job) for job in find_jobs(path)])


@pytest.fixture(scope="module")
def leave_one_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dann 0.1 above source_only on all, mcc on two of three targets only."""
    folder = tmp_path_factory.mktemp("sweeps") / "sweep"
    for target in DOMAINS:
        source = "+".join(name for name in DOMAINS if name != target)
        for seed in (0, 1, 2):
            final = 0.5 + LIFT[target] + 0.01 * seed
            pair(folder, "source_only", source, target, seed, final)
            pair(folder, "dann", source, target, seed, final + 0.1 + 0.004 * seed)
            if target != "sketch":
                pair(folder, "mcc", source, target, seed, final + 0.3)
    write_report(folder)
    return folder


def test_a_method_is_called_with_its_terms(tmp_path: Path) -> None:
    """By the summary, else by what was typed, else by config.yaml: an older run, one that died."""
    for target in DOMAINS[:2]:
        told = pair(tmp_path, "finetune", "art", target, 0, 0.7)
        summary = json.loads((told / "summary.json").read_text())
        (told / "summary.json").write_text(json.dumps({**summary, "terms": ["l2_sp", "bss"]}))
        pair(tmp_path, "finetune", "art", target, 0, 0.6, "terms=[mcc]")
        of_preset = pair(tmp_path, "finetune", "art", target, 0, 0.5, "tags=[x]")
        with (of_preset / "config.yaml").open("a") as file:
            file.write("terms:\n  delta:\n    alpha: 0.1\n")
        pair(tmp_path, "finetune", "art", target, 0, 0.4, "terms=[]")
    found = board(tmp_path)
    names = ["finetune + l2_sp + bss", "finetune + mcc", "finetune + delta", "finetune"]
    table = matrices(found.groups, found.metric, ["selected"])[0]
    assert [row.name.removesuffix(" tags=[x]") for row in table.rows] == names
    assert "terms" not in [*found.settings, *found.shared]
    write_report(tmp_path)
    written = (tmp_path / "leaderboard.md").read_text()
    assert "| finetune + l2_sp + bss |" in written
    record = next(g for g in found.groups if g.method == names[0]).jobs[0]
    assert text_summary(record.path).startswith("finetune + l2_sp + bss on pacs art→cartoon")
    assert "finetune + l2_sp + bss on pacs art→cartoon" in Page(write_report(record.path)).text


def test_methods_in_rows_targets_in_columns_their_mean_at_the_end(leave_one_out: Path) -> None:
    found = board(leave_one_out)
    assert found.settings == []  # neither source nor target is one
    table = matrices(found.groups, found.metric, ["selected"])[0]
    assert (table.heads, table.common) == (["→ cartoon", "→ photo", "→ sketch"], "pacs")
    assert table.others == "source"
    dann, source_only, mcc = table.rows
    assert [row.name for row in table.rows] == ["dann", "source_only", "mcc"]
    assert dann.average == pytest.approx(0.6 + 0.1 + 0.01 + 0.004)
    # of a seed all columns move alike: the spread of the mean is that of 0.014 * seed
    assert dann.std == pytest.approx(statistics.stdev([0.0, 0.014, 0.028]))
    assert dann.average_text == "71.4 ± 1.4"
    assert dann.best
    assert not source_only.best
    assert (mcc.average, mcc.average_text, mcc.best) == (None, "2 of 3", False)
    assert mcc.missing == ["→ sketch"]
    assert table.gaps == ["mcc lacks → sketch"]
    assert [cell.best for cell in mcc.cells] == [True, True, False]


def test_the_mean_is_tested_as_a_data_set_is(leave_one_out: Path) -> None:
    found = board(leave_one_out)
    assert [group.data for group in found.means] == ["mean of 3 pairs"] * 2
    first = found.differences[0]
    assert (first.first.method, first.second.method, first.n) == ("dann", "source_only", 3)
    assert first.mean == pytest.approx(0.104)
    assert first.tests == 1
    # differences 0.1, 0.104, 0.108: their standard error is 0.004 / sqrt 3
    assert first.high == pytest.approx(0.104 + 4.302653 * 0.004 / 3**0.5)


def test_page_and_files(leave_one_out: Path) -> None:
    page = Page(leave_one_out / "report.html")
    page.assert_self_contained()
    assert "By pair: pacs" in page.text
    assert "Mean of 3 pairs: dann leads with 71.4 ± 1.4 %" in page.text
    assert "The source is all other domains." in page.text
    assert "No mean: mcc lacks → sketch." in page.text
    text = (leave_one_out / "leaderboard.md").read_text()
    assert "| method | → cartoon | → photo | → sketch | mean |" in text
    assert "| mcc | **91.0 ± 1.0** | **101.0 ± 1.0** | – | 2 of 3 |" in text
    rows = list(csv.DictReader((leave_one_out / "leaderboard_by_data.csv").open()))
    assert [row["columns"] for row in rows] == ["3", "3", "2"]
    assert float(rows[0]["mean"]) == pytest.approx(0.714)
    assert rows[2]["mean"] == ""
    assert rows[2]["pacs cartoon+photo→sketch/n"] == "0"


def test_all_pairs_and_unequal_seeds(tmp_path: Path) -> None:
    for source, target in (("photo", "sketch"), ("sketch", "photo")):
        for seed in (0, 1):
            pair(tmp_path, "dann", source, target, seed, 0.6 + 0.1 * seed)
    pair(tmp_path, "dann", "photo", "sketch", 2, 0.9)
    found = board(tmp_path)
    table = matrices(found.groups, found.metric, ["selected"])[0]
    assert (table.heads, table.others) == (["photo → sketch", "sketch → photo"], "")
    (row,) = table.rows
    assert row.average == pytest.approx((0.65 + 2.2 / 3) / 2)  # of the means that are printed
    assert row.std is None  # but no spread: the columns have other seeds
    assert [cell.few for cell in row.cells] == [False, True]


def test_a_setting_is_chosen_within_a_pair_or_over_all_and_never_across_test_labels(
    tmp_path: Path,
) -> None:
    """lr=0.1 is best by test everywhere; the selector likes 0.01 on one pair and on the mean."""
    liked = {("photo", "0.01"): 3.0, ("photo", "0.1"): 1.0}
    for target in ("photo", "sketch"):
        for lr, final in (("0.01", 0.6), ("0.1", 0.8)):
            for seed in (0, 1):
                job = pair(tmp_path, "dann", "cartoon", target, seed, final, f"optimizer.lr={lr}")
                value = liked.get((target, lr), 1.0 + float(lr))
                row = {"split": "eval", "step": 1800, "global_step": 1800, "phase": "adapt"}
                row["validator/information_maximization"] = value
                (job / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    found = board(tmp_path)
    from tlrun.report.statistics.chosen import at_chosen_settings, chosen_settings

    choices = chosen_settings([*found.means, *found.candidates], found.metric)
    assert {c.chosen.group.data: c.settings for c in choices} == {
        "mean of 2 pairs": "optimizer.lr=0.01",
        "pacs cartoon→photo": "optimizer.lr=0.01",
        "pacs cartoon→sketch": "optimizer.lr=0.1",
    }
    table = chosen_matrix(at_chosen_settings(found.candidates, choices), found.metric)
    assert table is not None
    (row,) = table.rows
    assert (row.name, [cell.value for cell in row.cells]) == (
        "dann",
        [pytest.approx(0.6), pytest.approx(0.8)],
    )


def test_two_folders_of_one_name_in_different_places_are_told_apart(tmp_path: Path) -> None:
    for place in ("a", "b"):
        run = make_run(
            tmp_path / place,
            data="folder",
            overrides=(f"data.target.root=/{place}/photo", "data.source.root=/x/art"),
            baseline=False,
            images=10,
            evaluations=1,
        )
        called(run, "art→photo", "art", "photo")
    found = board(tmp_path)
    assert found.settings == ["data.target.root"]
    assert len(found.groups) == 2


def test_runs_of_an_older_tlrun_are_called_by_their_folders(tmp_path: Path) -> None:
    for source in ("amazon", "dslr"):
        run = make_run(
            tmp_path / source,
            data="folder",
            overrides=(f"data.source.root=/x/{source}",),
            baseline=False,
            images=10,
            evaluations=1,
        )
        folder = "_target_: tlrun.data.sets.folder.folder"
        (run / "config.yaml").write_text(
            f"data:\n  name: folder\n  source:\n    {folder}\n    root: /x/{source}\n"
            f"  target:\n    {folder}\n    root: /x/webcam\n"
        )
    found = board(tmp_path)
    assert sorted(group.data for group in found.groups) == ["amazon→webcam", "dslr→webcam"]
    assert found.settings == []
