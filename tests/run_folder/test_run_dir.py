"""The run folder: exclusive claims, whole files, torn metrics, status."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tlrun.errors import ConfigError, RunError
from tlrun.files.atomic import write_atomic
from tlrun.run_folder.environment import collect_environment, git_state
from tlrun.run_folder.json_file import clean
from tlrun.run_folder.locks import locked
from tlrun.run_folder.record import logging_to
from tlrun.run_folder.run_dir import RunDir, is_run_dir, runs_in


def test_claims_of_the_same_second_never_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: RunDir.claim(tmp_path / "a" / "run"), range(8)))
    assert len(set(claimed)) == 8
    assert {p.name for p in claimed} == {"run", *(f"run_{i}" for i in range(2, 9))}


def test_claim_takes_a_folder_that_hydra_made(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert RunDir.claim(tmp_path / "run") == tmp_path / "run"


@pytest.mark.parametrize(
    "name",
    [
        *("config.yaml", ".hydra/config.yaml", ".lock", "sweep.yaml"),
        *("report.html", "predictions_photo.csv", "baseline/mine", "checkpoints/last.pt"),
    ],
)
def test_claim_leaves_a_folder_with_files_of_somebody_else(tmp_path: Path, name: str) -> None:
    mine = tmp_path / "project"
    (mine / name).parent.mkdir(parents=True)
    (mine / name).write_text("mine")
    run = RunDir.create(mine)
    assert run.path == tmp_path / "project_2"
    run.discard()
    assert (mine / name).read_text() == "mine"
    assert [path for path in mine.rglob("*") if path.is_file()] == [mine / name]


def test_claim_beside_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path / "work", tmp_path / "work" / "below"):
        folder.mkdir()
        (folder / "status.json").touch()
    monkeypatch.chdir(tmp_path / "work")
    assert RunDir.claim(".") == tmp_path / "work_2"
    monkeypatch.chdir("below")
    assert RunDir.claim("..") == tmp_path / "work_3"


def test_claim_takes_a_folder_with_files_of_other_names(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert RunDir.claim(tmp_path) == tmp_path


def test_claim_says_where_it_could_not_write(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(RunError, match=r"cannot .* the run folder .*outputs/run"):
        RunDir.claim(tmp_path / "outputs" / "run")
    with pytest.raises(RunError, match="a file is there"):
        RunDir.claim(tmp_path / "outputs")


def test_open_wants_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        RunDir.open(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="not a run folder"):
        RunDir.open(tmp_path)
    run = RunDir.create(tmp_path / "run")
    run.config.write_text("seed: 0")
    assert RunDir.open(run.path).path == run.path
    assert is_run_dir(run.path)
    assert runs_in(tmp_path) == [run.path]


def test_status_keeps_fields_and_drops_an_old_error(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run")
    assert run.read_status()["state"] == "created"
    run.set_status("failed", step=7, error="NaN")
    assert run.read_status()["error"] == "NaN"
    run.set_status("running")
    status = run.read_status()
    assert status["state"] == "running"
    assert status["step"] == 7
    assert "error" not in status


def test_json_is_strict_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    RunDir.write_json(target, {"a": float("nan"), 1: np.float32(0.5), "c": [np.inf, np.arange(2)]})
    assert RunDir.read_json(target) == {"a": None, "1": 0.5, "c": [None, [0, 1]]}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, "half")
    assert RunDir.read_json(target)["1"] == 0.5
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_the_lock_removes_what_killed_processes_left_half_written(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        pass  # it is gone by now
    (tmp_path / "checkpoints").mkdir()
    gone = [f".summary.json.{process.pid}.tmp", f"checkpoints/.new.pt.{process.pid}.tmp"]
    kept = [f".summary.json.{os.getpid()}.tmp", ".mine.tmp", f"notes.{process.pid}.tmp"]
    for name in (*gone, *kept):
        (tmp_path / name).write_text("half")
    with locked(tmp_path):
        left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {*kept, ".lock"}


def test_clean_leaves_plain_values() -> None:
    assert clean({"a": (1, True, None, "x"), "b": Path("p")}) == {
        "a": [1, True, None, "x"],
        "b": "p",
    }


def test_metrics_are_cut_back_and_survive_a_torn_line(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.metrics_size() == 0
    run.truncate_metrics(0)
    assert run.read_metrics() == []
    run.append_metrics({"step": 1, "loss/a": float("nan")})
    size = run.metrics_size()
    run.append_metrics({"step": 2})
    with run.metrics.open("a") as file:
        file.write('{"step": 3, "lo')
    assert [row["step"] for row in run.read_metrics()] == [1, 2]
    run.truncate_metrics(size)
    assert run.read_metrics() == [{"step": 1, "loss/a": None}]
    with pytest.raises(RunError, match="shorter"):
        run.truncate_metrics(size + 1)


def test_log_goes_to_the_folder_once(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    logger = logging.getLogger("tlrun.engine.trainer")
    with logging_to(run), logging_to(run):
        logger.info("hello")
    logger.info("after")
    assert run.log.read_text().count("hello") == 1
    assert "after" not in run.log.read_text()


def test_environment_is_json_and_names_the_versions(tmp_path: Path) -> None:
    found = collect_environment({"source_train": {"count": 3}})
    json.dumps(found)
    assert found["data"] == {"source_train": {"count": 3}}
    assert {"python", "torch", "hydra-core"} <= set(found["versions"])
    assert git_state(tmp_path) is None
