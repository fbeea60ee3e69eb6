"""What the bar of a sweep says where there is no terminal: a line for each job that ends."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from tlrun.messages import plural
from tlrun.run_folder.run_dir import RunDir
from tlrun.sweep.progress import SweepProgress, count_jobs


def test_bar_counts_and_status_files(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(name: str, seconds: float) -> None:
        run = RunDir(Path("sweep") / name)
        run.path.mkdir(parents=True)
        run.config.write_text("select: {name: bnm}\n")
        row = {"step": 8, "split": "eval", "validator/bnm": 0.5}
        run.metrics.write_text(json.dumps(row) + "\n")
        chosen = {
            "selected": {"step": 8, "target_test/accuracy": 0.9},
            "wall_seconds": {"total": seconds},
        }
        run.write_json(run.summary, {"selection_rule": "bnm", **chosen})
        run.set_status("completed")

    clock = [0.0]
    monkeypatch.setattr("tlrun.sweep.progress.time", SimpleNamespace(monotonic=lambda: clock[0]))
    finish("before", 1.0)
    progress = SweepProgress(Path("sweep"), total=3)
    clock[0] = 96.0
    finish("one", 90.0)
    progress.look()
    progress.look()
    finish("two", 60.0)
    progress.close()
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("one: bnm 0.5, 1.5 min; 2 of 3 jobs done, about 1.6 min left")
    assert second == "two: bnm 0.5, 1.0 min; 3 jobs done"


def test_one_job_is_told_in_the_singular(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = SweepProgress(tmp_path, total=1)
    run = RunDir(tmp_path / "one")
    run.path.mkdir()
    run.config.write_text("select: {name: bnm}\n")
    run.set_status("completed")
    progress.close()
    assert capsys.readouterr().err == "one: completed; 1 job done\n"


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [
        (0, "job", "0 jobs"),
        (1, "job", "1 job"),
        (1, "class", "1 class"),
        (12, "class", "12 classes"),
    ],
)
def test_a_number_and_its_noun(count: int, noun: str, said: str) -> None:
    assert plural(count, noun) == said


def test_what_is_typed_stands_in_the_place_of_a_presets_axis() -> None:
    def count(*typed: str) -> int | None:
        hydra = {"overrides": {"task": list(typed)}, "sweeper": {"params": {"method": "a,b,c"}}}
        return count_jobs(OmegaConf.create({"hydra": hydra}))

    assert count("seed=0,1") == 6
    assert count("method=a,b", "seed=0,1") == 4
    assert count("method=a", "seed=0,1") == 2
