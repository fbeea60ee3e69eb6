"""What the nodes of a run tell each other, through the store on node 0 (node_store.py).

Node 0 runs the command; the others only start processes. In the store stand, by number:

    scope/S/arrived/K    node K is there for command S of its process
    event/N              what node 0 wants next: a launch of processes on a run folder, or the end
    launch/N/failed      a process of launch N has failed, on any node
    launch/N/outcome/K   how the processes of node K ended
    scope/S/left/K       node K has left command S: exit code of a signal, or 0 after its end
    beat/K               counts up while node K follows

The processes of a launch meet under the prefix launch/N (engine/distributed.py).
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tlrun.engine.distributed import Endpoint
from tlrun.errors import ConfigError, Interrupted
from tlrun.experiment.node import Node
from tlrun.experiment.node_store import (
    ARRIVAL,
    LOOK,
    NodeLost,
    connect,
    node_0_answers,
    open_store,
    wait_until,
)

SILENCE = 30.0  # seconds without a beat after which a node is taken for dead
SILENCE_IN_FAILURE = 10.0  # the same where a process has failed, maybe since its node is dead
LEAVING = 10.0  # seconds that node 0 keeps the store open at the end
ALONE = 10.0  # seconds from a signal until a node leaves that has heard nothing of node 0


@dataclass(frozen=True)
class Launch:
    """Processes to be started: `devices` on each node. number: its own, from 1.

    config: sha256 of the config.yaml that node 0 sees in the run folder. began: time.time() of the
    command.
    """

    number: int
    run_dir: str
    config: str
    devices: int
    began: float


@dataclass(frozen=True)
class End:
    """Of a command: its exit code on node 0."""

    code: int


@dataclass(frozen=True)
class Outcome:
    """How the processes of a node ended: exit codes, and the sentences of those that failed."""

    codes: list[int] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def digest(run_dir: Path) -> str:
    """Of the configuration in a run folder; "" if there is none."""
    try:
        return hashlib.sha256((run_dir / "config.yaml").read_bytes()).hexdigest()
    except OSError:
        return ""


class Member:
    """What both kinds of nodes do with the store."""

    def __init__(self, node: Node, store: dist.Store) -> None:
        self.node, self.store = node, store
        self.scope = 0  # commands of this process so far
        self.number = 0  # events so far

    def endpoint(self, launch: Launch) -> Endpoint:
        return Endpoint(self.node.host, self.node.port, f"launch/{launch.number}")

    def fail(self, launch: Launch) -> None:
        """A process has failed here: the others are to end."""
        self.store.set(f"launch/{launch.number}/failed", str(self.node.rank))

    def has_failed(self, launch: Launch) -> bool:
        return self.store.check([f"launch/{launch.number}/failed"])

    def read(self, key: str) -> Any:
        return json.loads(self.store.get(key))


class Leader(Member):
    """Node 0."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, open_store(node))
        self.others = range(1, node.nodes)
        self.hosts: dict[int, str] = {}
        self._beats: dict[int, tuple[bytes, float]] = {}

    def begin(self, patience: float = ARRIVAL) -> None:
        """Wait for all nodes. Raises RunError for one that does not come."""
        self.scope += 1
        for other in self.others:
            key = f"scope/{self.scope}/arrived/{other}"
            if not wait_until(partial(self.store.check, [key]), patience):
                raise NodeLost(
                    f"node {other} of {self.node.nodes} did not come to {self.node.host}:"
                    f"{self.node.port} within {patience:.0f} s: give the same command there"
                )
            arrived = self.read(key)
            self.hosts[other] = arrived["host"]
            if arrived["nodes"] != self.node.nodes:
                raise ConfigError(
                    f"node {other} ({arrived['host']}) was begun with trainer.nodes="
                    f"{arrived['nodes']}, node 0 with {self.node.nodes}: give both one command"
                )

    def launch(self, run_dir: Path, devices: int, began: float) -> Launch:
        """Let every node start its processes on a run folder; Interrupted if one has left."""
        for other in self.others:
            if code := self._left(other):
                raise Interrupted(
                    f"node {other} was stopped; go on with: tlrun resume {run_dir}", code
                )
        self.number += 1
        run_dir = run_dir.absolute()
        launch = Launch(self.number, str(run_dir), digest(run_dir), devices, began)
        self._beats.clear()
        self._tell(asdict(launch))
        return launch

    def end(self, code: int) -> None:
        """The command is over. The store dies with this process: the others read that first."""
        self.number += 1
        self._tell(asdict(End(code)))
        there = [other for other in self.others if other in self.hosts]
        wait_until(lambda: all(self._left(other) is not None for other in there), LEAVING)

    def _left(self, other: int) -> int | None:
        """With which exit code a node has left the present command."""
        key = f"scope/{self.scope}/left/{other}"
        return int(self.store.get(key)) if self.store.check([key]) else None

    def lost(self, silence: float = SILENCE) -> int | None:
        """A node that has not been heard of for too long."""
        now = time.monotonic()
        for other in self.others:
            key = f"beat/{other}"
            beat = self.store.get(key) if self.store.check([key]) else b""
            before, since = self._beats.get(other, (b"", now))
            self._beats[other] = (beat, since if beat == before else now)
            if beat == before and now - since > silence:
                self.hosts.pop(other, None)  # it is not waited for again
                return other
        return None

    def outcomes(self, launch: Launch) -> list[Outcome]:
        """Of the other nodes, in order; raises NodeLost for one that does not answer."""
        for other in self.others:
            key, host = f"launch/{launch.number}/outcome/{other}", self.hosts.get(other)
            while not self.store.check([key]):
                if self.lost(SILENCE_IN_FAILURE if self.has_failed(launch) else SILENCE) == other:
                    raise NodeLost(f"node {other} ({host}) does not answer any more")
                time.sleep(LOOK)
        return [
            Outcome(**self.read(f"launch/{launch.number}/outcome/{other}")) for other in self.others
        ]

    def _tell(self, event: dict[str, Any]) -> None:
        self.store.set(f"event/{self.number}", json.dumps(event))


class Follower(Member):
    """Any other node."""

    def __init__(self, node: Node, patience: float = ARRIVAL) -> None:
        with node_0_answers(node):
            super().__init__(node, connect(node, patience))
        self._beats, self._last_beat = 0, 0.0
        self._alone_since: float | None = None

    def begin(self) -> None:
        self.scope += 1
        key = f"scope/{self.scope}/arrived/{self.node.rank}"
        arrived = {"host": socket.gethostname(), "nodes": self.node.nodes}
        with node_0_answers(self.node):
            if self.store.add(f"{key}/times", 1) > 1:
                raise ConfigError(
                    f"two processes say that they are {self.node.name}: give each node its number"
                )
            self.store.set(key, json.dumps(arrived))

    def events(self, idle: Callable[[], None]) -> Iterator[Launch | End]:
        """What node 0 wants, until the end. idle: called again and again while it wants nothing."""
        while True:
            key = f"event/{self.number + 1}"
            with node_0_answers(self.node):
                while not self.store.check([key]):
                    idle()
                    self.beat()
                    time.sleep(LOOK)
                event = self.read(key)
            self.number += 1
            if "code" in event:
                self._leave(0)
                yield End(**event)
                return
            yield Launch(**event)

    def leave_if_asked(self, code: int | None) -> None:
        """After a signal (its exit code): node 0 may be about to say the end; it may also be busy
        with what it does alone, and then notices when it wants to train."""
        if code is None:
            return
        self._alone_since = self._alone_since or time.monotonic()
        if time.monotonic() > self._alone_since + ALONE:
            self._leave(code)
            raise SystemExit(code)

    def _leave(self, code: int) -> None:
        key = f"scope/{self.scope}/left/{self.node.rank}"
        with node_0_answers(self.node):
            self.store.set(key, str(code))
            self.store.get(key)  # node 0 has it before this node is gone

    def beat(self) -> None:
        if time.monotonic() > self._last_beat + 1:
            self._beats, self._last_beat = self._beats + 1, time.monotonic()
            self.store.set(f"beat/{self.node.rank}", str(self._beats))

    def report(self, launch: Launch, outcome: Outcome) -> None:
        key = f"launch/{launch.number}/outcome/{self.node.rank}"
        with node_0_answers(self.node):
            self.store.set(key, json.dumps(asdict(outcome)))
