"""Two nodes of this machine over loopback, against two processes of one node."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from helpers import small
from helpers.ports import free_port
from tlrun.cli.main import main
from tlrun.engine import checkpoint
from tlrun.experiment.node import Node
from tlrun.experiment.nodes import follow
from tlrun.run_folder.run_dir import RunDir

WORDS = (*small.QUICK, "method=dann", "report=none", "evaluate.source_images=50")
LONG = ("trainer.steps=60", "trainer.eval_every=20", "trainer.checkpoint_every=5")


def node(rank, port, *words):
    env = {"NODE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return subprocess.Popen(
        [sys.executable, "-m", "tlrun", *words],
        env=os.environ | env | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def both(*words):
    port = free_port()
    return [node(rank, port, *words) for rank in (0, 1)]


def ends(processes):
    """Exit codes, and what node 0 and node 1 said."""
    said = [process.communicate(timeout=120)[1] for process in processes]
    return [process.returncode for process in processes], said


def state_of(folder):
    run_dir = RunDir(folder)
    parts = checkpoint.load(run_dir.checkpoints / "last.pt")["parts"]
    rows = [{**row, "time": 0} for row in run_dir.read_metrics()]
    return {f"{p}.{k}": v for p, state in parts.items() for k, v in state.items()}, rows


def equal(one, two):
    (a, rows_a), (b, rows_b) = state_of(one), state_of(two)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) and rows_a == rows_b


@pytest.fixture
def first_node(monkeypatch):
    """Makes this process node 0; returns its port."""
    port = free_port()
    for name, value in {"NODE_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    return port


def test_two_nodes_equal_two_processes_of_one(first_node, tmp_path):
    config = {"trainer": {"nodes": 2}, "dry_run": False}
    followed = []
    node_1 = Node(1, 2, "127.0.0.1", first_node)
    thread = threading.Thread(target=lambda: followed.append(follow(node_1, [config])))
    thread.start()
    assert main([*WORDS, "trainer.nodes=2", f"hydra.run.dir={tmp_path}/two"]) == 0
    thread.join()
    assert followed == [(0, [tmp_path / "two"])]
    assert main([*WORDS, "trainer.devices=2", f"hydra.run.dir={tmp_path}/one"]) == 0
    assert equal(tmp_path / "one", tmp_path / "two")


METHOD = """
import os
from tlrun.errors import RunError
from tlrun.methods.fine_tuning.source_only import SourceOnly

class Fails(SourceOnly):
    def step(self, net, batch, phase, progress):
        if os.environ.get("NODE_RANK") == "1":
            raise RunError("this node has had enough")
        yield from super().step(net, batch, phase, progress)
"""


def test_a_failing_node_ends_all_with_its_sentence(first_node, tmp_path, monkeypatch, capfd):
    """The method is of --config-dir: the processes of every node may import it."""
    monkeypatch.chdir(tmp_path)
    Path("my_conf/method").mkdir(parents=True)
    Path("methods_that_fail.py").write_text(METHOD)
    Path("my_conf/method/fails.yaml").write_text("_target_: methods_that_fail.Fails")
    words = [*small.QUICK, "method=fails", "trainer.nodes=2", "report=none", "hydra.run.dir=run"]
    other = node(1, first_node, "--config-dir", "my_conf", *words)
    assert main(["--config-dir", "my_conf", *words]) == 1
    said = capfd.readouterr().err
    assert "a training process failed: this node has had enough" in said
    code, (said_there,) = ends([other])
    assert code == [1]
    assert "node 0 ended with exit code 1" in said_there
    assert "enough" in RunDir("run").read_status()["error"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("run")) == [
        "run"
    ]


def test_without_an_environment_the_command_says_both_ways(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*WORDS, "trainer.nodes=2"]) == 2
    assert "srun --nodes=2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def wait_for_checkpoint(folder: Path, processes):
    while not (folder / "checkpoints" / "last.pt").exists():
        assert all(process.poll() is None for process in processes), ends(processes)
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "number", "codes", "again"),
    [
        (1, signal.SIGTERM, [143, 143], ()),
        (0, signal.SIGINT, [130, 130], ("trainer.nodes=1", "trainer.devices=2")),
        (1, signal.SIGKILL, [1, -9], ()),
        (0, signal.SIGKILL, [-9, 1], ()),
    ],
)
def test_stopped_at_any_node_a_run_goes_on_exactly(rank, number, codes, again, tmp_path):
    words = [*WORDS, *LONG]
    processes = both(*words, "trainer.nodes=2", f"hydra.run.dir={tmp_path}/broken")
    wait_for_checkpoint(tmp_path / "broken", processes)
    processes[rank].send_signal(number)
    ended, said = ends(processes)
    assert ended == codes, said
    if again:
        assert main(["resume", f"{tmp_path}/broken", *again]) == 0
    else:
        ended, said = ends(both("resume", f"{tmp_path}/broken"))
        assert ended == [0, 0], said
    assert main([*words, "trainer.devices=2", f"hydra.run.dir={tmp_path}/straight"]) == 0
    assert equal(tmp_path / "broken", tmp_path / "straight")


@pytest.mark.slow
def test_a_sweep_and_its_baselines_train_on_all_nodes(tmp_path):
    words = [
        *WORDS,
        "seed=0,1",
        "trainer.nodes=2",
        "baseline=true",
        f"hydra.sweep.dir={tmp_path}/s",
    ]
    codes, said = ends(both("-m", *words))
    assert codes == [0, 0], said
    assert said[1].count("trains in") == 4


@pytest.mark.slow
def test_torchrun_begins_the_nodes(tmp_path):
    port = free_port()
    torchrun = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    command = ["-m", "tlrun", *WORDS, "trainer.nodes=2", f"hydra.run.dir={tmp_path}/run"]
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, *torchrun, f"--node-rank={rank}", f"--master-port={port}"),
                *("--master-addr=127.0.0.1", *command),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    codes, said = ends(processes)
    assert codes == [0, 0], said
    assert RunDir(tmp_path / "run").read_status()["state"] == "completed"
