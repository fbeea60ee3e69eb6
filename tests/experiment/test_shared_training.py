"""In a sweep a baseline that was trained already is taken, and only where it is the same."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from helpers.small import QUICK
from tlrun.cli.main import main
from tlrun.experiment import lifecycle, shared_training
from tlrun.experiment.compare import compare_runs
from tlrun.experiment.lifecycle import execute
from tlrun.run_folder.locks import locked
from tlrun.run_folder.run_dir import RunDir, runs_in

WORDS = [
    *(word for word in QUICK if not word.startswith("baseline")),
    "baseline=true",
    "report=none",
    "hydra.sweep.dir=sweep",
]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, in_tmp: Path, no_pages: None) -> Iterator[list[str]]:
    """The folders that were trained, in order."""
    folders: list[str] = []
    train = lifecycle.train

    def noted(session: Any) -> None:
        folders.append(str(session.run_dir.path.absolute().relative_to(in_tmp)))
        train(session)

    monkeypatch.setattr(lifecycle, "train", noted)
    return folders


def sweep(*words: str) -> dict[str, RunDir]:
    """The jobs of a sweep by their methods and seeds."""
    assert main(["-m", *WORDS, *words]) == 0
    jobs = [RunDir(path) for path in runs_in("sweep")]
    return {f"{(s := job.read_summary())['method']}{s['seed']}": job for job in jobs}


def baseline_of(job: RunDir) -> RunDir:
    return RunDir(job.path / "baseline")


def alone(run: RunDir) -> RunDir:
    """The same model, trained outside of any sweep."""
    other = RunDir.create(Path("alone") / "baseline")
    cfg = OmegaConf.load(run.config)
    other.config.write_text(OmegaConf.to_yaml(cfg))
    execute(other.path)
    return other


def without_costs(summary: dict[str, Any]) -> dict[str, Any]:
    costs = ("train_seconds", "wall_seconds", "images_per_second", "peak_memory_mb", "taken_from")
    return {key: value for key, value in summary.items() if key not in costs}


def assert_same(taken: RunDir, other: RunDir) -> None:
    """To the bit, in every file."""
    assert compare_runs(other, taken).exact
    assert without_costs(taken.read_summary()) == without_costs(other.read_summary())
    assert taken.left() == other.left()
    for name in (*taken.left(), taken.model.name, taken.label_space.name):
        assert (taken.path / name).read_bytes() == (other.path / name).read_bytes(), name


def test_methods_share_their_baseline_and_it_is_what_training_would_give(
    trained: list[str],
) -> None:
    jobs = sweep("method=dann,deep_coral", "seed=0,1")
    baselines = [folder for folder in trained if folder.endswith("baseline")]
    assert len(trained) == 6
    assert len(baselines) == 2
    for seed in (0, 1):
        first, second = baseline_of(jobs[f"dann{seed}"]), baseline_of(jobs[f"deep_coral{seed}"])
        origin = f"{first.path.relative_to('sweep')}"
        assert second.read_summary()["taken_from"] == origin
        assert "taken_from" not in first.read_summary()
        assert f"taken from {origin}" in second.log.read_text()
        assert_same(second, first)
    assert_same(baseline_of(jobs["deep_coral1"]), alone(first))
    assert jobs["deep_coral1"].read_summary()["wall_seconds"]["baseline"] == 0
    assert jobs["dann1"].read_summary()["wall_seconds"]["baseline"] > 0
    assert jobs["deep_coral1"].read_summary()["before"] == first.read_summary()["selected"]


def test_the_job_source_only_is_the_baseline_of_others(trained: list[str]) -> None:
    jobs = sweep("method=source_only,dann")
    assert len(trained) == 2
    own, taken = jobs["source_only0"], baseline_of(jobs["dann0"])
    assert taken.read_summary()["taken_from"] == own.path.name
    assert not (own.path / "baseline").exists()  # it would be the same once more
    assert compare_runs(own, taken).exact
    assert_same(taken, alone(taken))


def test_a_baseline_is_the_job_source_only_that_comes_later(trained: list[str]) -> None:
    jobs = sweep("method=dann,source_only")
    assert len(trained) == 2
    own, baseline = jobs["source_only0"], baseline_of(jobs["dann0"])
    assert own.read_summary()["taken_from"] == f"{baseline.path.relative_to('sweep')}"
    assert compare_runs(baseline, own).exact
    assert not own.missing(page=False)
    assert own.images.is_file()
    assert without_costs(own.read_summary()).keys() == without_costs(baseline.read_summary()).keys()
    assert RunDir(own.path).read_status()["state"] == "completed"


def test_a_deleted_job_is_not_said_to_be_taken_from_itself(trained: list[str]) -> None:
    words = ("method=source_only,dann",)
    jobs = sweep(*words)
    shutil.rmtree(jobs["source_only0"].path)
    jobs = sweep(*words)
    baseline = baseline_of(jobs["dann0"]).path.relative_to("sweep")
    assert jobs["source_only0"].read_summary()["taken_from"] == f"{baseline}"


@pytest.mark.parametrize("word", ["seed", "trainer.steps", "trainer.log_every", "select"])
def test_another_seed_budget_cadence_or_rule_is_another_model(
    word: str, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"seed": "1", "trainer.steps": "7", "trainer.log_every": "3", "select": "last"}[word]
    sweep("method=dann")
    words = [entry for entry in WORDS if not entry.startswith(f"{word}=")]
    monkeypatch.setitem(globals(), "WORDS", words)
    sweep("method=deep_coral", f"{word}={other}")
    assert len(trained) == 4


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def other_version(run: RunDir) -> None:
    versions = RunDir.read_json(run.environment)["versions"]
    edit(run.environment, versions={**versions, "torch": "1.0"})


def other_code(run: RunDir) -> None:
    code = RunDir.read_json(run.environment)["code"]
    edit(run.environment, code={**code, "tlrun": {**code["tlrun"], "tlrun/engine": "0"}})


def other_processor(run: RunDir) -> None:
    cpu = RunDir.read_json(run.environment)["cpu"]
    edit(run.environment, cpu={**cpu, "capability": "DEFAULT"})


def other_images(run: RunDir) -> None:
    data = RunDir.read_json(run.environment)["data"]
    data["domains"]["source"]["splits"]["train"]["checksum"] = "0"
    edit(run.environment, data=data)


def trained_in_parts(run: RunDir) -> None:
    edit(run.environment, earlier=[{"threads": 8}])


def killed(run: RunDir) -> None:
    edit(run.status, state="running")


def stopped(run: RunDir) -> None:
    edit(run.status, state="interrupted")


def without_weights(run: RunDir) -> None:
    (run.checkpoints / "last.pt").unlink()


def without_predictions(run: RunDir) -> None:
    run.predictions.unlink()


def unreadable(run: RunDir) -> None:
    run.summary.write_text("{")


@pytest.mark.parametrize(
    "damage",
    [
        *(other_version, other_code, other_processor, other_images, trained_in_parts),
        *(killed, stopped, without_weights, without_predictions, unreadable),
    ],
)
def test_what_is_not_whole_or_of_other_surroundings_is_not_taken(
    damage: Any, trained: list[str]
) -> None:
    damage(baseline_of(sweep("method=dann")["dann0"]))
    jobs = list(runs_in("sweep"))
    assert main(["-m", *WORDS, "method=deep_coral"]) == 0
    (new,) = {*runs_in("sweep")} - {*jobs}
    assert len(trained) == 4
    assert "taken_from" not in baseline_of(RunDir(new)).read_summary()


def test_runs_outside_of_a_sweep_train_their_own(trained: list[str]) -> None:
    words = [word for word in WORDS if not word.startswith("hydra.")]
    for method in ("dann", "deep_coral"):
        assert main([*words, f"method={method}", f"hydra.run.dir=runs/{method}"]) == 0
    assert len(trained) == 4


def test_a_taken_baseline_is_trained_on_and_leaves_the_other_as_it_is(trained: list[str]) -> None:
    jobs = sweep("method=dann,deep_coral")
    first, second = (baseline_of(jobs[name]) for name in ("dann0", "deep_coral0"))
    before = {
        file: file.read_bytes()
        for file in first.path.rglob("*")
        if file.is_file() and file.name != ".lock"
    }
    assert main(["resume", str(jobs["deep_coral0"].path), "trainer.steps=9"]) == 0
    assert second.read_summary()["steps"] == 9
    assert "taken_from" not in second.read_summary()
    assert {file: file.read_bytes() for file in before} == before


def test_where_links_are_refused_files_are_copied(
    trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refused)
    jobs = sweep("method=dann,deep_coral")
    assert len(trained) == 3
    assert_same(baseline_of(jobs["deep_coral0"]), baseline_of(jobs["dann0"]))


def test_a_kill_while_it_is_taken_leaves_nothing_that_looks_trained(
    trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shared_training, "_link_checkpoints", kill)
        assert main(["-m", *WORDS, "method=dann,deep_coral"]) == 130
    jobs = sweep("method=dann,deep_coral")
    assert sum(folder.endswith("baseline") for folder in trained) == 1
    assert_same(baseline_of(jobs["deep_coral0"]), baseline_of(jobs["dann0"]))


def test_of_a_run_that_another_process_works_on_nothing_is_taken(
    trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = baseline_of(sweep("method=dann")["dann0"])
    ready, over = multiprocessing.Event(), multiprocessing.Event()
    other = multiprocessing.Process(target=hold, args=(first.path, ready, over))
    other.start()
    assert ready.wait(60)
    assert main(["-m", *WORDS, "method=deep_coral"]) == 0
    over.set()
    other.join()
    assert len(trained) == 4


def hold(path: Path, ready: Any, over: Any) -> None:
    with locked(path):
        ready.set()
        over.wait(120)


@pytest.fixture
def untrained(trained: list[str]) -> list[RunDir]:
    """Two equal baselines that were stopped before their first checkpoint."""
    baselines = [baseline_of(job) for job in sweep("method=dann,deep_coral").values()]
    for baseline in baselines:
        for kind in ("last", "previous"):
            (baseline.checkpoints / f"{kind}.pt").unlink()
        edit(baseline.status, state="interrupted")
    return baselines


def started(run: RunDir, seconds: float) -> multiprocessing.Process:
    process = multiprocessing.Process(target=execute_slowly, args=(run.path, seconds))
    process.start()
    return process


def execute_slowly(path: Path, seconds: float) -> None:
    train = lifecycle.train

    def slow(session: Any) -> None:
        (path / "in_training").touch()
        time.sleep(seconds)
        train(session)

    lifecycle.train = slow
    execute(path)


def test_of_two_at_once_the_later_waits_for_the_first(untrained: list[RunDir]) -> None:
    processes = [started(baseline, 1.0) for baseline in untrained]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    taken = ["taken_from" in baseline.read_summary() for baseline in untrained]
    assert sorted(taken) == [False, True]
    assert_same(*untrained)


def test_it_does_not_wait_for_the_dead(untrained: list[RunDir]) -> None:
    first, second = untrained
    process = started(first, 600.0)
    while not (first.path / "in_training").exists():
        time.sleep(0.05)
    process.kill()
    process.join()
    execute(second.path)
    assert "taken_from" not in second.read_summary()


def test_where_the_kernel_frees_no_locks_nobody_waits(
    untrained: list[RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise OSError("flock is not supported")

    first, second = untrained
    process = started(first, 600.0)
    try:
        while not (first.path / "in_training").exists():
            time.sleep(0.05)
        monkeypatch.setattr("fcntl.flock", refused)
        monkeypatch.setattr(shared_training, "file_lock", refused)
        monkeypatch.setattr(shared_training, "locked", lambda folder: contextlib.nullcontext())
        monkeypatch.setattr(lifecycle, "locked", lambda folder: contextlib.nullcontext())
        execute(second.path)
        assert second.read_status()["state"] == "completed"
    finally:
        process.kill()
        process.join()
