"""Two gloo processes on this machine against one."""

import signal
import subprocess
import sys
import time

import pytest
import torch

from helpers import small
from tlrun.config.compose import compose
from tlrun.engine import checkpoint
from tlrun.experiment import worker
from tlrun.experiment.resume import resume
from tlrun.experiment.start import create_run_folder, run_experiment

ONE_STEP = (
    "method=dann",
    "trainer.steps=1",
    "optimizer=sgd",
    "optimizer.lr=1",
    "optimizer.momentum=0",
    "optimizer.nesterov=false",
    "schedule=constant",
    "backbone.dropout=0",
    "method.lambda_schedule=constant",
    "method.domain_dropout=0",
    "evaluate.target_test=false",
    "report=none",
)


def run(folder, *overrides):
    run_dir = create_run_folder(compose([*small.QUICK, *overrides]), folder, overrides)
    run_experiment(run_dir)
    return run_dir


def last_parts(run_dir):
    parts = checkpoint.load(run_dir.checkpoints / "last.pt")["parts"]
    return {f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()}


@pytest.mark.parametrize(
    ("batch_norm", "tolerance"),
    [(False, 1e-6), (True, 1e-5)],
    ids=["no batch norm", "all-reduced statistics"],
)
def test_gradients_equal_one_process_on_the_same_global_batch(batch_norm, tolerance, tmp_path):
    """One step of SGD with a learning rate of 1: the weights differ by the gradients."""
    options = (*ONE_STEP, f"backbone.batch_norm={str(batch_norm).lower()}")
    one = last_parts(run(tmp_path / "one", *options))
    two = last_parts(run(tmp_path / "two", *options, "trainer.devices=2"))
    assert one.keys() == two.keys()
    worst = max(float((one[key].double() - two[key].double()).abs().max()) for key in one)
    assert worst <= tolerance
    start_ = small.session(tmp_path / "start", *options)
    start_.build_all()
    moved = [
        not torch.equal(one[k.removeprefix("parts.")], v)
        for k, v in start_.net.state_dict().items()
    ]
    assert all(moved)


def command(folder, *overrides):
    words = [*small.QUICK, *overrides, f"hydra.run.dir={folder}"]
    return subprocess.Popen([sys.executable, "-m", "tlrun", *words], start_new_session=True)


LONG = (
    "trainer.steps=100",
    "trainer.eval_every=10",
    "trainer.checkpoint_every=5",
    "trainer.devices=2",
)


def wait_for_checkpoint(folder, process):
    while not (folder / "checkpoints" / "last.pt").exists():
        assert process.poll() is None
        time.sleep(0.02)


# SIGTERM takes a minute more, and scripts/prove_resume.py has it too
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_two_processes_resume_exactly(number, tmp_path):
    straight = run(tmp_path / "straight", *LONG)
    process = command(tmp_path / "broken", *LONG)
    wait_for_checkpoint(tmp_path / "broken", process)
    process.send_signal(number)
    code = process.wait(60)
    assert code == (-9 if number == signal.SIGKILL else 143)
    resume(tmp_path / "broken")
    from tlrun.run_folder.run_dir import RunDir

    broken = RunDir(tmp_path / "broken")
    assert broken.read_status()["state"] == "completed"
    a, b = last_parts(straight), last_parts(broken)
    assert all(torch.equal(a[key], b[key]) for key in a)
    rows = [[{**row, "time": 0} for row in r.read_metrics()] for r in (straight, broken)]
    assert rows[0] == rows[1]


def test_a_signal_before_the_first_step_ends_a_worker_with_its_exit_code(tmp_path, monkeypatch):
    went_on = []

    def prepare(*_):
        signal.raise_signal(signal.SIGTERM)
        went_on.append(True)

    for name in ("_watch_parent", "train_worker"):
        monkeypatch.setattr(worker, name, prepare if name == "train_worker" else lambda _: None)
    before = signal.getsignal(signal.SIGUSR2)
    try:
        assert worker.main([str(tmp_path), "0", "2", "0.0"]) == 143
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert went_on == []
