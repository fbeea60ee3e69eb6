"""Start the training processes of a run folder, by name, and wait for them (worker.py)."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tlrun.config.trust import as_environment
from tlrun.engine.distributed import Endpoint
from tlrun.engine.interrupt import StopRequest
from tlrun.errors import Interrupted, RunError
from tlrun.experiment.node_group import Follower, Launch, Leader, Outcome, digest
from tlrun.experiment.node_store import NodeLost
from tlrun.machine import in_slurm

log = logging.getLogger(__name__)

# `python -m` would look for every package in the working folder first (from Python 3.11)
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
SLURM_NOTICES = 400.0  # seconds; its SlurmdTimeout is 300 by default
VISIBLE = 15.0  # seconds until a network's file system shows what another node wrote


def start_workers(run_dir: Path, devices: int, began: float, leader: Leader | None = None) -> None:
    """Train in `devices` processes on a run folder, and as many on each other node of `leader`.

    began: time.time() of the command. SIGINT and SIGTERM are passed on once. Raises Interrupted
    when the processes stopped for one of them, RunError with the first one's own sentence when one
    failed.
    """
    if leader is not None:
        _start_on_nodes(run_dir, devices, began, leader)
        return
    rendezvous = run_dir / ".rendezvous"
    rendezvous.unlink(missing_ok=True)
    workers = Workers(run_dir, range(devices), devices, began)
    with StopRequest() as stop:
        workers.start()
        workers.wait(stop)
    rendezvous.unlink(missing_ok=True)
    raise_reason(run_dir, [workers.outcome()])


def _start_on_nodes(run_dir: Path, devices: int, began: float, leader: Leader) -> None:
    """Node 0's part."""
    launch = leader.launch(run_dir, devices, began)
    workers = _workers_of(launch, leader)
    lost: int | None = None

    def others_failed() -> bool:
        nonlocal lost
        lost = leader.lost()
        return lost is not None or leader.has_failed(launch)

    try:
        with StopRequest() as stop:
            workers.start()
            workers.wait(stop, others_failed, lambda: leader.fail(launch))
            if lost is not None:
                leader.fail(launch)
            outcomes = [workers.outcome(), *leader.outcomes(launch)]
    except NodeLost:
        wait_for_slurm()
        raise
    raise_reason(run_dir, outcomes)


def wait_for_slurm() -> None:
    """A job that lost a node is Slurm's to end (SIGTERM) and to queue again, once it has noticed by
    itself. Where it does not the node is there, and the job fails."""
    if in_slurm():
        log.warning("a node does not answer: waiting for Slurm to queue the job again")
        time.sleep(SLURM_NOTICES)


def follow_launch(launch: Launch, follower: Follower, stop: StopRequest) -> None:
    """Another node's part: its processes, from start to end."""
    run_dir = Path(launch.run_dir)
    if not _sees(run_dir, launch.config, follower):
        follower.fail(launch)
        sentence = (
            f"{follower.node.name} does not see the run folder {run_dir} as node 0 has written it: "
            "all nodes must share its file system"
        )
        follower.report(launch, Outcome([1], [sentence]))
        return
    workers = _workers_of(launch, follower)

    workers.idle = follower.beat
    workers.start()
    try:
        workers.wait(stop, lambda: follower.has_failed(launch), lambda: follower.fail(launch))
    except BaseException:  # node 0 is gone
        workers.idle = lambda: None
        workers.end(patience=2.0)
        raise
    follower.report(launch, workers.outcome())


def _workers_of(launch: Launch, member: Leader | Follower) -> Workers:
    first = member.node.rank * launch.devices
    return Workers(
        Path(launch.run_dir),
        range(first, first + launch.devices),
        member.node.nodes * launch.devices,
        launch.began,
        member.endpoint(launch),
    )


def _sees(run_dir: Path, config: str, follower: Follower) -> bool:
    """Whether it is the folder that node 0 sees, and no other of the same name."""
    deadline = time.monotonic() + VISIBLE
    while digest(run_dir) != config:
        if time.monotonic() > deadline:
            return False
        follower.beat()
        time.sleep(0.5)
    return True


class Workers:
    """The processes of one machine. ranks: theirs among `world`. endpoint: None = meet at a file.

    idle: called again and again while they are waited for.
    """

    def __init__(
        self,
        run_dir: Path,
        ranks: Sequence[int],
        world: int,
        began: float,
        endpoint: Endpoint | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.errors = [run_dir / f".worker{rank}.error" for rank in ranks]
        of_all = [str(world), repr(began)]
        if endpoint is not None:
            of_all += [endpoint.host, str(endpoint.port), endpoint.prefix]
        command = [sys.executable, "-m", "tlrun.experiment.worker", str(run_dir)]
        self.commands = [[*command, str(rank), *of_all] for rank in ranks]
        self.processes: list[subprocess.Popen[bytes]] = []
        self.idle: Callable[[], None] = lambda: None

    def start(self) -> None:
        for file in self.errors:
            file.unlink(missing_ok=True)
        self.processes = [
            subprocess.Popen(
                command,
                env=os.environ | as_environment() | SAFE_PATH,
                start_new_session=True,  # the terminal's Ctrl-C goes to us alone
            )
            for command in self.commands
        ]

    def wait(
        self,
        stop: StopRequest,
        others_failed: Callable[[], bool] = lambda: False,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        """Until all have ended; the first failure here (told by `tell`) or elsewhere ends them."""
        signalled = False
        while any(process.poll() is None for process in self.processes):
            if stop.exit_code and not signalled:
                signalled = True
                number = signal.SIGTERM if stop.exit_code == 143 else signal.SIGINT
                for process in self.processes:
                    process.send_signal(number)
            if self.failed():
                tell()
                self.end()
            elif others_failed():
                self.end()
            self.idle()
            time.sleep(0.1)
        if self.failed():
            tell()

    def failed(self) -> bool:
        return any(process.poll() not in (None, 0) for process in self.processes)

    def end(self, patience: float = 20.0) -> None:
        """Give them time to stop by themselves (they may be saving), then end them."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and any(p.poll() is None for p in self.processes):
            self.idle()
            time.sleep(0.1)
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def outcome(self) -> Outcome:
        """After their end. Their sentences are read, and their files removed."""
        messages = [file.read_text(encoding="utf-8") for file in self.errors if file.exists()]
        for file in self.errors:
            file.unlink(missing_ok=True)
        return Outcome([process.returncode for process in self.processes], messages)


def raise_reason(run_dir: Path, outcomes: Sequence[Outcome]) -> None:
    """Raise Interrupted or RunError unless all processes of all nodes ended well."""
    codes = [code for outcome in outcomes for code in outcome.codes]
    messages = [text for outcome in outcomes for text in outcome.messages]
    for code in (130, 143):
        if code in codes:
            raise Interrupted(
                messages[0] if messages else f"stopped; go on with: tlrun resume {run_dir}", code
            )
    if any(codes):
        reason = messages[0] if messages else f"exit codes {codes}; see {run_dir / 'run.log'}"
        raise RunError(f"a training process failed: {reason}")
