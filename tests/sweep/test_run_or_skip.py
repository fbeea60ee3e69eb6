"""Sweeps finish what is missing: folders by hash, claims, what a second command leaves alone."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch
from omegaconf import OmegaConf

from helpers.small import QUICK
from tlrun.cli.main import main
from tlrun.engine import checkpoint
from tlrun.errors import Interrupted, RunError
from tlrun.run_folder.record import recorded
from tlrun.run_folder.run_dir import RunDir, runs_in
from tlrun.sweep.command import saved_commands
from tlrun.sweep.folder import claim_new

SEEDS = ["-m", "method=source_only", "seed=0,1,2"]
NAMED = "hydra.sweep.dir=sweep"


class Jobs:
    """Stands in for training: `ran` has the seeds, in order; `action` may fail."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.action: Callable[[Any], None] = lambda cfg: None

    def execute(self, run: RunDir) -> dict[str, Any]:
        cfg: Any = OmegaConf.load(run.config)
        self.ran.append(cfg.seed)
        with recorded(run):
            self.action(cfg)
            run.set_status("completed")
            run.write_json(run.summary, {"seed": cfg.seed})
            run.report.touch()
            run.plots.mkdir(exist_ok=True)
        return {"seed": cfg.seed}

    def again(self, *words: str) -> tuple[int, list[int]]:
        """The exit code of a command, and the seeds that it ran."""
        self.ran.clear()
        code = main(list(words))
        return code, list(self.ran)

    def fail(self, seed: int, error: Exception | None = None) -> None:
        def action(cfg: Any) -> None:
            if cfg.seed == seed:
                raise error or RunError("loss is NaN")

        self.action = action


@pytest.fixture
def jobs(instead_of_training: Callable[[Callable[..., Any]], None]) -> Jobs:
    made = Jobs()
    instead_of_training(made.execute)
    return made


def sweeps() -> list[str]:
    return sorted(path.name for path in Path("outputs/sweeps").iterdir())


def states(folder: str | Path) -> list[str]:
    return [RunDir(path).read_status()["state"] for path in runs_in(folder)]


def stamp(folder: str | Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file of the jobs."""
    files = [file for job in runs_in(folder) for file in job.rglob("*") if file.is_file()]
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


# ---- the same command again -------------------------------------------------------------------


def test_the_same_command_in_any_order_finds_its_sweep(
    jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert jobs.again(*SEEDS) == (0, [0, 1, 2])
    (name,) = sweeps()
    folder = Path("outputs/sweeps", name)
    before = stamp(folder)
    assert len(before) > 3 * 6  # .hydra, config, overrides, status, summary ...
    capsys.readouterr()
    words = ["sweep.fail_fast=true", "hydra.verbose=false", "seed=0,1,2", "method=source_only"]
    assert jobs.again("-m", *words) == (0, [])
    assert stamp(folder) == before
    said = capsys.readouterr().err
    assert said.count("finished before") == 3
    assert f"going on with outputs/sweeps/{name}: 3 of its 3 jobs completed" in said
    assert jobs.again("resume", str(folder)) == (0, [])
    assert stamp(folder) == before
    assert sweeps() == [name]


def test_pages_of_jobs_are_light_unless_asked_for(jobs: Jobs) -> None:
    assert jobs.again(*SEEDS, NAMED)[0] == 0
    assert jobs.again("-m", "method=source_only", "seed=3", "report=full", NAMED)[0] == 0
    assert jobs.again("-m", "method=source_only", "seed=4", "trainer.steps=200", NAMED)[0] == 0
    assert jobs.again("-m", "method=source_only", "seed=5", "trainer.epochs=1", NAMED)[0] == 0
    kinds = [RunDir(path).page_kind() for path in runs_in("sweep")]
    assert kinds == ["light", "light", "light", "full", "text", "light"]


def test_one_job_of_each_combination_of_groups_is_composed_before_the_first(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    composed: list[list[str]] = []
    load = ConfigLoaderImpl.load_sweep_config

    def counted(self: Any, master_config: Any, sweep_overrides: list[str]) -> Any:
        composed.append(sweep_overrides)
        return load(self, master_config, sweep_overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counted)
    words = ["method=source_only,dann", "seed=range(3)", "optimizer.lr=0.1"]
    assert jobs.again("-m", *words, NAMED) == (0, [0, 1, 2] * 2)
    before = [overrides[:2] for overrides in composed[:-6]]  # and then each job by itself
    assert before == [["method=source_only", "seed=0"], ["method=dann", "seed=0"]]


def test_another_command_has_another_folder(jobs: Jobs) -> None:
    for words in (["seed=0,1"], ["seed=0,1", "optimizer.lr=0.1"], ["seed=1,0"]):
        assert main(["-m", *words]) == 0
    assert len(sweeps()) == 3
    assert len(jobs.ran) == 6


def test_more_values_in_a_named_folder_run_only_the_new_ones(jobs: Jobs) -> None:
    assert jobs.again(*SEEDS, NAMED) == (0, [0, 1, 2])
    assert jobs.again("-m", "method=source_only", "seed=range(5)", NAMED) == (0, [3, 4])
    assert len(saved_commands(Path("sweep"))) == 2
    assert jobs.again("resume", "sweep") == (0, [])


def test_sweep_new_starts_another_beside_it(jobs: Jobs) -> None:
    assert jobs.again(*SEEDS) == (0, [0, 1, 2])
    (name,) = sweeps()
    before = stamp(Path("outputs/sweeps", name))
    for _ in range(2):
        assert jobs.again(*SEEDS, "sweep.new=true") == (0, [0, 1, 2])
    assert sweeps() == [name, f"{name}_2", f"{name}_3"]
    assert stamp(Path("outputs/sweeps", name)) == before
    assert jobs.again("resume", f"outputs/sweeps/{name}_2") == (0, [])
    assert len(sweeps()) == 3


def test_jobs_that_differ_in_what_config_hash_leaves_out(jobs: Jobs) -> None:
    words = ["trainer.precision=fp32,bf16", "trainer.threads=1,2", "baseline=true,false", NAMED]
    assert jobs.again("-m", *words) == (0, [0] * 8)
    assert len(runs_in("sweep")) == 8
    roots = ["data=folder", "data.target.root=a,b", "data.source.root=c", "hydra.sweep.dir=roots"]
    assert jobs.again("-m", *roots) == (0, [0, 0])
    assert jobs.again("-m", *roots) == (0, [])


def test_the_same_config_twice_is_one_job(jobs: Jobs) -> None:
    assert jobs.again("-m", "seed=0,1,0", "tags=[a],[b]", NAMED) == (0, [0, 1])
    assert len(runs_in("sweep")) == 2


def test_a_reference_to_another_key_is_kept(jobs: Jobs) -> None:
    words = ["trainer.batch_size=${trainer.eval_every}", "trainer.eval_every=8,16", NAMED]
    assert jobs.again("-m", *words) == (0, [0, 0])
    assert jobs.again("resume", "sweep") == (0, [])
    sizes = {OmegaConf.load(job / "config.yaml").trainer.batch_size for job in runs_in("sweep")}
    assert sizes == {8, 16}


def test_a_name_of_ones_own_never_takes_the_folder_of_another_config(jobs: Jobs) -> None:
    own = ["hydra.sweep.subdir=${hydra.job.num}", NAMED]
    assert jobs.again("-m", "seed=0,1", *own) == (0, [0, 1])
    assert jobs.again("-m", "seed=5,1", *own) == (0, [5])
    assert [path.name for path in runs_in("sweep")] == ["0", "0_2", "1"]


def test_files_of_somebody_else_in_the_folder_of_a_job_are_left(jobs: Jobs) -> None:
    mine = Path("sweep", "0", "predictions.csv")
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    own = ["hydra.sweep.subdir=${hydra.job.num}", NAMED]
    assert jobs.again("-m", "seed=0,1", *own) == (0, [0, 1])
    assert [path.name for path in runs_in("sweep")] == ["0_2", "1"]
    assert [path.name for path in mine.parent.iterdir()] == ["predictions.csv"]
    assert mine.read_text() == "mine"
    assert jobs.again("-m", "seed=0,1", *own) == (0, [])


@pytest.mark.parametrize("name", ["leaderboard.csv", "report.html", "multirun.yaml"])
@pytest.mark.parametrize("dry_run", [[], ["dry_run=true"]])
def test_a_sweep_takes_no_folder_with_such_files_of_somebody_else(
    name: str, dry_run: list[str], jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sweep").mkdir()
    Path("sweep", name).write_text("mine")
    assert jobs.again(*SEEDS, NAMED, *dry_run) == (2, [])
    assert f"write over {name} in it: name another folder" in capsys.readouterr().err
    assert [path.name for path in Path("sweep").iterdir()] == [name]
    assert Path("sweep", name).read_text() == "mine"


def test_a_sweep_takes_no_folder_of_a_run(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDir.create("run")
    run.config.write_text("seed: 7")
    run.report.write_text("mine")
    assert jobs.again(*SEEDS, "hydra.sweep.dir=run") == (2, [])
    assert "run is the folder of a run: name another one" in capsys.readouterr().err
    assert sorted(path.name for path in run.path.iterdir()) == [
        *("config.yaml", "report.html", "status.json")
    ]


# ---- failures ---------------------------------------------------------------------------------


def test_a_failed_job_is_told_at_once_and_tried_again(
    jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.fail(1)
    assert jobs.again(*SEEDS, NAMED) == (1, [0, 1, 2])
    said = capsys.readouterr().err
    failed = said.index("tlrun: error: loss is NaN [#1 ")
    assert said.index("#1 ") < failed < said.index("#2 ")
    assert said.endswith("2 of 3 jobs completed: sweep\n")
    assert sorted(states("sweep")) == ["completed", "completed", "failed"]
    assert jobs.again(*SEEDS, NAMED) == (1, [1])
    assert "failed before, starting anew" in capsys.readouterr().err
    jobs.fail(-1)
    assert jobs.again("resume", "sweep") == (0, [1])
    assert states("sweep") == ["completed"] * 3


def test_fail_fast_and_then_the_jobs_that_never_began(
    jobs: Jobs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.fail(1)
    assert jobs.again(*SEEDS, NAMED, "sweep.fail_fast=true") == (1, [0, 1])
    assert "jobs after the failure did not begin" in capsys.readouterr().err
    assert len(runs_in("sweep")) == 2
    assert len([path for path in Path("sweep").iterdir() if path.is_dir()]) == 2
    assert jobs.again(*SEEDS, NAMED) == (1, [1, 2])  # a stop holds for one command
    jobs.fail(-1)
    Path("other").mkdir()
    monkeypatch.chdir("other")
    assert jobs.again("resume", "../sweep") == (0, [1])
    assert Path.cwd().name == "other"
    assert list(Path.cwd().iterdir()) == []


def test_resume_begins_jobs_in_the_folder_where_the_command_was_typed(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, in_tmp: Path
) -> None:
    Path("my_conf/method").mkdir(parents=True)
    Path("my_conf/method/mine.yaml").write_text("# Mine\n_target_: my_resumed.Mine\nwidth: 4\n")
    Path("my_resumed.py").write_text(
        "from tlrun.methods.adversarial.dann import DANN\nclass Mine(DANN): pass\n"
    )
    jobs.fail(0, Interrupted("stopped", 143))
    words = ["method=mine", "data=folder", "data.source.root=a", "data.target.root=b", NAMED]
    assert jobs.again("-m", "--config-dir", "my_conf", *words, "seed=0,1") == (143, [0])
    jobs.fail(-1)
    Path("other").mkdir()
    monkeypatch.chdir("other")
    assert jobs.again("resume", str(in_tmp / "sweep")) == (2, [])
    words = ["resume", str(in_tmp / "sweep"), "--config-dir", str(in_tmp / "my_conf")]
    assert jobs.again(*words) == (0, [0, 1])
    assert len(saved_commands(in_tmp / "sweep")) == 1
    for job in runs_in(in_tmp / "sweep"):
        cfg = OmegaConf.load(job / "config.yaml")
        assert cfg.data.source.root == str(in_tmp / "a")
        assert cfg.method.width == 4


def test_another_launcher_leaves_the_settings_of_the_first_behind(jobs: Jobs) -> None:
    jobs.fail(0, Interrupted("stopped", 143))
    assert jobs.again("-m", "method=source_only", "seed=0,1", "hydra.launcher._target_=x", NAMED)[0]
    jobs.fail(-1)
    assert jobs.again("resume", "sweep", "launcher=basic") == (0, [0, 1])


def test_a_sweep_that_was_killed_before_its_first_job(jobs: Jobs) -> None:
    def stop(cfg: Any) -> None:
        raise SystemExit(9)

    jobs.action = stop
    assert jobs.again(*SEEDS, NAMED)[0] == 9
    for job in runs_in("sweep"):
        for file in ("config.yaml", "status.json", "overrides.yaml"):
            (job / file).unlink()
    jobs.fail(-1)
    assert jobs.again("resume", "sweep") == (0, [0, 1, 2])


def test_a_combination_that_is_wrong_is_a_failed_job(
    jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-m", "trainer.batch_size=64,63", "trainer.accumulate=1,2", NAMED]
    assert jobs.again(*words) == (1, [0, 0, 0])
    assert "must be a multiple of" in capsys.readouterr().err
    assert sorted(states("sweep")) == ["completed"] * 3 + ["failed"]
    assert jobs.again(*words) == (1, [])
    assert len(runs_in("sweep")) == 4


def test_a_place_that_cannot_be_written_is_one_sentence(
    jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("outputs").write_text("a file")
    assert jobs.again(*SEEDS) == (1, [])
    said = capsys.readouterr().err
    assert said.startswith("tlrun: error: ")
    assert "outputs" in said
    assert said.count("\n") == 1


def test_changes_of_the_runs_go_to_those_that_have_begun(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.fail(1)
    assert jobs.again(*SEEDS, NAMED, "sweep.fail_fast=true")[0] == 1
    seen: list[Any] = []
    module = importlib.import_module("tlrun.experiment.resume")
    monkeypatch.setattr(module, "resume_jobs", lambda *given: seen.append(given))
    assert jobs.again("resume", "sweep", "trainer.steps=9") == (1, [])
    assert seen == [(runs_in(Path("sweep").absolute()), ["trainer.steps=9"])]


def test_a_page_that_was_not_finished_is_written(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert jobs.again(*SEEDS, NAMED)[0] == 0
    shown: list[RunDir] = []
    monkeypatch.setattr("tlrun.experiment.lifecycle.show", shown.append)
    job = RunDir(runs_in("sweep")[1])
    job.report.unlink()
    assert jobs.again(*SEEDS, NAMED) == (0, [])
    assert [run.path.name for run in shown] == [job.path.name]


def test_a_sweep_of_an_earlier_tlrun_is_not_trained_again_beside_itself(
    jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert jobs.again(*SEEDS, NAMED)[0] == 0
    for job in runs_in("sweep"):
        config = job / "config.yaml"
        config.write_text(
            config.read_text().replace("tlrun.methods.fine_tuning.", "tlrun.methods.")
        )
    capsys.readouterr()
    assert jobs.again("resume", "sweep") == (2, [])
    said = capsys.readouterr().err
    assert (
        "/sweep was written by an earlier tlrun, whose modules had other names (method is" in said
    )
    assert said.endswith("train it again: tlrun -m method=source_only seed=0,1,2 sweep.new=true\n")
    assert len(runs_in("sweep")) == 3


# ---- several processes ------------------------------------------------------------------------


def test_new_sweeps_of_the_same_second_never_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: claim_new(tmp_path / "a" / "sweep"), range(8)))
    assert {path.name for path in claimed} == {"sweep", *(f"sweep_{i}" for i in range(2, 9))}


def test_a_job_of_another_process_is_left_to_it(
    jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.fail(1)
    assert jobs.again(*SEEDS, NAMED)[0] == 1
    jobs.fail(-1)
    (job,) = [path for path in runs_in("sweep") if "_seed1_" in path.name]
    before = stamp("sweep")
    with filelock.FileLock(job / ".lock"):
        assert jobs.again(*SEEDS, NAMED) == (0, [])
        assert stamp("sweep") == before
        said = capsys.readouterr().err
    assert f"{job.name}: run by another process, left to it" in said
    assert said.endswith("2 of 3 jobs completed (1 run by another process): sweep\n")
    assert jobs.again(*SEEDS, NAMED) == (0, [1])


PROCESS = """
import os, signal, sys, time
from pathlib import Path
from tlrun.experiment import lifecycle
lifecycle.show = lambda run_dir: None  # no plots: seconds saved
from tlrun.cli.main import main
from tlrun.engine.hooks import Hooks
from tlrun.engine.trainer import Trainer
from tlrun.experiment.session import Session

done = []

def count(step):
    done.append(1)
    if len(done) == int(os.environ.get("KILL_AT", 0)):
        os.kill(os.getpid(), signal.SIGKILL)
    if "TOGETHER" in os.environ:
        time.sleep(0.1)

Session.trainer = lambda session: Trainer(session, Hooks(after_step=count))
if "TOGETHER" in os.environ:
    Path(f"ready_{os.getpid()}").touch()
    while len(list(Path().glob("ready_*"))) < 2:
        time.sleep(0.01)
sys.exit(main(sys.argv[1:]))
"""


def process(*words: str, **environment: Any) -> subprocess.Popen[str]:
    env = {**os.environ, **{key: str(value) for key, value in environment.items()}}
    command = [sys.executable, "-c", PROCESS, *words]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


REAL = ["-m", *QUICK, "trainer.checkpoint_every=1", "method=source_only,dann", "seed=0,1"]


@pytest.fixture
def quiet(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlrun.experiment.lifecycle.show", lambda run_dir: None)


def results(folder: str) -> dict[str, tuple[Any, ...]]:
    """Of each job: metrics but for the time, summary but for what is measured, weights."""
    found = {}
    for path in runs_in(folder):
        run = RunDir(path)
        rows = [{k: v for k, v in row.items() if k != "time"} for row in run.read_metrics()]
        summary = run.read_json(run.summary)
        for key in ("train_seconds", "wall_seconds", "images_per_second", "peak_memory_mb"):
            summary.pop(key)
        found[path.name] = (rows, json.dumps(summary), run.predictions.read_bytes())
    return found


def weights(folder: str) -> dict[str, torch.Tensor]:
    return {
        f"{path.name}/{part}.{key}": value
        for path in runs_in(folder)
        for part, state in checkpoint.load(path / "checkpoints/last.pt")["parts"].items()
        for key, value in state.items()
    }


def test_kill_9_and_the_same_command_again_equals_an_undisturbed_sweep(quiet: None) -> None:
    killed = process(*REAL, NAMED, KILL_AT=16)  # in the third of four jobs
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert sorted(states("sweep")) == ["completed", "completed", "running"]
    finished = [path for path in runs_in("sweep") if (path / "summary.json").is_file()]
    before = {
        name: at for name, at in stamp("sweep").items() if Path(name).parts[1] in str(finished)
    }
    assert len(finished) == 2
    assert len(before) > 2 * 15
    again = process(*REAL, NAMED)
    said = again.communicate()[1]
    assert again.returncode == 0, said
    assert said.count("finished before") == 2
    assert "interrupted before, going on from its checkpoint" in said
    assert said.count("resumed at step 3") == 1
    after = stamp("sweep")
    assert {name: after[name] for name in before} == before
    assert main([*REAL, "hydra.sweep.dir=undisturbed"]) == 0
    assert results("sweep") == results("undisturbed")
    ours, theirs = weights("sweep"), weights("undisturbed")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_two_processes_share_a_sweep(in_tmp: Path) -> None:
    both = [process(*REAL, NAMED, TOGETHER=1) for _ in range(2)]
    said = [one.communicate()[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert states("sweep") == ["completed"] * 4
    pids = {RunDir(path).read_status()["pid"] for path in runs_in("sweep")}
    assert pids == {one.pid for one in both}
    assert "run by another process, left to it" in said[0] + said[1]
    for path in runs_in("sweep"):
        assert RunDir(path).log.read_text().count("train step 0:") == 1
    table = Path("sweep/leaderboard.csv").read_text().splitlines()[1:]
    assert [line.split(",")[2:4] for line in table] == [["2", "2"]] * 2


def test_joblib_goes_on_after_a_failure_and_finishes_what_is_missing(
    in_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.max_batch_size=2"]
    words = ["-m", *QUICK, "method=source_only", "seed=0,1", NAMED]
    assert main([*words, "method.label_smoothing=1,0", *joblib]) == 1
    assert sorted(states("sweep")) == ["completed"] * 2 + ["failed"] * 2
    assert capfd.readouterr().err.count("label_smoothing=1: expected a number from 0") == 2
    before = stamp("sweep")
    assert main(["resume", "sweep"]) == 1
    assert capfd.readouterr().err.count("finished before") == 2
    after = stamp("sweep")
    kept = [name for name in before if (Path(*Path(name).parts[:2]) / "summary.json").is_file()]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    table = Path("sweep/leaderboard.md").read_text()
    assert table.count("method.label_smoothing=1: expected a number from 0 to below 1") == 2


# ---- dry runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["seed=0,1"], ["search=random", "hydra.sweeper.trials=1"]])
def test_a_dry_run_of_a_sweep_leaves_nothing(words: list[str], in_tmp: Path) -> None:
    if words[0].startswith("search"):
        words = [*words, "optimizer.lr=interval(0.001, 0.1)"]
    assert main(["-m", *QUICK, *words, "method=source_only", "dry_run=true"]) == 0
    assert list(in_tmp.rglob("*")) == []


def test_a_dry_run_leaves_a_sweep_as_it_is(jobs: Jobs) -> None:
    assert jobs.again(*SEEDS, NAMED)[0] == 0
    before, commands = stamp("sweep"), saved_commands(Path("sweep"))
    main(["-m", *QUICK, "method=mcc", "seed=0", "dry_run=true", NAMED])
    assert stamp("sweep").items() >= before.items()
    assert saved_commands(Path("sweep")) == commands


ABSENT = ["data=folder", "data.source.root=none", "data.target.root=none"]


@pytest.mark.parametrize("words", [ABSENT, ["method.label_smoothing=2,3"], ["target_images=no,ne"]])
@pytest.mark.parametrize("place", [[], ["hydra.sweep.dir=p/q"], ["hydra.sweep.subdir=a/b"]])
def test_a_dry_run_that_fails_leaves_nothing(
    words: list[str], place: list[str], in_tmp: Path
) -> None:
    dry = ["-m", *QUICK, "method=source_only", "seed=0,1", "dry_run=true"]
    assert main([*dry, *words, *place]) != 0
    assert list(in_tmp.rglob("*")) == []


@pytest.mark.parametrize("words", [[], ["data=folder", "data.source.root=none"]])
def test_a_dry_run_writes_nothing_into_a_folder_that_is_there(
    words: list[str], in_tmp: Path
) -> None:
    own = ["hydra.sweep.subdir=mine", NAMED]
    mine = Path("sweep/mine/thesis.tex")
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    dry = ["-m", *QUICK, "method=source_only", "seed=0", "dry_run=true"]
    main([*dry, *words, *own])
    assert [path for path in in_tmp.rglob("*") if path.is_file()] == [mine.absolute()]
    mine.unlink()
    assert main(["-m", *QUICK, *ABSENT, "method=source_only", "seed=0", *own]) != 0
    before = stamp("sweep")
    assert "sweep/mine/status.json" in before
    main([*dry, *ABSENT, *own])  # of the same job
    assert stamp("sweep") == before


def test_what_fails_in_a_dry_run_of_a_launcher_is_told(
    in_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    words = ["-m", *QUICK, *ABSENT, *joblib, "method=source_only", "seed=0,1", "dry_run=true"]
    assert main(words) != 0
    assert "data.source.root=" in capfd.readouterr().err
    assert list(in_tmp.rglob("*")) == []
