"""Which of several machines is this one? By torchrun's variables, or by those of Slurm. No torch.

Slurm's: https://slurm.schedmd.com/srun.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tlrun.errors import ConfigError
from tlrun.machine import in_slurm

PORT = 29500  # torchrun's own default
SLURM_PORTS = range(12000, 32000)  # below those that Linux gives to clients


@dataclass(frozen=True)
class Node:
    """Node `rank` of `nodes`. host, port: of the store where they meet, on node 0.

    hosted: the store is torchrun's agent's, else node 0 opens it.
    """

    rank: int
    nodes: int
    host: str
    port: int
    hosted: bool = False

    @property
    def name(self) -> str:
        return f"node {self.rank} of {self.nodes}"


def this_node(nodes: int) -> Node:
    """What the environment says. Raises ConfigError where it says nothing, or something else."""
    env = os.environ
    if env.get("GROUP_RANK") and "TORCHELASTIC_RUN_ID" in env and not in_slurm():
        return _of_torchrun(nodes, env)
    if env.get("NODE_RANK") and not in_slurm():  # a job of Slurm inherits variables of elsewhere
        return _by_hand(nodes, env)
    if "SLURM_STEP_NUM_NODES" in env:
        return _of_slurm(nodes, env)
    raise ConfigError(
        f"trainer.nodes={nodes}, and nothing says which node this is: begin it under Slurm with "
        f"`srun --nodes={nodes} --ntasks-per-node=1 tlrun ...`, or on each node with "
        f"`NODE_RANK=0 MASTER_ADDR=<host of node 0> MASTER_PORT={PORT} tlrun ...` (NODE_RANK=1 on "
        "the next one)"
    )


def _by_hand(nodes: int, env: Mapping[str, str]) -> Node:
    _refuse_other_count(nodes, env, "NNODES")
    if not env.get("MASTER_ADDR"):
        raise ConfigError(
            "NODE_RANK is given, but not where the nodes meet: MASTER_ADDR=<host of node 0>"
        )
    return _checked(
        Node(_number(env, "NODE_RANK"), nodes, env["MASTER_ADDR"], _port(env, PORT)), "NODE_RANK"
    )


def _of_torchrun(nodes: int, env: Mapping[str, str]) -> Node:
    """torchrun starts the command, not the processes that train: those are `trainer.devices`."""
    _refuse_other_count(nodes, env, "GROUP_WORLD_SIZE")
    if env.get("LOCAL_WORLD_SIZE", "1") != "1":
        raise ConfigError(
            "torchrun --nproc-per-node=1 begins tlrun once on each node; how many processes it "
            "then starts says trainer.devices"
        )
    hosted = env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    rank = _number(env, "GROUP_RANK")
    return _checked(Node(rank, nodes, env["MASTER_ADDR"], _port(env, PORT), hosted), "GROUP_RANK")


def _of_slurm(nodes: int, env: Mapping[str, str]) -> Node:
    """This task of a step: one on each node."""
    _refuse_other_count(nodes, env, "SLURM_STEP_NUM_NODES")
    tasks = env.get("SLURM_STEP_NUM_TASKS", str(nodes))
    if tasks != str(nodes):
        raise ConfigError(
            f"srun began {tasks} tasks for trainer.nodes={nodes}: --ntasks-per-node=1, and "
            "trainer.devices for the processes of a node"
        )
    host = env.get("MASTER_ADDR") or first_host(
        env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST", "")
    )
    job, step = _number(env, "SLURM_JOB_ID"), int(env.get("SLURM_STEP_ID", "0"))
    port = SLURM_PORTS[(job * 7 + step) % len(SLURM_PORTS)]  # steps of one job may run together
    return _checked(
        Node(_number(env, "SLURM_NODEID"), nodes, host, _port(env, port)), "SLURM_NODEID"
    )


def first_host(nodes: str) -> str:
    """The first host of Slurm's list.

    >>> first_host("gpu[03-05,9],login1")
    'gpu03'
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    host = re.sub(r"\[(\d+)[^\]]*\]", r"\1", first.group() if first else "")
    if not re.fullmatch(r"[\w.-]+", host):
        raise ConfigError(
            f"Slurm's list of nodes, {nodes!r}, names no host: give MASTER_ADDR=<host of node 0>"
        )
    return host


def _refuse_other_count(nodes: int, env: Mapping[str, str], name: str) -> None:
    if env.get(name, str(nodes)) != str(nodes):
        how = f" (srun --nodes={nodes} --ntasks-per-node=1)" if name.startswith("SLURM") else ""
        raise ConfigError(
            f"trainer.nodes={nodes}, but {name}={env[name]}: begin it once on each of {nodes} "
            f"nodes{how}"
        )


def _checked(node: Node, name: str) -> Node:
    if node.rank >= node.nodes:
        raise ConfigError(
            f"{name}={node.rank}: with trainer.nodes={node.nodes} they are numbered from 0 to "
            f"{node.nodes - 1}"
        )
    return node


def _port(env: Mapping[str, str], default: int) -> int:
    port = _number(env, "MASTER_PORT") if env.get("MASTER_PORT") else default
    if not 0 < port < 2**16:
        raise ConfigError(f"MASTER_PORT={port}: give a port between 1 and 65535")
    return port


def _number(env: Mapping[str, str], name: str) -> int:
    text = env.get(name, "")
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"{name}={text!r}: give a whole number")
    return int(text)
