"""Makes what a complete run lacks, since a kill came before it was written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection

from tlrun.config.build import plain
from tlrun.config.saved import load_config
from tlrun.data.problems.label_space import LabelSpace
from tlrun.data.problems.trained import check_unchanged
from tlrun.experiment import lifecycle
from tlrun.experiment.assemble import open_session
from tlrun.experiment.baselines import is_baseline, train_baselines
from tlrun.experiment.limits import explain_limits
from tlrun.experiment.summary import conclude
from tlrun.run_folder.locks import locked
from tlrun.run_folder.record import logging_to
from tlrun.run_folder.run_dir import RunDir


def make_missing_files(run_dir: RunDir) -> None:
    """Write what a complete run lacks, and touch nothing else.

    Raises RunError if it cannot be made, since the checkpoints are gone.
    """
    with locked(run_dir), logging_to(run_dir), explain_limits(run_dir):
        missing = run_dir.missing(page=not is_baseline(run_dir))
        if lost := [name for name in missing if name != run_dir.report.name]:
            _conclude_again(run_dir, lost)
        if missing:
            lifecycle.show(run_dir)


def _conclude_again(run_dir: RunDir, lost: Collection[str]) -> None:
    """Conclude into a folder beside, and move what is lost (with a summary, all that it names)."""
    cfg = load_config(run_dir.config)
    session = open_session(run_dir, plain(cfg))
    if run_dir.label_space.name not in lost:
        check_unchanged(session.data, LabelSpace.from_json(run_dir.read_label_space()))
    session.build_all()
    with tempfile.TemporaryDirectory(prefix=".complete_", dir=run_dir.path) as folder:
        made = RunDir(folder)
        if run_dir.metrics.is_file():
            shutil.copy(run_dir.metrics, made.metrics)
        made.write_json(made.label_space, session.data.label_space.to_json())
        summary = conclude(session, made)
        if cfg.baseline:
            train_baselines(session, cfg, summary, lifecycle.execute, into=made)
        for name in {*lost, *(made.left() if run_dir.summary.name in lost else ())}:
            wanted = name in lost or not (run_dir.path / name).is_file()
            if wanted and (made.path / name).is_file():
                os.replace(made.path / name, run_dir.path / name)
