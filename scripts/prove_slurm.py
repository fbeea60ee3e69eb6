"""A sweep under a real Slurm: preempt jobs, lose a node, and end like an undisturbed sweep.

    python scripts/prove_slurm.py            # as root, with Debian's slurm-wlm and munge

Starts munged (as the user munge), slurmctld and two slurmd on this one machine, in a folder of its
own and without accounting. The sweep runs in the partition `low`; jobs of `high` take their place,
once with an announcement (SIGUSR2) and once without grace (SIGTERM); then a node dies (SIGKILL to
its daemon and all that it runs) and comes back. Then jobs of two nodes each
(`trainer.nodes=2`) lose one of them in the same ways. Every job must end equal to that of a sweep
on this machine without Slurm. Writes the names of the nodes into /etc/hosts. Exits 1 where a claim
does not hold. Minutes.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from straight import unequal_jobs

from tlrun.run_folder.run_dir import RunDir, runs_in

NODES = ("n1", "n2")
PORT = 17000
CONF = """
ClusterName=proof
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{announce}
JobRequeue=1
ReturnToService=2
SlurmdTimeout=20
KillWait=60
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=120
PartitionName=bare Nodes=ALL PriorityTier=1 GraceTime=0
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""
SMALL = (
    *("data=digits_digitsm", "backbone.width=0.25", "trainer.batch_size=16", "trainer.threads=1"),
    *("trainer.checkpoint_every=20", "trainer.log_every=20", "report=none"),
)


@dataclass(frozen=True)
class Strike:
    """What happens to a sweep of so many jobs, each on so many nodes, in a partition.

    happens: to the folder of the sweep and the cluster; False where a status was wrong.
    """

    partition: str
    happens: Callable[[Path, Cluster, int], bool]
    jobs: int = 4
    nodes: int = 1

    @property
    def words(self) -> tuple[str, ...]:
        seeds = ",".join(map(str, range(self.jobs)))
        return (f"seed={seeds}", *([f"trainer.nodes={self.nodes}"] if self.nodes > 1 else []))


class Cluster:
    """Slurm on this machine: a controller and a daemon for each of NODES."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.conf = folder, folder / "slurm.conf"
        host = socket.gethostname().partition(".")[0]
        (folder / "state").mkdir(parents=True)
        version = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True).stdout
        old = float(".".join(version.split()[1].split(".")[:2])) < 23
        announce = "SlurmctldParameters=preempt_send_user_signal"
        announce = announce if old else "PreemptParameters=send_user_signal"
        nodes = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={PORT + number} CPUs=2"
            for number, name in enumerate(NODES, start=1)
        ]
        text = CONF.format(host=host, port=PORT, folder=folder, announce=announce)
        before, partitions = (
            text[: text.index("PartitionName")],
            text[text.index("PartitionName") :],
        )
        self.conf.write_text("\n".join([before, *nodes, partitions]))
        os.environ["SLURM_CONF"] = str(self.conf)

    def start(self) -> None:
        if subprocess.run(["munge", "-n"], capture_output=True).returncode:
            Path("/run/munge").mkdir(exist_ok=True)
            subprocess.run(["chown", "munge", "/run/munge"], check=True)
            subprocess.run(["runuser", "-u", "munge", "--", "munged", "--force"], check=True)
        subprocess.run(["slurmctld", "-c"], check=True)
        for node in NODES:
            self.start_node(node)
        wait_for(lambda: self.states().count("idle") == len(NODES), "idle nodes")

    def start_node(self, node: str) -> None:
        subprocess.run(["slurmd", "-N", node], check=True)

    def kill_node(self, node: str) -> None:
        """SIGKILL to the daemon of a node and to every process of the jobs that it runs."""
        daemon = int((self.folder / f"{node}.pid").read_text())
        jobs = slurm("squeue", "--noheader", "--format=%A", f"--nodelist={node}").split()
        doomed = [daemon, *(pid for pid in processes() if job_of(pid) in jobs)]
        for pid in doomed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def states(self) -> list[str]:
        return slurm("sinfo", "--noheader", "--Node", "--partition=low", "--format=%t").split()

    def stop(self) -> None:
        slurm("scancel", "--user=root")
        for pid_file in (*(f"{node}.pid" for node in NODES), "slurmctld.pid"):
            with suppress(OSError, ValueError):
                os.kill(int((self.folder / pid_file).read_text()), signal.SIGTERM)


def slurm(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def job_of(pid: int) -> str | None:
    """The job of Slurm that a process belongs to: by its environment, or as its stepd."""
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(b"SLURM_JOB_ID="):
                return entry.partition(b"=")[2].decode()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().split()
        if words and words[0].startswith("slurmstepd:"):
            return words[1].strip("[]").partition(".")[0]
    return None


def wait_for(holds: Callable[[], bool], what: str, seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"no {what} in {seconds:.0f} s")
        time.sleep(0.5)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def name_nodes() -> None:
    """Every node finds node 0 of its job by name, which here is this machine."""
    for name in NODES:
        with suppress(OSError):
            socket.gethostbyname(name)
            continue
        with Path("/etc/hosts").open("a") as hosts:
            hosts.write(f"127.0.0.1 {name}\n")


def sweep(
    folder: Path, steps: int, *words: str, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    always = [*SMALL, "method=source_only", f"trainer.steps={steps}", "trainer.eval_every=100"]
    command = [sys.executable, "-m", "tlrun", "-m", *always, *words, f"hydra.sweep.dir={folder}"]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
    )


def straight(folder: Path, steps: int, strike: Strike) -> None:
    """The same sweep without Slurm, on as many nodes of this machine."""
    there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(PORT + 100)}
    nodes = [
        sweep(folder, steps, *strike.words, env={**there, "NODE_RANK": str(rank)})
        for rank in range(strike.nodes)
    ]
    for node in nodes:
        output = node.communicate()[0]
        if node.returncode:
            raise SystemExit(output[-2000:])


def states(folder: Path) -> list[str]:
    runs = runs_in(folder) if folder.is_dir() else []
    return [str(RunDir(path).read_status().get("state")) for path in runs]


def training(folder: Path) -> int:
    """How many jobs run and have a checkpoint."""
    runs = [RunDir(path) for path in (runs_in(folder) if folder.is_dir() else [])]
    running = [run for run in runs if run.read_status().get("state") == "running"]
    return sum((run.checkpoints / "last.pt").is_file() for run in running)


def take_a_node() -> str:
    """A job of the partition `high` that needs a whole node, and its number."""
    script = ["sbatch", "--parsable", "--partition=high", "--exclusive", "--output=/dev/null"]
    return slurm(*script, "--wrap", "sleep 20").strip()


def preempt(folder: Path, jobs: int) -> dict[str, int]:
    """Take a node from the jobs that run there; {status: how often} once they have left it."""
    wait_for(lambda: training(folder) == jobs, f"{jobs} jobs that train")
    number = take_a_node()
    state = ["squeue", "--noheader", "--format=%T", f"--jobs={number}"]
    wait_for(lambda: slurm(*state).strip() in ("RUNNING", "COMPLETING"), "node for the other job")
    seen = states(folder)
    print(f"a node is taken: {', '.join(seen)}", flush=True)
    wait_for(lambda: not slurm(*state).strip() or "COMPLETED" in slurm(*state), "end of that job")
    return {name: seen.count(name) for name in sorted(set(seen))}


def announced(folder: Path, here: Cluster, jobs: int) -> bool:
    """A node taken from two jobs that are told of it: they save, and ask for the queue."""
    return preempt(folder, jobs).get("interrupted", 0) == 2


def lost_node(folder: Path, here: Cluster, jobs: int) -> bool:
    """A node that dies with its two jobs, and comes back."""
    wait_for(lambda: training(folder) == jobs, f"{jobs} jobs that train")
    here.kill_node("n2")
    wait_for(lambda: "down" in " ".join(here.states()), "node that is down")
    here.start_node("n2")
    return True


STRIKES = {
    "announced": Strike("low", announced),
    "without_grace": Strike("bare", announced),
    "lost_node": Strike("low", lost_node),
    "two_nodes_announced": Strike("low", announced, jobs=2, nodes=2),
    "two_nodes_without_grace": Strike("bare", announced, jobs=2, nodes=2),
    "two_nodes_lost_node": Strike("low", lost_node, jobs=2, nodes=2),
}


def differences(struck: Path, straight: Path) -> dict[str, list[str]]:
    """Of the jobs, but for the launcher in their commands (overrides.yaml)."""
    unequal = unequal_jobs(struck, straight)
    unequal.pop("", None)  # what submitit keeps beside the jobs
    left = {
        job: [name for name in names if Path(name).name != "overrides.yaml"]
        for job, names in unequal.items()
    }
    return {job: names for job, names in left.items() if names}


def prove(folder: Path, steps: int, strikes: list[str]) -> bool:
    good = True
    name_nodes()
    with cluster(Path(tempfile.mkdtemp(prefix="slurm_", dir=folder)) / "slurm") as here:
        for name in strikes or STRIKES:
            strike, struck = STRIKES[name], folder / name
            undisturbed = folder / f"straight_{strike.nodes}"
            if not undisturbed.is_dir():
                straight(undisturbed, steps, strike)
            words = [f"launcher.partition={strike.partition}", "launcher.cpus_per_task=1"]
            process = sweep(struck, steps, *strike.words, "launcher=submitit", *words)
            told = strike.happens(struck, here, strike.jobs)
            output = process.communicate()[0]
            left = differences(struck, undisturbed)
            ends = states(struck)
            again = sum("resumed at step" in RunDir(p).log.read_text() for p in runs_in(struck))
            print(
                f"{name}: {'as it should be' if told else 'statuses were wrong'}; exit code "
                f"{process.returncode}, jobs {ends}, {again} of them resumed, differences from the "
                f"straight sweep: {left or 'none'}, lines about sacct: {output.count('sacct')}",
                flush=True,
            )
            right = (
                told
                and process.returncode == 0
                and ends == ["completed"] * strike.jobs
                and not left
            )
            if not (right and again >= 2 and "sacct" not in output):
                print(output[-3000:], flush=True)
                good = False
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("strikes", nargs="*", metavar="STRIKE", help=", ".join(STRIKES))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--folder", type=Path, help="for all that it writes; default: a new one")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="prove_slurm_"))
    sys.exit(0 if prove(folder.absolute(), arguments.steps, arguments.strikes) else 1)


if __name__ == "__main__":
    main()
