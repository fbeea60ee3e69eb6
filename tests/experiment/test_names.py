"""Classes and columns are matched by name in every set of a run: right accuracies, or a refusal.

The features of the tables here tell the classes apart without an error, so every figure is 1.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from helpers.small import QUICK
from tlrun.cli.main import main
from tlrun.run_folder.run_dir import RunDir

COLUMNS = ("width", "height", "depth", "weight")
PLACE = {"0": (4, 0, 0, 9), "1": (0, 4, 0, -5), "2": (0, 0, 4, 0), "10": (4, 4, 4, 2)}
WORDS = (
    *(word for word in QUICK if not word.startswith("backbone.")),
    "method=source_only",
    "data=features",
    "data.normalize=standard",
    "backbone=mlp",
    "backbone.hidden=[8]",
    "trainer.steps=60",
    "trainer.batch_size=16",
    "trainer.eval_every=30",
    "optimizer.lr=0.05",
    "select=last",
)


def write(
    path: Path, classes: Sequence[str], columns: Sequence[str] = COLUMNS, count: int = 40, seed=1
) -> None:
    """A csv with `columns` in that order; what COLUMNS does not name is noise."""
    draws = np.random.default_rng(seed)
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["label", *columns])
        for i in range(count):
            name = classes[i % len(classes)]
            at = dict(zip(COLUMNS, PLACE.get(name, (9, 9, 9, 9)), strict=True))
            rows.writerow([name, *(at.get(c, 0) + 0.1 * draws.standard_normal() for c in columns)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source's test set lacks classes, the target's columns stand in another order."""
    folder = tmp_path_factory.mktemp("names")
    write(folder / "source.csv", ("0", "1", "2", "10"), count=120)
    write(folder / "source_test.csv", ("10", "2"), COLUMNS[::-1])
    write(folder / "target.csv", ("10", "2", "1", "0"), COLUMNS[::-1], count=80)
    write(folder / "few.csv", ("2", "0"), ("depth", "weight", "width", "height"))
    write(folder / "further.csv", ("0", "1", "3"))
    write(folder / "narrow.csv", ("0", "1"), COLUMNS[:3])
    write(folder / "wide.csv", ("0", "1"), (*COLUMNS, "colour"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("tlrun.experiment.lifecycle.show", lambda run_dir: None)
        words = ["data.source.path=source.csv", "data.source.test=source_test.csv"]
        assert main([*WORDS, *words, "data.target.path=target.csv", "hydra.run.dir=run"]) == 0
    return folder


def figures(folder: Path) -> dict[str, float]:
    (path,) = (folder / "run" / "evaluations").glob("*.json")
    found = RunDir.read_json(path)
    path.unlink()
    return found


def test_test_sets_by_name(trained: Path) -> None:
    run = RunDir(trained / "run")
    selected = run.read_json(run.summary)["selected"]
    assert selected["source_test/accuracy"] == 1
    assert selected["target_test/accuracy"] == 1
    space = run.read_json(run.label_space)
    assert space["classes"] == ["0", "1", "2", "10"]
    assert space["feature_names"] == list(COLUMNS)


@pytest.mark.parametrize(
    "words",
    [
        ("data.target.path=few.csv",),
        ("data.target.test=few.csv",),
        ("data.source.path=few.csv", "data.target.path=target.csv"),  # its statistics play no part
        ("data=features", "data.source.path=target.csv", "data.target.path=few.csv"),
    ],
)
def test_evaluate_by_name(trained: Path, monkeypatch: pytest.MonkeyPatch, words) -> None:
    monkeypatch.chdir(trained)
    assert main(["evaluate", "run", *words]) == 0
    found = figures(trained)
    assert found["target_test/accuracy"] == 1
    assert found["source_test/accuracy"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data.target.path=further.csv", "a run and the data that it is evaluated on must have the "
         "same classes (only in target: 3); rename or remove labels"),
        ("data.target.test=further.csv", "the test or validation set of target has classes that "
         "the run was not given to train on: 3"),
        ("data.target.path=narrow.csv", "must have the same columns (only in source: weight)"),
        ("data.target.path=wide.csv", "must have the same columns (only in target: colour)"),
    ],
)  # fmt: skip
def test_evaluate_refuses_by_name(
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    said: str,
) -> None:
    monkeypatch.chdir(trained)
    assert main(["evaluate", "run", words]) == 2
    assert said in capsys.readouterr().err
    assert not list((trained / "run" / "evaluations").glob("*.json"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data.source.test=further.csv", "of source has classes that source was not given to train "
         "on: 3; rename or remove labels."),
        ("data.source.test=narrow.csv", "the same columns (only in 'source.csv': weight)"),
        ("data.target.path=wide.csv", "must have the same columns (only in target: colour)"),
        ("init=run", "the run and source must have the same columns (only in the run: width; only "
         "in source: Width)"),
    ],
)  # fmt: skip
def test_refused_before_training(
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    said: str,
) -> None:
    monkeypatch.chdir(trained)
    paths = ["data.source.path=source.csv", "data.target.path=target.csv"]
    if words == "init=run":
        write(trained / "other.csv", ("0", "1", "2", "10"), ("Width", *COLUMNS[1:]))
        paths = ["data.source.path=other.csv", "data.target.path=other.csv"]
    assert main([*WORDS, *paths, words, "hydra.run.dir=never"]) == 2
    assert said in capsys.readouterr().err.replace(f"{trained}/", "")
    assert not list(trained.glob("never*/checkpoints/*"))


def test_a_run_goes_on_with_its_own_classes_only(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    write(trained / "changing.csv", ("0", "1", "2"), count=60)
    words = ["data.source.path=changing.csv", "data.target.path=changing.csv"]
    assert main([*WORDS, *words, "hydra.run.dir=going"]) == 0
    write(trained / "changing.csv", ("0", "1", "10"), count=60)
    RunDir("going").set_status("interrupted")
    assert main(["resume", "going"]) == 2
    assert "changed since it began (now 0, 1, 10; then 0, 1, 2)" in capsys.readouterr().err
