"""Every file of a run folder: its name, how it is made, and what it must hold. Imports no torch.

A reader never sees half a file: writes go to a temporary name, reach the disk, then are renamed
(tlrun/files/atomic.py). Only metrics.jsonl grows by rows (metrics_file.py).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, get_type_hints

from tlrun.config.ranges import Count
from tlrun.config.value_types import describe, matches
from tlrun.errors import ConfigError, RunError
from tlrun.files.yaml_file import read_yaml
from tlrun.run_folder import json_file, metrics_file
from tlrun.run_folder.json_file import Damaged
from tlrun.run_folder.locks import LOCK

COMMANDS = "sweep.yaml"  # of a sweep's folder: what `tlrun resume SWEEP_DIR` gives again
HYDRA = ".hydra"  # its own record of a run's configuration
LOGGED = ("tensorboard", "wandb", "mlflow.json", "mlflow.db")  # of loggers
OTHERS = ("baseline", "evaluations", "model.pt2", "model.onnx")  # which no RunDir has by name
STATES = ("created", "running", "completed", "failed", "interrupted")


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

    write_json = staticmethod(json_file.write_json)
    read_json = staticmethod(json_file.read_json)

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        self.stood = path.parent  # which of the folder and those above it stood before the command
        self.config = path / "config.yaml"
        self.overrides = path / "overrides.yaml"
        self.environment = path / "environment.json"
        self.label_space = path / "label_space.json"
        self.status = path / "status.json"
        self.log = path / "run.log"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model.safetensors"
        self.predictions = path / "predictions.csv"
        self.plots = path / "plots"
        self.pictures = path / "pictures.json"
        self.tables = path / "tables.json"
        self.images = path / "images.json"
        self.transfer = path / "transfer.json"
        self.report = path / "report.html"
        self.features = path / "features.npz"

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    # ---- life -------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: str | Path, stood: Path | None = None) -> RunDir:
        """Claim a folder (see `claim`) and mark it as created.

        stood: `standing(path)` of before the command, where that has made folders already.
        """
        stood = stood or standing(path)
        run = cls(cls.claim(path))
        run.stood = stood
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

    @classmethod
    def claim(cls, path: str | Path) -> Path:
        """Make `path` this run's own and return it; if a run has it already, "<name>_2" and so on.

        The exclusive creation of status.json is the lock, since Hydra may have made the folder.
        A folder without one where somebody's files have a run's names is as good as taken: they
        would be written over, read as the run's or removed with it. Raises RunError if the place
        cannot be written.
        """
        for candidate in numbered(Path(path)):
            try:
                candidate.mkdir(parents=True, exist_ok=True)
                if os.path.lexists(candidate / LOCK) or cls(candidate).has_names_of_a_run():
                    continue
                os.close(os.open(candidate / "status.json", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                return candidate
            except FileExistsError as error:
                if candidate.exists() and not candidate.is_dir():
                    raise RunError(
                        f"cannot make the run folder {candidate}: a file is there"
                    ) from error
            except OSError as error:
                raise RunError(
                    f"cannot write the run folder {candidate} ({error.strerror}): choose another "
                    "place with hydra.run.dir=..."
                ) from error
        raise AssertionError  # numbers do not end

    def has_names_of_a_run(self) -> bool:
        """Whether anything in the folder is called as what a run writes there; not asked of the
        lock and the status, which make a folder a run's."""
        free = (self.path, self.status, self.stood)
        own = [path for path in vars(self).values() if isinstance(path, Path) and path not in free]
        others = [self.path / name for name in (*OTHERS, *LOGGED, HYDRA, COMMANDS)]
        return bool(self.left()) or any(os.path.lexists(path) for path in (*own, *others))

    def holds_no_training(self) -> bool:
        """Whether a run has left nothing in it but what `discard` removes."""
        logged = (self.path / name for name in LOGGED)
        kept = self.checkpoints.is_dir() and any(self.checkpoints.iterdir())
        return not kept and not any(path.exists() for path in (self.metrics, *logged))

    def discard(self) -> None:
        """Remove what a run writes before its first evaluation, all that a dry run writes; and the
        folders that its command made, where they are empty then."""
        shutil.rmtree(self.path / HYDRA, ignore_errors=True)
        for file in self._before_training():
            file.unlink(missing_ok=True)
        with suppress(OSError):  # something is in it
            self.checkpoints.rmdir()
        remove_empty(self.path, self.stood)

    def _before_training(self) -> tuple[Path, ...]:
        own = (self.config, self.overrides, self.status, self.log, self.path / LOCK)
        return (*own, self.environment, self.label_space, self.transfer)

    # ---- status -----------------------------------------------------------------------------

    def set_status(self, state: str, **fields: Any) -> None:
        """Write status.json. Fields given earlier stay, but for `error` once the state moves on."""
        assert state in STATES, state
        status = self.read_status()
        status.pop("error", None)
        status.update(state=state, **fields, pid=os.getpid(), updated=time.strftime("%FT%T%z"))
        self.write_json(self.status, status)

    def read_status(self) -> dict[str, Any]:
        """The status; {} for a run that was claimed but never started, or where it is damaged."""
        try:
            status: dict[str, Any] = self.read_json(self.status)
        except Damaged:
            return {}
        return status

    def is_finished(self) -> bool:
        """Whether it was trained and evaluated; `missing` names what was lost since."""
        return self.read_status().get("state") == "completed" and self.summary.is_file()

    # ---- what it holds ----------------------------------------------------------------------

    def read_label_space(self) -> dict[str, Any]:
        """label_space.json with all of its keys. Raises Damaged."""
        label_space: dict[str, Any] = self.read_json(self.label_space)
        for key, kind in get_type_hints(LabelSpaceKeys, include_extras=True).items():
            if key not in label_space or not matches(label_space[key], kind):
                raise Damaged(
                    f"{self.label_space} is damaged: expected {key} to be {describe(kind)}; "
                    f"tlrun resume {self.path} writes it anew"
                )
        return label_space

    def page_kind(self) -> str:
        """`report` of its configuration, but for `auto`; full where that cannot be read."""
        try:
            kind = read_yaml(self.config).get("report")
        except (ConfigError, AttributeError):
            kind = None
        return kind if kind in ("light", "text", "none") else "full"

    def lacks_page(self) -> bool:
        """Whether its page or the pictures of it are lost; False where it is to have none."""
        if self.report.is_file() and self.plots.is_dir():
            return False
        kind = self.page_kind()
        return kind != "none" and not (kind == "text" and self.report.is_file())

    def missing(self, *, page: bool = True) -> list[str]:
        """Names of the files of a complete run that are lost or damaged, as far as can be told.

        page: whether it may have a report of its own. The weights (`checkpoints/`) are not among
        them: all else can be made from these.
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
        if page and self.lacks_page():
            names.append(self.report.name)
        return names

    def left(self) -> list[str]:
        """Names of the files that the closing tests have left here, for `files` of the summary."""
        patterns = (
            "predictions*.csv",
            "episodes.csv",
            "unseen_sets.csv",
            "features.npz",
            "pictures.json",
            "tables.json",
            "images.json",
        )
        return sorted(path.name for pattern in patterns for path in self.path.glob(pattern))

    def read_summary(self) -> dict[str, Any]:
        """summary.json; {} if there is none. Raises Damaged."""
        summary: dict[str, Any] = {}
        if self.summary.is_file():
            summary = self.read_json(self.summary)
        return summary

    # ---- metrics ----------------------------------------------------------------------------

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        metrics_file.append_row(self.metrics, row)

    def metrics_size(self) -> int:
        return metrics_file.size_on_disk(self.metrics)

    def truncate_metrics(self, size: int) -> None:
        metrics_file.truncate(self.metrics, size)

    def read_metrics(self) -> list[dict[str, Any]]:
        return metrics_file.read_rows(self.metrics)


def standing(path: str | Path) -> Path:
    """The nearest of a folder and those above it that exists."""
    path = Path(path).absolute()
    return next(folder for folder in (path, *path.parents) if os.path.exists(folder))


def remove_empty(path: Path, stood: Path) -> None:
    """Remove a folder if it is empty, and those above it that are empty then; not `stood`, nor what
    is above that."""
    stood = stood.absolute()
    with suppress(OSError):  # something is in it
        for folder in (path.absolute(), *path.absolute().parents):
            if folder in (stood, *stood.parents):
                break
            folder.rmdir()


def is_sweep(path: str | Path) -> bool:
    """Whether a folder is a sweep's (see tlrun/sweep/folder.py)."""
    return (Path(path) / COMMANDS).is_file()


def is_run_dir(path: str | Path) -> bool:
    return (Path(path) / "config.yaml").is_file() and (Path(path) / "status.json").is_file()


def runs_in(path: str | Path) -> list[Path]:
    """The run folders directly below a sweep folder, by name."""
    return sorted(child for child in Path(path).iterdir() if is_run_dir(child))


def numbered(path: Path) -> Iterator[Path]:
    """The path itself, then with "_2", "_3" and so on behind its name."""
    yield path
    named = path if path.name not in ("", "..") else Path(os.path.abspath(path))
    for number in count(2):
        yield named.with_name(f"{named.name}_{number}")
