"""`logger=mlflow`: a run in an MLflow store, a SQLite file unless `logger.uri` names a server.

The file is `mlflow.db` in the run folder, or in `logger.folder`, which several runs may share. A
run remembers in tags the last step of each kind of row, so after a resume no step is there twice.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before the import

import alembic  # noqa: F401  the store's own; better missed now
import sqlalchemy  # noqa: F401
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from tlrun.config.build import plain
from tlrun.config.saved import load_config
from tlrun.errors import RunError
from tlrun.files.locks import file_lock
from tlrun.loggers.base import Logger, Row, numbers, sweep_of, title
from tlrun.run_folder.run_dir import RunDir

for _name_of_log in ("mlflow", "alembic"):  # they tell of every table that is made
    logging.getLogger(_name_of_log).setLevel(logging.WARNING)

LONGEST = 500  # characters of a parameter's value that every version takes
AT_ONCE = 100  # parameters in a call
SPLITS = ("train", "eval")


class MLflow(Logger):
    """cfg: folder, uri, experiment."""

    def __init__(self, cfg: Mapping[str, Any], run_dir: RunDir) -> None:
        folder = Path(cfg["folder"] or run_dir.path).absolute()
        uri = cfg["uri"] or f"sqlite:///{folder / 'mlflow.db'}"
        with _explained(uri):
            if not cfg["uri"]:
                folder.mkdir(parents=True, exist_ok=True)
            with _alone(None if cfg["uri"] else folder):  # its tables are made once
                self.client = MlflowClient(tracking_uri=uri)
                experiment = self._experiment(str(cfg["experiment"]), folder, bool(cfg["uri"]))
            self.id, had = self._run(experiment, run_dir, uri)
        self.had = {split: int(had.get(f"tlrun.{split}_step", -1)) for split in SPLITS}
        for row in run_dir.read_metrics():
            self(row)  # those of before it was chosen

    def _experiment(self, name: str, folder: Path, remote: bool) -> str:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = None if remote else (folder / "mlflow_artifacts").as_uri()
        return str(self.client.create_experiment(name, artifact_location=location))

    def _run(self, experiment: str, run_dir: RunDir, uri: str) -> tuple[str, dict[str, str]]:
        """(id, tags) of this folder's run: the one begun earlier, or a new one."""
        file = run_dir.path / "mlflow.json"
        earlier = run_dir.read_json(file) if file.is_file() else {}
        if earlier.get("uri") == uri:
            self.client.update_run(earlier["run_id"], status="RUNNING")
            return earlier["run_id"], dict(self.client.get_run(earlier["run_id"]).data.tags)
        config = plain(load_config(run_dir.config)) if run_dir.config.is_file() else {}
        tags = {"tlrun.folder": str(run_dir.path.absolute())}
        if sweep := sweep_of(run_dir):
            tags["tlrun.sweep.run_or_skip"] = sweep
        run = self.client.create_run(experiment, run_name=title(run_dir), tags=tags)
        settings = [Param(_name(k), str(v)[:LONGEST]) for k, v in _flat(config)]
        for first in range(0, len(settings), AT_ONCE):
            self.client.log_batch(run.info.run_id, params=settings[first : first + AT_ONCE])
        run_dir.write_json(file, {"uri": uri, "run_id": run.info.run_id})
        return str(run.info.run_id), {}

    def __call__(self, row: Row) -> None:
        step, split = int(row["step"]), str(row["split"])
        if step <= self.had[split]:
            return
        now = int(time.time() * 1000)
        values = [Metric(_name(k), float(v), now, step) for k, v in numbers(row).items()]
        seen = RunTag(f"tlrun.{split}_step", str(step))
        self.client.log_batch(self.id, metrics=values, tags=[seen])

    def summary(self, figures: Mapping[str, float]) -> None:
        now, step = int(time.time() * 1000), int(figures.get("steps", 0))
        values = [Metric(_name(f"summary/{k}"), float(v), now, step) for k, v in figures.items()]
        self.client.log_batch(self.id, metrics=values)
        self.client.set_terminated(self.id, "FINISHED")

    def close(self) -> None:
        if self.client.get_run(self.id).info.status == "RUNNING":  # stopped, or not yet tested
            self.client.set_terminated(self.id, "KILLED")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _name(key: str) -> str:
    """In the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /]", "_", key)


@contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    with file_lock(folder / ".mlflow.lock"):
        yield


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        raise RunError(
            f"logger=mlflow cannot open {uri} ({type(error).__name__}: {why}): give another "
            "logger.folder or logger.uri, or logger=none"
        ) from error
