"""Bad values, damaged files, and a pool that runs commands and says what is wrong with their end.

A command may be accepted (exit code 0) or refused (1 or 2, one sentence on stderr, nothing left
behind); every other end is a fault. Used by prove_commands.py and tests/cli/test_properties.py.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import re
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.config.packaged import conf_dir
from tlrun.run_folder.run_dir import RunDir

TIMEOUT = 60.0  # seconds of one command
MEMORY = 6 * 2**30  # bytes of one command: a huge net must not take the machine with it
SENTENCE = 1500  # characters; a list of valid names is long

# ---- bad values ----------------------------------------------------------------------------------

VALUES: Mapping[str, Any] = {
    "a word": "word",
    "a number": 5,
    "true": True,
    "null": None,
    "negative": -1,
    "zero": 0,
    "huge": 1e30,
    "huge and whole": 99999999999999999999,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "a list": [1, 2],
    "a list of words": ["word"],
    "an empty list": [],
    "a mapping": {"word": 1},
    "empty": "",
}


def typed(value: Any) -> str:
    """A value as one types it after `key=`."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {typed(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(typed(inner) for inner in value) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def keys_of(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a configuration, groups included."""
    for name, value in tree.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from keys_of(value, f"{prefix}{name}.")


# ---- commands that are fine but for one key ------------------------------------------------------

SMALL = ("trainer.steps=2", "trainer.batch_size=8", "trainer.threads=1", "trainer.device=cpu")
DRY = ("dry_run=true", "hydra.run.dir=run")
BUNDLED = {  # kind of data -> the bundled set of that kind
    "class": "digits_digitsm",
    "episodes": "digits_episodes",
    "attributes": "digits_attributes",
    "tasks": "digits_fours_nines",
}
NOT_IN_CONFIG = ("hydra.run.dir", "experiment", "recipe", "launcher", "search", "init")


def bundled_data() -> list[str]:
    """The options of `data` that need no files from the disk."""
    files = sorted((conf_dir() / "data").glob("*.yaml"))
    return [file.stem for file in files if file.read_text("utf-8").startswith("# bundled")]


def methods() -> list[str]:
    return sorted(file.stem for file in (conf_dir() / "method").glob("*.yaml"))


@cache
def bases() -> tuple[tuple[str, ...], ...]:
    """Commands that compose: every method, bundled set and small option of a group once."""
    from tlrun.config.build import locate

    found = []
    for name in methods():
        cfg = OmegaConf.load(conf_dir() / "method" / f"{name}.yaml")
        needs = locate(cfg._target_).requirements
        data = "digits_styles_digitsm" if needs.sources > 1 else BUNDLED[needs.kind]
        words = [f"method={name}", f"data={data}", "backbone.width=0.1"]
        if needs.open_set:
            words += ["data.label_spaces=open", "data.source_classes=[0, 1, 2, 3, 4]"]
        found.append(tuple(words))
    found += [(f"data={name}",) for name in bundled_data()]
    for group in ("optimizer", "schedule", "select", "terms"):
        for file in sorted((conf_dir() / group).glob("*.yaml")):
            choice = f"[{file.stem}]" if group == "terms" else file.stem
            found.append((f"{group}={choice}", "backbone.width=0.1"))
    for file in sorted((conf_dir() / "balance").glob("*.yaml")):
        found.append(("method=multitask", "data=digits_fours_nines", f"balance={file.stem}"))
    found += [(f"backbone={name}",) for name in ("lenet", "dtn", "conv4", "mlp", "resnet18")]
    return tuple(found)


@cache
def _tree(base: tuple[str, ...]) -> dict[str, Any]:
    tree: dict[str, Any] = plain(compose([*base, *SMALL]))
    return tree


def at(tree: Any, key: str) -> Any:
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


# ---- what is run ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)  # a value may be a list
class Command:
    """Words after `tlrun`. With `run`, a copy of that run folder lies in ./run, where one file is
    changed first: a value of its config.yaml (`key`, `value`), or the whole file (`damage`).
    """

    words: tuple[str, ...]
    run: Path | None = None
    file: str = ""
    damage: str = ""
    key: str = ""
    value: Any = None
    nan: bool = False  # a number is replaced by nan: never to be accepted

    def __str__(self) -> str:
        line = shlex.join(["tlrun", *self.words])
        if self.damage:
            return f"{line}    # {self.file}: {self.damage}"
        return f"{line}    # config.yaml: {self.key}={typed(self.value)}" if self.key else line

    def prepare(self, folder: Path) -> None:
        """Lay out `folder`, where the command is given."""
        if self.run is None:
            return
        shutil.copytree(self.run, folder / "run")
        if self.damage:
            DAMAGES[self.damage](folder / "run" / self.file)
        elif self.key:
            config = folder / "run" / "config.yaml"
            tree: Any = yaml.safe_load(config.read_text("utf-8"))
            *path, name = self.key.split(".")
            node = tree
            for step in path:
                node = node[step]
            node[name] = self.value
            config.write_text(yaml.safe_dump(tree), "utf-8")


def hostile_commands(seed: int) -> Iterator[Command]:
    """Without end: one key with a bad value, then two keys, and so on.

    Of the keys of a base drawn at random it takes what has been drawn least, values alike, so that
    rare keys and every value have their turn.
    """
    draw = random.Random(seed)
    drawn: Counter[Any] = Counter()

    def least(choices: Sequence[Any], place: str) -> Any:
        fewest = min(drawn[place, choice] for choice in choices)
        found = draw.choice([c for c in choices if drawn[place, c] == fewest])
        drawn[place, found] += 1
        return found

    pair = False
    while True:
        base = draw.choice(bases())
        tree = _tree(base)
        keys = [*keys_of(tree), *NOT_IN_CONFIG]
        words, nan = [], False
        for _ in range(1 + pair):
            key = least(keys, "key")
            kind = least(list(VALUES), key)
            words.append(f"{key}={typed(VALUES[kind])}")
            nan |= kind == "nan" and type(at(tree, key)) in (int, float)
        yield Command((*base, *SMALL, *DRY, *words), nan=nan)
        pair = not pair


def every_method_on_every_data() -> list[Command]:
    """The cross product, as one would type it."""
    return [
        Command((f"method={method}", f"data={data}", "trainer.threads=1", *DRY))
        for method in methods()
        for data in bundled_data()
    ]


# ---- files of a run --------------------------------------------------------------------------

TRAINED = (
    *("method=dann", "trainer.steps=6", "trainer.batch_size=8", "trainer.eval_every=3"),
    *("trainer.log_every=2", "trainer.threads=1", "trainer.device=cpu", "backbone.width=0.1"),
    *("baseline=false", "selectors=[last]", "hydra.run.dir=run"),
)
VERBS = (
    ("resume", "run"),
    ("evaluate", "run"),
    ("predict", "run", "image.png"),
    ("export", "run", "--to", "torch_export"),
    ("report", "run"),
    ("reproduce", "run"),
)


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _as_file(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.write_text("5\n")


def _latin(path: Path) -> None:
    path.write_bytes('# café\n{"é": "à"}\n'.encode("latin-1"))


DAMAGES: Mapping[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "random bytes": lambda path: path.write_bytes(random.Random(0).randbytes(2000)),
    "a number": _as_file,
    "a list": lambda path: path.write_text("[1]\n"),
    "latin-1": _latin,
    "a folder": _as_folder,
    "missing": lambda path: path.unlink(),
}


def finished_run(folder: Path, pool: Pool) -> Path:
    """A short run, trained once; its folder."""
    outcome = pool.run(Command(TRAINED), keep=folder)
    if outcome.code != 0:
        raise SystemExit(f"the run to be damaged failed: {outcome.sentence}")
    return folder / "run"


def damaged_files(run: Path) -> list[Command]:
    """Each file of a run x each damage x each verb, and `checkpoints` itself."""
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.suffix != ".png"]
    names = [str(path.relative_to(run)) for path in files]
    found = [
        Command(verb, run, file=name, damage=damage)
        for name in names
        for damage in DAMAGES
        for verb in VERBS
    ]
    return found + [Command(verb, run, file="checkpoints", damage="a number") for verb in VERBS]


def saved_values(run: Path) -> dict[str, Any]:
    """Its config.yaml."""
    found: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    return found


def saved_configs(run: Path) -> list[Command]:
    """Each key of a run's config.yaml x each bad value x each verb."""
    tree = saved_values(run)
    return [
        Command(
            verb,
            run,
            key=key,
            value=value,
            nan=kind == "nan" and type(at(tree, key)) in (int, float) and verb[0] != "report",
        )
        for key in keys_of(tree)
        for kind, value in VALUES.items()
        for verb in VERBS
    ]


# ---- how it ended --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """code: the exit code, -n for signal n. left: files that a refused command left behind."""

    command: Command
    code: int
    out: str
    said: str
    seconds: float
    left: tuple[str, ...]
    timed_out: bool = False

    @property
    def sentence(self) -> str:
        """The last line on stderr."""
        return self.said.rstrip("\n").rpartition("\n")[2]

    @property
    def refused(self) -> bool:
        return self.code in (1, 2)

    @property
    def fault(self) -> str:
        """What is wrong with this end; '' = nothing."""
        if self.timed_out:
            return "hangs"
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}"
        if self.code not in (0, 1, 2):
            return f"exit code {self.code}"
        if "Traceback (most recent call last)" in self.said + self.out:
            return "traceback"
        if self.left:
            return "leaves files"
        if self.code == 0:
            return "nan is accepted" if self.command.nan else ""
        if self.command.words[0] == "reproduce" and self.out.rstrip().endswith("differs"):
            return ""  # its own exit code 1
        if re.search(r"\(\w+\.py:\d+\); (run with --debug|traceback in)", self.said):
            return "raw Python error"
        errors = [line for line in self.said.splitlines() if line.startswith("tlrun: error: ")]
        if errors != [self.sentence] or len(self.sentence) > SENTENCE:
            return "no single sentence"
        return ""


class Pool:
    """Runs commands, each in a process forked from one that has imported torch already.

    A command that hangs or dies takes nothing with it. Needs a main module that can be imported.
    """

    def __init__(self, jobs: int = 2, timeout: float = TIMEOUT) -> None:
        self.jobs, self.timeout = jobs, timeout
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")
        os.environ.pop("TLRUN_DEBUG", None)
        # until Python 3.13 the server does not take over sys.path
        above = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(Path(__file__).parent), above])
        )
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["warm"])

    def run(self, command: Command, keep: Path | None = None) -> Outcome:
        (outcome,) = self.run_all([command], keep)
        return outcome

    def run_all(self, commands: Iterable[Command], keep: Path | None = None) -> Iterator[Outcome]:
        """The outcomes, as they come. keep: a folder for what the (only) command leaves."""
        waiting, running = iter(commands), []
        with tempfile.TemporaryDirectory() as name:
            number = 0
            while True:
                while len(running) < self.jobs and (command := next(waiting, None)):
                    number += 1
                    running.append(self._begin(command, Path(name) / str(number), keep))
                if not running:
                    return
                wait([task.process.sentinel for task in running], timeout=1)
                for task in list(running):
                    late = time.monotonic() - task.began > self.timeout
                    if late or not task.process.is_alive():
                        running.remove(task)
                        yield task.end(late)

    def _begin(self, command: Command, folder: Path, keep: Path | None) -> Task:
        (folder / "tmp").mkdir(parents=True)
        place = folder / "cwd" if keep is None else keep
        place.mkdir(exist_ok=True)
        command.prepare(place)
        if "image.png" in command.words:
            from PIL import Image

            Image.new("RGB", (28, 28), (200, 30, 30)).save(place / "image.png")
        process = self.context.Process(target=_obey, args=(command.words, folder, place))
        before = _files(place)
        process.start()
        return Task(command, process, folder, place, before, time.monotonic())


@dataclass
class Task:
    command: Command
    process: Any
    folder: Path
    place: Path
    before: set[str]
    began: float

    def end(self, late: bool) -> Outcome:
        if late:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        seconds = time.monotonic() - self.began
        out, said = (
            (self.folder / name).read_text("utf-8", errors="replace")
            if (self.folder / name).exists()
            else ""
            for name in ("out", "err")
        )
        code = int(self.process.exitcode)
        left = sorted(self._left(code))
        shutil.rmtree(self.folder, ignore_errors=True)
        return Outcome(self.command, code, out, said, seconds, tuple(left), late)

    def _left(self, code: int) -> Iterator[str]:
        """Of a refused command: all that is new. Of a dry run too. A run of `reproduce` that fails
        once it has begun stays, marked as failed; and a log may tell more than before."""
        yield from (f"TMPDIR/{name}" for name in _files(self.folder / "tmp"))
        if code == 0 and "dry_run=true" not in self.command.words:
            return
        failed = {
            file.parent.name
            for file in self.place.glob("run_reproduced*/status.json")
            if RunDir(file.parent).read_status().get("state") == "failed"
        }
        for name in _files(self.place) - self.before:
            if name.partition("/")[0] not in failed and name not in ("run/.lock", "run/run.log"):
                yield name


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _obey(words: tuple[str, ...], folder: Path, place: Path) -> None:
    """In the forked process: the command, with its own folder, output and limits."""
    os.setsid()
    os.chdir(place)
    for name, descriptor in (("out", 1), ("err", 2)):
        file = os.open(folder / name, os.O_CREAT | os.O_WRONLY)
        os.dup2(file, descriptor)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tempfile.tempdir = str(folder / "tmp")
    os.environ.update(TMPDIR=str(folder / "tmp"), TLRUN_CACHE=str(folder / "cache"))
    from tlrun.cli.main import main

    sys.argv = ["tlrun", *words]
    sys.exit(main(list(words)))
