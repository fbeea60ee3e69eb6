"""Launchers: presets, threads, preemption, several processes within a job."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from helpers.small import QUICK
from tlrun import machine
from tlrun.cli.main import main
from tlrun.config.compose import compose
from tlrun.config.hashes import config_hash, job_hash
from tlrun.engine import interrupt
from tlrun.errors import RunError
from tlrun.experiment.node import Node
from tlrun.run_folder.run_dir import RunDir, runs_in
from tlrun.sweep import launchers, run_or_skip, slurm

NAMED = "hydra.sweep.dir=sweep"


def settings(*words: str) -> Any:
    return compose(list(words), keep_hydra=True).hydra.launcher


# ---- choosing one -----------------------------------------------------------------------------


def test_a_preset_chooses_the_launcher_and_its_keys_are_short() -> None:
    assert settings()._target_.endswith("BasicLauncher")
    joblib = settings("launcher=joblib", "launcher.n_jobs=3")
    assert (joblib._target_.rpartition(".")[2], joblib.n_jobs) == ("JoblibLauncher", 3)
    slurm = settings("launcher=submitit", "launcher.partition=gpu", "launcher.timeout_min=9")
    assert slurm._target_.endswith("SlurmLauncher")
    assert (slurm.partition, slurm.timeout_min, slurm.max_num_timeout) == ("gpu", 9, 20)


def test_a_launcher_is_no_part_of_the_experiment() -> None:
    plain, joblib = compose(["seed=1"]), compose(["seed=1", "launcher=joblib"])
    assert plain == joblib
    assert "launcher" not in joblib.choices


def test_an_extra_that_is_missing_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_tmp: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for word, extra in (
        ("launcher=submitit", "submitit"),
        ("launcher=ray", "ray"),
        ("hydra/launcher=joblib", "joblib"),
        ("search=optuna", "optuna"),
    ):
        assert main(["-m", "seed=0,1", word]) == 2
        said = capsys.readouterr().err
        assert said == f'tlrun: error: {word} needs an extra: pip install "tlrun[{extra}]"\n'
    assert not list(in_tmp.iterdir())


def test_a_launcher_without_a_sweep_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launcher=joblib"]) == 2
    assert "add -m" in capsys.readouterr().err


# ---- threads ----------------------------------------------------------------------------------


def test_threads_are_divided_among_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "cores", lambda: 8)
    monkeypatch.setattr(machine, "cores", lambda: 8)
    threads = launchers.threads_of_job
    assert settings("launcher=joblib").n_jobs == (machine.visible_gpus() or 8)
    assert threads(settings("launcher=joblib", "launcher.n_jobs=3")) == 2
    assert threads(settings("launcher=joblib", "launcher.n_jobs=-1")) == 1
    assert threads(settings("launcher=joblib", "launcher.n_jobs=16")) == 1
    assert threads(settings("launcher=submitit", "launcher.cpus_per_task=6")) == 6
    assert threads(settings("launcher=submitit_local")) == 1
    assert threads(settings()) is None
    monkeypatch.setattr(machine, "visible_gpus", lambda: 4)
    assert settings("launcher=joblib").n_jobs == 4  # one job per GPU
    assert threads(settings("launcher=joblib")) == 2
    assert settings("launcher=joblib", "launcher.jobs_per_gpu=3").n_jobs == 12
    assert threads(settings("launcher=joblib", "launcher.jobs_per_gpu=3")) == 1


def test_jobs_per_gpu_is_no_part_of_the_experiment_and_nothing_without_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "visible_gpus", lambda: 0)
    assert settings("launcher=joblib", "launcher.jobs_per_gpu=3").n_jobs == 8
    alone, shared = compose(["seed=1"]), compose(["seed=1", "launcher.jobs_per_gpu=3"])
    assert (config_hash(alone), job_hash(alone)) == (config_hash(shared), job_hash(shared))


# ---- really run -------------------------------------------------------------------------------

SOURCE = ["-m", *QUICK, "method=source_only"]


def run_beside(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tlrun", *words]
    env = {**os.environ, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_submitit_runs_jobs_and_tells_what_failed(
    in_tmp: Path, no_pages: None, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    words = [*SOURCE, "seed=0", "method.label_smoothing=1,0", NAMED]
    assert main([*words, "launcher=submitit_local"]) == 1
    failed, job = sorted(
        (RunDir(path) for path in runs_in("sweep")), key=lambda run: run.summary.is_file()
    )
    assert (failed.read_status()["state"], job.read_status()["state"]) == ("failed", "completed")
    assert job.read_status()["pid"] != os.getpid()
    said = capfd.readouterr().err
    assert f"{job.path.name}: " in said
    assert f"{failed.path.name}: failed: " in said
    assert said.count("label_smoothing=1: expected a number from 0") == 1
    before = job.summary.stat().st_mtime_ns
    assert main(["resume", "sweep", "launcher=basic"]) == 1
    assert job.summary.stat().st_mtime_ns == before
    assert "finished before" in capfd.readouterr().err


TWO_GPUS = "from tlrun import machine\nmachine.visible_gpus = lambda: 2\n"


@pytest.mark.slow
def test_joblib_deals_out_gpus_and_threads(in_tmp: Path) -> None:
    words = [*SOURCE, "seed=0,1", "trainer.steps=100", NAMED, "launcher=joblib"]
    Path("stand_in").mkdir()
    Path("stand_in/sitecustomize.py").write_text(TWO_GPUS)  # of the launcher's processes, too
    path = os.pathsep.join(
        [str(in_tmp / "stand_in"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    )
    done = run_beside(*words, PYTHONPATH=path, TMPDIR=str(in_tmp))
    assert done.returncode == 0, done.stderr
    jobs = [RunDir(path) for path in runs_in("sweep")]
    assert sorted(job.read_status()["gpus"] for job in jobs) == [[0], [1]]
    threads = {OmegaConf.load(job.config).trainer.threads for job in jobs}
    assert threads == {max(1, launchers.cores() // 2)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [["launcher=basic"], ["launcher=joblib", "launcher.n_jobs=2"], ["launcher=submitit_local"]],
)
def test_jobs_of_two_processes_within_a_sweep(launcher: list[str], in_tmp: Path) -> None:
    words = [*SOURCE, "method=dann", "seed=0,1", "trainer.devices=2", NAMED]
    done = run_beside(*words, *launcher)
    assert done.returncode == 0, done.stderr
    for path in runs_in("sweep"):
        assert RunDir(path).read_status()["state"] == "completed"
        assert RunDir(path).read_json(RunDir(path).summary)["steps"] == 6
    assert len(runs_in("sweep")) == 2


@pytest.mark.slow
def test_a_preempted_job_of_submitit_goes_on_from_its_checkpoint(in_tmp: Path) -> None:
    """SIGUSR2 is what Slurm sends; submitit's local executor queues again as Slurm's does."""
    pytest.importorskip("submitit")
    long = ["trainer.steps=3000", "trainer.eval_every=3000", "trainer.log_every=100"]
    words = [*SOURCE, *long, "seed=0", NAMED, "launcher=submitit_local"]
    sweep = subprocess.Popen([sys.executable, "-m", "tlrun", *words], stderr=subprocess.PIPE)
    rows: list[Any] = []
    while len(rows) < 4:
        assert sweep.poll() is None, sweep.communicate()
        time.sleep(0.2)
        rows = [r for path in _runs("sweep") for r in RunDir(path).read_metrics()]
    (job,) = [RunDir(path) for path in runs_in("sweep")]
    first = job.read_status()["pid"]
    os.kill(first, signal.SIGUSR2)
    said = sweep.communicate()[1].decode()
    assert sweep.returncode == 0, said
    status = job.read_status()
    assert (status["state"], status["pid"] != first) == ("completed", True)
    steps = [row["step"] for row in job.read_metrics() if row["split"] == "train"]
    assert steps == list(range(100, 3001, 100))
    log = job.log.read_text()
    assert log.count("train step 0:") == 1
    assert "resumed at step" in log


def _runs(folder: str) -> list[Path]:
    return runs_in(folder) if Path(folder).is_dir() else []


@pytest.mark.slow
def test_ray_runs_a_job(in_tmp: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    done = run_beside(*SOURCE, "seed=0", NAMED, "launcher=ray")
    assert done.returncode == 0, done.stderr
    assert [RunDir(path).read_status()["state"] for path in runs_in("sweep")] == ["completed"]


# ---- the announcement of a scheduler ----------------------------------------------------------


def test_an_announced_end_asks_for_a_stop_and_then_for_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    called: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: called.append(number))
    try:
        with interrupt.StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGUSR2)
            os.kill(os.getpid(), signal.SIGUSR2)  # not a second Ctrl-C
            assert stop.exit_code == 143
            assert called == []
        interrupt.queue_again()
        assert called == [signal.SIGUSR2]
        interrupt.queue_again()
        assert called == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert interrupt.scheduler_signal() is None  # nobody would queue it again


TERMINATED = """
import os, signal
from tlrun.engine import interrupt
from tlrun.errors import RunError
from tlrun.experiment.node import Node
import subprocess
def queue(*_):
    if os.environ.pop("REFUSED", None):  # `scontrol requeue` of a job that Slurm queues itself
        subprocess.run(["false"], check=True)
    print("queued again", flush=True)
signal.signal(signal.SIGUSR2, queue)
signal.signal(signal.SIGTERM, lambda *_: print("passed over", flush=True))
with interrupt.StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # Slurm sends it to all processes of a job
    print(stop.exit_code, flush=True)
interrupt.queue_again()
print("a result", flush=True)
"""


@pytest.mark.parametrize(
    ("executor", "code", "said"),
    [
        ("slurm", 143, "143\nqueued again\n"),
        ("refused", 143, "143\n"),
        ("local", 0, "passed over\npassed over\nNone\na result\n"),
    ],
)
def test_sigterm_of_slurm_asks_for_a_stop_and_ends_without_a_result(
    executor: str, code: int, said: str
) -> None:
    environment = {**os.environ, "SUBMITIT_EXECUTOR": executor.replace("refused", "slurm")}
    environment |= {"REFUSED": "1"} if executor == "refused" else {}
    words = [sys.executable, "-c", TERMINATED]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, said)


@pytest.mark.parametrize(
    ("step", "code", "said"), [("0", 0, "143\na result\n"), ("", 143, "")], ids=["srun", "no srun"]
)
def test_sigterm_twice_is_one_for_what_srun_began(step: str, code: int, said: str) -> None:
    """scancel signals every process of a step, and the one that began it passes it on."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SUBMITIT"))}
    environment |= {"SLURM_STEP_ID": step} if step else {}
    words = [sys.executable, "-c", TERMINATED]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, said)


@pytest.mark.parametrize(
    ("outcome", "leaves"),
    [(0, False), (1, False), (143, True), (-1, True), (RunError("gone"), True)],
)
def test_another_node_of_a_job_leaves_no_result_where_node_0_is_interrupted(
    outcome: int | RunError, leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """submitit would take it for the job's, which Slurm queues again."""

    def follow(*_: object) -> tuple[int, list[Path]]:
        if isinstance(outcome, RunError):
            raise outcome
        return outcome, []

    left: list[int] = []
    monkeypatch.setattr(run_or_skip, "follow", follow)
    monkeypatch.setattr(run_or_skip.os, "_exit", left.append)
    run_or_skip._follow_job(Node(1, 2, "n1", 1), {})
    assert left == ([0] if leaves else [])


TERMINATED_EARLY = """
import os, signal
from tlrun.engine import interrupt
from tlrun.errors import RunError
from tlrun.experiment.node import Node
from tlrun.experiment.start import termination_told
with termination_told():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        print("prepared", flush=True)
    except KeyboardInterrupt as stop:
        os.kill(os.getpid(), signal.SIGTERM)  # Slurm sends it to all processes of a job
        print(stop.exit_code, flush=True)
interrupt.queue_again()
print("a result", flush=True)
"""


def test_sigterm_of_slurm_before_the_first_step_leaves_no_result_either() -> None:
    environment = {**os.environ, "SUBMITIT_EXECUTOR": "slurm"}
    words = [sys.executable, "-c", TERMINATED_EARLY]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, "143\n")


# ---- Slurm without accounting -----------------------------------------------------------------


@pytest.fixture
def without_accounting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for sacct, which fails, and squeue; returns the file that holds squeue's lines."""
    queue = tmp_path / "queue"
    for name, line in (("sacct", "echo disabled >&2; exit 1"), ("squeue", f"cat {queue}")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return queue


def test_without_accounting_the_queue_says_what_became_of_a_job(
    without_accounting: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    submitit_slurm = pytest.importorskip("submitit.slurm.slurm")
    monkeypatch.setattr(submitit_slurm.SlurmJob, "watcher", submitit_slurm.SlurmJob.watcher)
    slurm.ask_the_queue()
    watcher = submitit_slurm.SlurmJob.watcher
    for job in ("7_0", "7_1", "7_2", "7_3", "7_4"):
        watcher.register_job(job)
    without_accounting.write_text(
        "7_0|COMPLETED|n1\n7_1|NODE_FAIL|n2\n7_2|PREEMPTED|n1\n77_3|CANCELLED|n1\n7_[3-4%64]|PENDING|\n"
    )
    done = [watcher.is_done(f"7_{task}", mode="force") for task in range(5)]
    assert done == [True, False, False, False, False]
    without_accounting.write_text("7_3|CANCELLED|n1\n")
    watcher.update()
    assert watcher.get_state("7_3", mode="cache") == "CANCELLED"
    assert watcher.is_done("7_0", mode="cache")  # Slurm has forgotten it, and we have not
    assert capfd.readouterr() == ("", "")


def test_with_accounting_nothing_is_changed(
    without_accounting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitit_slurm = pytest.importorskip("submitit.slurm.slurm")
    (without_accounting.parent / "sacct").write_text("#!/bin/sh\n")
    before = submitit_slurm.SlurmJob.watcher
    slurm.ask_the_queue()
    assert submitit_slurm.SlurmJob.watcher is before
