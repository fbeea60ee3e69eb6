"""`logger=wandb`: Weights & Biases, offline unless asked (`logger.mode=online`).

Offline, all lies in RUN_DIR/wandb, and `wandb sync RUN_DIR/wandb/offline-run-*` sends it. Every
opening writes that folder anew from metrics.jsonl, so after a resume no step is there twice.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # before the import: nothing leaves here
os.environ.setdefault("WANDB_SILENT", "true")

import wandb

from tlrun.config.build import plain
from tlrun.config.saved import load_config
from tlrun.errors import ConfigError, RunError
from tlrun.files.atomic import write_atomic
from tlrun.loggers.base import Logger, Row, numbers, sweep_of, title
from tlrun.run_folder.run_dir import RunDir


class WeightsAndBiases(Logger):
    """cfg: mode, project, entity. The run is called by its folder and grouped by its sweep."""

    def __init__(self, cfg: Mapping[str, Any], run_dir: RunDir) -> None:
        offline = cfg["mode"] == "offline"
        folder = run_dir.path.absolute() / "wandb"
        folder.mkdir(exist_ok=True)
        wandb.finish()  # what is open in this process writes until then, perhaps into that folder
        for old in folder.glob("offline-run-*") if offline else ():
            shutil.rmtree(old)
        config = plain(load_config(run_dir.config)) if run_dir.config.is_file() else {}
        with _connecting():
            self.run = wandb.init(
                project=cfg["project"],
                entity=cfg["entity"],
                name=title(run_dir),
                group=sweep_of(run_dir),
                tags=list(map(str, config.get("tags") or ())),
                config=config,
                id=_id_in(folder),
                dir=str(folder.parent),
                mode="offline" if offline else "online",
                resume=None if offline else "allow",  # the server drops steps that it has
                reinit="finish_previous",
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    disable_git=True,
                    disable_code=True,
                    x_disable_stats=True,
                ),
            )
        for row in run_dir.read_metrics() if offline else ():
            self(row)

    def __call__(self, row: Row) -> None:
        self.run.log(numbers(row), step=row["step"])

    def summary(self, figures: Mapping[str, float]) -> None:
        self.run.summary.update(dict(figures))

    def close(self) -> None:
        self.run.finish()


def _id_in(folder: Path) -> str:
    """One for all parts of a run."""
    file = folder / "run_id"
    if not file.is_file():
        write_atomic(file, uuid.uuid4().hex[:12])
    return file.read_text(encoding="utf-8").strip()


@contextmanager
def _connecting() -> Iterator[None]:
    """Without a terminal to ask for a key at; what is wrong becomes one sentence."""
    stdin = sys.stdin
    with open(os.devnull, encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        except wandb.errors.UsageError as error:
            raise ConfigError(
                f"logger=wandb: {error} Or log without an account, logger.mode=offline"
            ) from error
        except wandb.errors.CommError as error:
            raise RunError(
                "logger=wandb cannot reach its server: choose logger.mode=offline, and send the "
                f"run later with `wandb sync` ({str(error).splitlines()[0][:200]})"
            ) from error
        finally:
            sys.stdin = stdin
