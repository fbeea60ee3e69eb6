"""Several sweeps in one page: tlrun report A B --compare FOLDER."""

import csv
import shutil
from pathlib import Path

import pytest

from helpers.html_page import Page
from helpers.run_folders import make_run
from tlrun.cli.main import main
from tlrun.errors import ConfigError
from tlrun.report.pages.write import sources_of, write_comparison


def sweep(path: Path, method: str, lift: float, *overrides: str) -> Path:
    for seed in (0, 1):
        run = make_run(
            path / f"{method}{seed}",
            method=method,
            data="mnist_usps",
            seed=seed,
            overrides=overrides,
            final=0.7 + lift + 0.01 * seed * (1 + lift),
            baseline=False,
            images=10,
            evaluations=2,
        )
        (run / "report.html").write_text("")
    return path


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("comparison")
    sweep(base / "a", "dann", 0.1, "trainer.steps=40")
    sweep(base / "b", "dann", 0.2, "trainer.steps=80")
    sweep(base / "loose", "mcd", 0.0)
    return base


def test_sweeps_and_single_runs(sweeps: Path) -> None:
    paths = [sweeps / "a", sweeps / "b", sweeps / "loose" / "mcd0", sweeps / "a" / "dann0"]
    page = Page(write_comparison(paths, sweeps / "out"))
    page.assert_self_contained()
    rows = list(csv.DictReader((sweeps / "out" / "leaderboard.csv").open()))
    assert list(rows[0])[:3] == ["sweep", "data", "method"]
    assert [(row["sweep"], row["method"], row["jobs"]) for row in rows] == [
        ("b", "dann", "2"),
        ("a", "dann", "2"),
        ("runs", "mcd", "1"),
    ]
    assert rows[1]["trainer.steps"] == "40"
    assert rows[1]["against_best/n"] == "2"
    assert "3 sweeps, 5 jobs" in page.text
    assert "What the sweeps differ in" in page.text
    assert "trainer.steps=80" in page.text
    assert "dann [b] leads with" in page.text
    assert "--compare" in page.text  # the command that writes it again
    for link in page.links:
        assert (sweeps / "out" / link).is_file(), link
    assert len(page.links) == 5
    assert "| b | mnist_usps | dann |" in (sweeps / "out" / "leaderboard.md").read_text()


def test_from_the_command_line(sweeps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = sweeps / "new" / "page"
    assert main(["report", str(sweeps / "a"), str(sweeps / "b"), "--compare", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    assert not (sweeps / "a" / "leaderboard.csv").exists()


def test_a_folder_of_sweeps_is_pooled(sweeps: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(sweeps / name, sweeps / "all" / name)
    assert main(["report", str(sweeps / "all")]) == 0
    assert len(list(csv.DictReader((sweeps / "all" / "leaderboard.csv").open()))) == 2


def test_the_figures_of_a_sweep_are_not_overwritten(
    sweeps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["report", str(sweeps / "a"), str(sweeps / "b"), "--compare", str(sweeps / "a")]
    assert main(command) == 2
    assert "give another folder for the comparison" in capsys.readouterr().err
    assert not (sweeps / "a" / "leaderboard.csv").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file; give a folder"):
        write_comparison([sweeps / "a"], tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="neither a run folder nor a folder of run folders"):
        write_comparison([sweeps / "a", tmp_path / "empty"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for place in ("x/sweep", "y/sweep"):
        (tmp_path / place).mkdir(parents=True)
    found = sources_of([tmp_path / "x/sweep", tmp_path / "y/sweep", tmp_path / "x/sweep"])
    assert [source.label for source in found] == ["x/sweep", "y/sweep"]


def test_the_folder_of_one_run_is_no_place_for_a_comparison(sweeps: Path) -> None:
    run = sweeps / "a" / "dann0"
    with pytest.raises(ConfigError, match=r"is a run, and the comparison .* another folder"):
        write_comparison([run], run)
