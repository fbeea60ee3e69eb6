"""Which node this is, and what nodes tell each other; no process is started here."""

import socket
import threading
import time
from dataclasses import replace

import pytest

from helpers.ports import free_port
from tlrun.config.compose import compose
from tlrun.config.world_size import world_size
from tlrun.engine.distributed import Endpoint, PeerFailed, is_loopback
from tlrun.errors import ConfigError, Interrupted, RunError
from tlrun.experiment import node_group, node_store, nodes
from tlrun.experiment.node import Node, first_host, this_node
from tlrun.experiment.resume import refuse_changes
from tlrun.sweep.launchers import trains_here

SLURM = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_NODEID": "1",
    "SLURM_JOB_NODELIST": "gpu[03-05]",
    "SLURM_STEP_NODELIST": "gpu[04-05]",
}
TORCHRUN = {
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "a.b",
    "MASTER_PORT": "7",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
HAND = {"NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1"}


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    for name in (*SLURM, *TORCHRUN, *HAND, "NNODES", "SUBMITIT_EXECUTOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(nodes, "_leader", None)
    monkeypatch.setattr(nodes, "_follower", None)


@pytest.mark.parametrize(
    ("env", "node"),
    [
        (HAND, Node(1, 2, "10.0.0.1", 29500)),
        ({**HAND, "NNODES": "2", "MASTER_PORT": "7"}, Node(1, 2, "10.0.0.1", 7)),
        (SLURM, Node(1, 2, "gpu04", 12000 + 1234 * 7 + 2)),
        ({**SLURM, "MASTER_ADDR": "ib4", "MASTER_PORT": "9"}, Node(1, 2, "ib4", 9)),
        ({**SLURM, **HAND, "NODE_RANK": "0"}, Node(0, 2, "10.0.0.1", 29500)),
        (
            {**SLURM, "NODE_RANK": "0", "SUBMITIT_EXECUTOR": "slurm"},  # inherited: Slurm knows
            Node(1, 2, "gpu04", 12000 + 1234 * 7 + 2),
        ),
        (TORCHRUN, Node(1, 2, "a.b", 7, hosted=True)),
    ],
)
def test_the_environment_says_which_node_this_is(env, node, monkeypatch):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert this_node(2) == node


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({}, r"srun --nodes=2 --ntasks-per-node=1 tlrun .*NODE_RANK=0 MASTER_ADDR="),
        ({"SLURM_NNODES": "2", "SLURM_NODEID": "0"}, "srun --nodes=2"),  # a batch script
        ({"NODE_RANK": "1"}, "MASTER_ADDR=<host of node 0>"),
        ({**HAND, "NNODES": "3"}, r"trainer\.nodes=2, but NNODES=3"),
        ({**HAND, "NODE_RANK": "2"}, "numbered from 0 to 1"),
        ({**HAND, "NODE_RANK": "first"}, "whole number"),
        ({**HAND, "MASTER_PORT": "0"}, "between 1 and 65535"),
        ({**SLURM, "SLURM_STEP_NUM_NODES": "1"}, r"NUM_NODES=1: .* \(srun --nodes=2"),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "4"}, "--ntasks-per-node=1"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "4"}, "--nproc-per-node=1"),
        ({**TORCHRUN, "GROUP_WORLD_SIZE": "4"}, "GROUP_WORLD_SIZE=4"),
    ],
)
def test_what_cannot_be_is_said(env, sentence, monkeypatch):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=sentence):
        this_node(2)


@pytest.mark.parametrize(
    ("listed", "first"),
    [
        ("n1", "n1"),
        ("n[1-2]", "n1"),
        ("gpu[03-05,9],login1", "gpu03"),
        ("r[1-2]n[07,9].x", "r1n07.x"),
    ],
)
def test_first_host_of_slurms_list(listed, first):
    assert first_host(listed) == first


@pytest.mark.parametrize("listed", ["", "[1-2", "$(x)"])
def test_a_list_without_hosts_is_refused(listed):
    with pytest.raises(ConfigError, match="MASTER_ADDR"):
        first_host(listed)


def test_loopback():
    assert [is_loopback(h) for h in ("localhost", "127.0.1.1", "::1", "10.0.0.1", "gpu1")] == [
        *(True, True, True),
        *(False, False),
    ]


# ---- configuration ----------------------------------------------------------------------------


def test_the_world_is_nodes_times_devices():
    assert world_size(compose(["trainer.nodes=2", "trainer.devices=4"])) == 8
    with pytest.raises(ConfigError, match=r"trainer\.nodes x trainer\.devices x .* = 6"):
        compose(["trainer.nodes=3", "trainer.devices=2", "trainer.batch_size=64"])
    with pytest.raises(ConfigError, match=r"trainer\.nodes=0"):
        compose(["trainer.nodes=0"])


def test_as_many_processes_may_go_on_elsewhere():
    two = {"trainer": {"nodes": 2, "devices": 1}}
    refuse_changes(two, {"trainer": {"nodes": 1, "devices": 2}})
    with pytest.raises(ConfigError, match=r"trainer\.nodes: 2 -> 1"):
        refuse_changes(two, {"trainer": {"nodes": 1, "devices": 1}})


def test_a_job_of_slurm_asks_for_its_nodes():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    launcher = compose(["launcher=submitit", "trainer.nodes=4"], keep_hydra=True).hydra.launcher
    assert (launcher.nodes, launcher.tasks_per_node) == (4, 1)


def test_launchers_of_one_machine_have_no_nodes():
    assert trains_here(["launcher=basic"], 2)
    assert not trains_here(["launcher=submitit"], 2)
    assert not trains_here(["launcher=joblib"], 1)
    for words in (["launcher=joblib"], ["hydra/launcher=submitit_local"]):
        with pytest.raises(ConfigError, match="on one machine"):
            trains_here(words, 2)


# ---- between the nodes ------------------------------------------------------------------------


def node_of(rank, port, count=2):
    return Node(rank, count, "127.0.0.1", port)


def in_thread(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_a_node_that_does_not_come_is_named():
    leader = node_group.Leader(node_of(0, free_port()))
    with pytest.raises(RunError, match="node 1 of 2 did not come"):
        leader.begin(patience=0.2)
    with pytest.raises(RunError, match="no node 0 at"):
        node_group.Follower(node_of(1, free_port()), patience=0.2)


def test_a_second_node_0_is_told_of_the_port():
    leader = node_group.Leader(node_of(0, free_port()))
    with pytest.raises(RunError, match="another MASTER_PORT"):
        node_group.Leader(leader.node)


@pytest.mark.parametrize("host", ["192.0.2.7", "no-such-host.invalid"])
def test_a_foreign_address_of_node_0_is_one_sentence(host, monkeypatch, capfd):
    monkeypatch.setattr(node_store, "PROBE", 0.5)
    with pytest.raises(RunError, match="MASTER_ADDR must be an address of this machine"):
        node_group.Leader(replace(node_of(0, free_port()), host=host))
    assert capfd.readouterr().err == ""


def test_a_stranger_at_the_port_is_no_node_0(monkeypatch):
    def refused(*_, **__):
        raise RuntimeError("Ping failed, invalid value returned from server")

    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        monkeypatch.setattr(node_store.dist, "TCPStore", refused)
        with pytest.raises(RunError, match="is no node 0: give all nodes"):
            node_group.Follower(node_of(1, port))


def test_an_address_that_leads_here_by_another_way_serves(monkeypatch):
    monkeypatch.setattr(node_store, "_is_of_this_machine", lambda host: False)
    assert node_group.Leader(node_of(0, free_port())).node.rank == 0


def test_two_nodes_of_one_number_are_refused():
    port = free_port()
    leader = node_group.Leader(node_of(0, port))
    node_group.Follower(node_of(1, port)).begin()
    with pytest.raises(ConfigError, match="give each node its number"):
        node_group.Follower(node_of(1, port)).begin()
    assert leader.node.rank == 0


def test_nodes_of_unequal_commands_are_refused():
    port = free_port()
    leader = node_group.Leader(node_of(0, port))
    node_group.Follower(node_of(1, port, count=3)).begin()
    with pytest.raises(ConfigError, match=r"trainer\.nodes=3, node 0 with 2"):
        leader.begin()


def test_the_others_learn_the_exit_code(monkeypatch):
    port = free_port()
    codes = []
    config = {"trainer": {"nodes": 2}, "dry_run": False}
    follower = in_thread(lambda: codes.append(nodes.follow(node_of(1, port), [config])))

    def fail():
        raise ConfigError("wrong")

    for name, value in {"NODE_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ConfigError, match="wrong"):
        nodes.on_nodes([config], fail, nodes.code_of_node_0)
    follower.join(10)
    assert codes == [(2, [])]


def test_a_run_folder_that_another_node_does_not_see(tmp_path, monkeypatch):
    from tlrun.experiment import processes

    monkeypatch.setattr(processes, "VISIBLE", 0.0)
    (tmp_path / "config.yaml").write_text("a: 1")
    port = free_port()
    codes = []
    follower = in_thread(lambda: codes.append(nodes.follow(node_of(1, port), [])))
    with nodes.leading(node_of(0, port)):
        leader = nodes.leader_of(2)
        launch = leader.launch(tmp_path, 1, 0.0)
        (tmp_path / "config.yaml").write_text("a: 2")  # another folder of the same name
        with pytest.raises(RunError, match="node 1 of 2 does not see the run folder"):
            processes.raise_reason(tmp_path, leader.outcomes(launch))
        assert leader.has_failed(launch)
    follower.join(10)
    assert codes == [(0, [tmp_path])]


def met():
    """Node 0 and node 1 of two, each of which knows that the other is there."""
    port = free_port()
    leader = node_group.Leader(node_of(0, port))
    follower = node_group.Follower(node_of(1, port))
    follower.begin()
    leader.begin()
    return leader, follower


def test_a_node_that_was_stopped_is_noticed_at_the_next_training(tmp_path, monkeypatch):
    monkeypatch.setattr(node_group, "ALONE", 0.0)
    leader, follower = met()
    follower.leave_if_asked(None)
    with pytest.raises(SystemExit):
        follower.leave_if_asked(143)
    with pytest.raises(Interrupted, match="tlrun resume") as stop:
        leader.launch(tmp_path, 1, 0.0)
    assert stop.value.exit_code == 143


def test_a_node_that_falls_silent_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(node_group, "SILENCE", 0.3)
    leader, follower = met()
    launch = leader.launch(tmp_path, 1, 0.0)
    follower.beat()
    assert leader.lost(0.3) is None
    with pytest.raises(node_store.NodeLost, match="node 1"):
        leader.outcomes(launch)
    began = time.monotonic()
    leader.end(1)  # does not wait for it
    assert time.monotonic() - began < 5


def test_a_process_does_not_wait_for_others_that_failed():
    leader = node_group.Leader(node_of(0, free_port()))
    leader.store.set("launch/1/failed", "1")
    with pytest.raises(PeerFailed):
        Endpoint("127.0.0.1", leader.node.port, "launch/1").store(world=2)


def test_a_job_of_slurm_that_lost_a_node_waits_for_slurm(tmp_path, monkeypatch):
    """A status `failed` would be its end; Slurm queues it again."""
    from tlrun.experiment import processes

    class Leader:
        node = node_of(0, 1)

        def launch(self, *_):
            return node_group.Launch(1, str(tmp_path), "", 0, 0.0)

        def endpoint(self, launch):
            return Endpoint("127.0.0.1", 1, "launch/1")

        def outcomes(self, launch):
            raise node_store.NodeLost("gone")

    waited = []
    monkeypatch.setattr(processes.time, "sleep", waited.append)
    for executor, seconds in (("local", []), ("slurm", [processes.SLURM_NOTICES])):
        monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
        with pytest.raises(RunError, match="gone"):
            processes.start_workers(tmp_path, 0, 0.0, Leader())
        assert waited == seconds


def test_from_python_another_node_returns_the_summary_of_node_0(tmp_path):
    (tmp_path / "summary.json").write_text('{"steps": 6}')
    summary = nodes.summary_of_node_0(0, [tmp_path, tmp_path / "baseline"])
    assert summary == {"steps": 6, "run_dir": str(tmp_path)}
    with pytest.raises(RunError, match="exit code 2"):
        nodes.summary_of_node_0(2, [])
