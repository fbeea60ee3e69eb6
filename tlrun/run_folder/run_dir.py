"""Every file of a run folder: names, atomic writes, status, metrics. Imports no torch.

A reader never sees half a file: writes go to a temporary name, reach the disk, then are renamed.
`metrics.jsonl` is the exception: rows are appended, and a torn last row is skipped by the reader.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from tlrun.config.ranges import Count
from tlrun.config.schema import describe, matches
from tlrun.errors import ConfigError, Interrupted, RunError, TlrunError
from tlrun.run_folder.environment import collect_environment

_held: set[Path] = set()  # the folders that this process has locked
MADE_BY_RESUME = ("summary.json", "label_space.json")  # if they are missing or damaged
COMMANDS = "sweep.yaml"  # of a sweep's folder: what `tlrun resume SWEEP_DIR` gives again
STATES = ("created", "running", "completed", "failed", "interrupted")


class Damaged(RunError):
    """A file of a run is missing, unreadable or does not hold what it should."""


@dataclass
class LabelSpaceKeys:
    """What `label_space.json` holds; prediction needs all of it."""

    classes: list[str]
    tasks: dict[str, dict[str, Any]]
    domains: list[str]
    facts: dict[str, Any]
    input_shape: list[Count]
    preprocess: dict[str, Any]


class RunDir:
    """The folder of one run (design: one flat folder, stable names, read by other tools)."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    # ---- files ------------------------------------------------------------------------------

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def overrides(self) -> Path:
        return self.path / "overrides.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def label_space(self) -> Path:
        return self.path / "label_space.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.csv"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures.json"

    @property
    def tables(self) -> Path:
        return self.path / "tables.json"

    @property
    def transfer(self) -> Path:
        return self.path / "transfer.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def features(self) -> Path:
        return self.path / "features.npz"

    # ---- life -------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: str | Path) -> RunDir:
        """Claim a folder (see `claim`) and mark it as created."""
        run = cls(cls.claim(path))
        run.set_status("created")
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunDir:
        """An existing run folder. Raises ConfigError if it is none."""
        path = Path(path)
        if not path.is_dir():
            raise ConfigError(f"there is no folder {path}: give the run folder that tlrun printed")
        run = cls(path)
        if not run.config.is_file():
            raise ConfigError(
                f"{path} is not a run folder (no config.yaml in it): give the folder that tlrun "
                "printed, like outputs/2025-01-31/12-00-00_dann_digits_digitsm_1a2b3c"
            )
        return run

    @staticmethod
    def claim(path: str | Path) -> Path:
        """Make `path` this run's own and return it; if a run has it already, "<name>_2" and so on.

        The exclusive creation of status.json is the lock, since Hydra may have made the folder.
        Raises RunError if the place cannot be written.
        """
        path, number = Path(path), 1
        while True:
            candidate = path if number == 1 else path.with_name(f"{path.name}_{number}")
            try:
                candidate.mkdir(parents=True, exist_ok=True)
                os.close(os.open(candidate / "status.json", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                return candidate
            except FileExistsError as error:
                if candidate.exists() and not candidate.is_dir():
                    raise RunError(
                        f"cannot make the run folder {candidate}: a file is there"
                    ) from error
                number += 1
            except OSError as error:
                raise RunError(
                    f"cannot write the run folder {candidate} ({error.strerror}): choose another "
                    "place with hydra.run.dir=..."
                ) from error

    def discard(self) -> None:
        """Remove what a dry run wrote, and the folders that are empty without it."""
        shutil.rmtree(self.path / ".hydra", ignore_errors=True)
        for file in (self.config, self.overrides, self.status, self.log, self.path / ".lock"):
            file.unlink(missing_ok=True)
        own = Path("outputs").absolute()  # where conf/config.yaml puts runs, in folders by day
        with suppress(OSError):  # something is in it
            self.path.rmdir()
            for folder in self.path.absolute().parents:
                if own not in (folder, *folder.parents):
                    break
                folder.rmdir()

    # ---- status -----------------------------------------------------------------------------

    def set_status(self, state: str, **fields: Any) -> None:
        """Write status.json. Fields given earlier stay, but for `error` once the state moves on."""
        assert state in STATES, state
        kept = self.read_status()
        kept.pop("error", None)
        kept.update(state=state, **fields, pid=os.getpid(), updated=time.strftime("%FT%T%z"))
        self.write_json(self.status, kept)

    def read_status(self) -> dict[str, Any]:
        """The status; {} for a run that was claimed but never started, or where it is damaged."""
        try:
            found: dict[str, Any] = self.read_json(self.status)
        except Damaged:
            return {}
        return found

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Whatever ends the work inside: status.json says so, run.log has a fault's traceback."""
        try:
            yield
        except BaseException as error:
            if not self.path.is_dir() or self._held_by_another():
                raise
            stopped = isinstance(error, Interrupted | KeyboardInterrupt | SystemExit)
            reason = (
                str(error) if isinstance(error, TlrunError) else f"{type(error).__name__}: {error}"
            )
            with suppress(OSError):  # a full disk must not hide why
                self.set_status("interrupted" if stopped else "failed", error=reason)
                error.tlrun_recorded = True  # type: ignore[attr-defined]
                logged = isinstance(error, TlrunError) or hasattr(error, "tlrun_log")
                if isinstance(error, Exception) and not logged:
                    with self.log.open("a", encoding="utf-8") as log:
                        traceback.print_exception(error, file=log)
                    error.tlrun_log = self.log  # type: ignore[attr-defined]  # for the user
            raise

    def _held_by_another(self) -> bool:
        """Whether a living process of this machine, not this one, is running here."""
        status = self.read_status()
        pid = status.get("pid")
        return status.get("state") == "running" and pid != os.getpid() and alive(pid)

    # ---- json -------------------------------------------------------------------------------

    @staticmethod
    def write_json(path: str | Path, obj: Any) -> None:
        """Whole or not at all. NaN and infinity become null; numpy and torch scalars numbers."""
        write_atomic(Path(path), json.dumps(clean(obj), indent=2, ensure_ascii=False) + "\n")

    @staticmethod
    def read_json(path: str | Path, kind: Any = dict) -> Any:
        """Plain values of `kind`, a type hint as in tlrun/config/schema.py. Raises Damaged."""
        path = Path(path)
        anew = f"; tlrun resume {path.parent} writes it anew" if path.name in MADE_BY_RESUME else ""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise Damaged(f"cannot read {path}: {error.strerror}{anew}") from error
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
            raise Damaged(f"{path} is damaged: it is not JSON ({error}){anew}") from error
        if not matches(found, kind):
            raise Damaged(f"{path} is damaged: expected {describe(kind)}{anew}")
        return found

    def read_label_space(self) -> dict[str, Any]:
        """label_space.json with all of its keys. Raises Damaged."""
        found: dict[str, Any] = self.read_json(self.label_space)
        for key, kind in get_type_hints(LabelSpaceKeys, include_extras=True).items():
            if key not in found or not matches(found[key], kind):
                raise Damaged(
                    f"{self.label_space} is damaged: expected {key} to be {describe(kind)}; "
                    f"tlrun resume {self.path} writes it anew"
                )
        return found

    def missing(self, *, page: bool = True) -> list[str]:
        """Names of the files of a complete run that are lost or damaged, as far as can be told.

        page: whether it has a report of its own. The weights (`checkpoints/`) are not among them:
        all else can be made from these.
        """
        try:
            summary = self.read_json(self.summary)
        except Damaged:
            summary = {}
        files = summary.get("files")
        left = files if matches(files, list[str]) else []
        names = [name for name in (self.model.name, *left) if not (self.path / name).is_file()]
        names += [] if summary else [self.summary.name]
        try:
            self.read_label_space()
        except Damaged:
            names.append(self.label_space.name)
        if page and not (self.report.is_file() and self.plots.is_dir()):
            names.append(self.report.name)
        return names

    def left(self) -> list[str]:
        """Names of the files that the closing tests have left here, for `files` of the summary."""
        patterns = (
            "predictions*.csv",
            "episodes.csv",
            "features.npz",
            "pictures.json",
            "tables.json",
        )
        return sorted(path.name for pattern in patterns for path in self.path.glob(pattern))

    def read_summary(self) -> dict[str, Any]:
        """summary.json; {} if there is none. Raises Damaged."""
        found: dict[str, Any] = self.read_json(self.summary) if self.summary.is_file() else {}
        return found

    # ---- metrics ----------------------------------------------------------------------------

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl."""
        line = json.dumps(clean(row), ensure_ascii=False) + "\n"
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(line)

    def metrics_size(self) -> int:
        """Bytes of metrics.jsonl, on the disk for sure: what a checkpoint remembers."""
        if not self.metrics.exists():
            return 0
        with self.metrics.open("rb+") as file:
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size

    def truncate_metrics(self, size: int) -> None:
        """Cut off the rows after a checkpoint, on resume. RunError if rows before it are lost."""
        have = self.metrics.stat().st_size if self.metrics.exists() else 0
        if have < size:
            raise RunError(
                f"{self.metrics} is shorter ({have} bytes) than its checkpoint remembers ({size}): "
                "the run cannot be resumed, start it again"
            )
        if have:
            with self.metrics.open("rb+") as file:
                file.truncate(size)
                os.fsync(file.fileno())

    def read_metrics(self) -> list[dict[str, Any]]:
        """All rows; a last line that was torn by a crash is skipped.

        Raises Damaged for any other that cannot be read: what is chosen depends on every row.
        """
        if not self.metrics.exists():
            return []
        rows = []
        lines = self.metrics.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                row = json.loads(line) if line else None
            except (ValueError, RecursionError):
                row = line
            if row is not None and not isinstance(row, dict):
                raise Damaged(
                    f"{self.metrics}, line {number}, is damaged: it is no row of figures; the run "
                    "has to be started again, or goes on without that row once the line is empty"
                )
            rows += [row] if row else []
        return rows

    # ---- log --------------------------------------------------------------------------------

    @contextmanager
    def logging(self) -> Iterator[None]:
        """The `tlrun` loggers write to run.log (with the time) and to stderr (the message alone).

        Nested use for the same folder adds nothing.
        """
        logger = logging.getLogger("tlrun")
        before = logger.level
        file_name = str(self.log.absolute())
        added: list[logging.Handler] = []
        have = {getattr(handler, "baseFilename", None) for handler in logger.handlers}
        if file_name not in have:
            to_file = LogFile(file_name, encoding="utf-8")
            to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            added.append(to_file)
        if not any(type(handler) is logging.StreamHandler for handler in logger.handlers):
            to_screen = logging.StreamHandler()
            to_screen.setFormatter(logging.Formatter("%(message)s"))
            added.append(to_screen)
        for handler in added:
            logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.setLevel(before)
            for handler in added:
                logger.removeHandler(handler)
                handler.close()


class LogFile(logging.FileHandler):
    """A line that cannot be written (a full disk) is left out, without logging's traceback."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass


class Busy(RunError):
    """Another process holds the folder."""


@contextmanager
def locked(folder: str | os.PathLike[str], *, wait: bool = False) -> Iterator[None]:
    """Keep other processes out of a folder; the kernel ends it when this one dies.

    Used again inside itself it does nothing. Raises Busy, or waits if asked to.
    """
    import filelock  # 0.08 s, and --help needs none

    place = Path(folder).resolve()
    if place in _held:
        yield
        return
    lock = filelock.FileLock(place / ".lock")
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except filelock.Timeout as error:
        raise Busy(
            f"another process is working on {os.fspath(folder)}; wait for it or stop it"
        ) from error
    _held.add(place)
    try:
        remove_half_written(place)
        yield
    finally:
        _held.discard(place)
        lock.release()


def held_by_another(folder: str | os.PathLike[str]) -> bool:
    """Whether another process is working on a folder now."""
    try:
        with locked(folder):
            return False
    except Busy:
        return True


def is_sweep(path: str | Path) -> bool:
    """Whether a folder is a sweep's (see tlrun/sweep/jobs.py)."""
    return (Path(path) / COMMANDS).is_file()


def is_run_dir(path: str | Path) -> bool:
    return (Path(path) / "config.yaml").is_file() and (Path(path) / "status.json").is_file()


def runs_in(path: str | Path) -> list[Path]:
    """The run folders directly below a sweep folder, by name."""
    return sorted(child for child in Path(path).iterdir() if is_run_dir(child))


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write to a temporary name, flush to the disk, rename, flush the folder's entry."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_half_written(folder: Path) -> None:
    """Remove what `write_atomic` left in processes that were killed, in `folder` and just below."""
    for file in (*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")):
        pid = file.name.split(".")[-2]
        if pid.isdigit() and not alive(pid):
            with suppress(OSError):  # of a folder that is read-only
                file.unlink()


def alive(pid: Any) -> bool:
    """Whether a process of this number lives on this machine."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:  # another user's
        return True
    except (OSError, OverflowError, ValueError, TypeError):
        return False
    return True


def clean(obj: Any) -> Any:
    """Plain JSON values: NaN and infinity -> None, numpy and torch values -> numbers."""
    if isinstance(obj, Mapping):
        return {str(key): clean(value) for key, value in obj.items()}
    if isinstance(obj, str) or obj is None or isinstance(obj, bool | int):
        return obj
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else None
    if isinstance(obj, Sequence | set | frozenset):
        return [clean(value) for value in obj]
    if hasattr(obj, "tolist"):
        return clean(obj.tolist())
    return str(obj)


__all__ = [
    "Busy",
    "RunDir",
    "clean",
    "collect_environment",
    "held_by_another",
    "is_run_dir",
    "locked",
    "runs_in",
    "write_atomic",
]
