"""In a sweep with `baseline=true`, a model that is the baseline of several runs is trained once.

Runs that differ in their methods alone have the same baseline, and a job `source_only` of the sweep
is that model, too. What decides every bit is compared, and not what it is called: the resolved
configuration, data, initial weights, versions, code, processor and threads.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tlrun.config.hashes import config_hash, settings
from tlrun.errors import TlrunError
from tlrun.experiment.baselines import BASELINE, is_baseline
from tlrun.experiment.session import Session
from tlrun.experiment.summary import conclude, write_surroundings
from tlrun.files.locks import file_lock
from tlrun.files.yaml_file import read_yaml
from tlrun.run_folder.json_file import Damaged
from tlrun.run_folder.locks import Busy, locked
from tlrun.run_folder.run_dir import RunDir, is_sweep

log = logging.getLogger(__name__)

PLACES = ("*", f"*/{BASELINE}", f"*/{BASELINE}/*")  # of trained models in a sweep's folder
LOCKS = ".trainings"  # folder of a sweep: a lock for each model that several runs may ask for
DECISIVE = ("versions", "threads", "devices", "device", "data", "init")  # beside code and processor


@contextmanager
def shared_training(session: Session, asked: bool) -> Iterator[dict[str, Any] | None]:
    """The summary of the same model, taken from another run of the sweep; None: train it inside.

    asked: whether the run's command asks for baselines. One process at a time trains a model: who
    comes later waits for it and takes it. The kernel ends the lock when that process dies, and
    nobody who holds one waits for another.
    """
    sweep = _sweep_around(session.run_dir)
    is_shared = (asked or is_baseline(session.run_dir)) and not session.cfg["baseline"]
    if sweep is None or not is_shared or _leaves_more(session) or _has_begun(session.run_dir):
        yield None
        return
    with _one_at_a_time(sweep / LOCKS, config_hash(session.cfg)):
        yield _take(session, sweep)


@contextmanager
def _one_at_a_time(folder: Path, model: str) -> Iterator[None]:
    """Wait for whoever trains the model; where the kernel frees no locks, all train it instead."""
    folder.mkdir(exist_ok=True)
    if not _kernel_frees_locks(folder):
        yield
        return
    with file_lock(folder / f"{model}.lock"):
        yield


def _kernel_frees_locks(folder: Path) -> bool:
    """Not on a file system without `flock`: there a lock is a file, which outlives a `kill -9`."""
    try:
        import fcntl  # not on Windows

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _sweep_around(run_dir: RunDir) -> Path | None:
    """The folder of the sweep that a job, or a baseline of a job, belongs to."""
    folders = run_dir.path.absolute().parents[:3]  # job, job/baseline, job/baseline/TASK
    return next((folder for folder in folders if is_sweep(folder)), None)


def _leaves_more(session: Session) -> bool:
    """Whether its training leaves something outside of the folder: then it is its own."""
    return bool(session.cfg["logger"]["name"] != "none")


def _has_begun(run_dir: RunDir) -> bool:
    return any((run_dir.checkpoints / f"{name}.pt").is_file() for name in ("last", "previous"))


def _take(session: Session, sweep: Path) -> dict[str, Any] | None:
    for trained in _with_hash(config_hash(session.cfg), session.run_dir, sweep):
        try:
            with locked(trained):
                if _is_equal(session, trained):
                    return _take_from(session, trained, sweep)
        except (Busy, Damaged, TlrunError, OSError) as error:
            log.info("%s is not shared: %s", trained.path, error)
    return None


def _with_hash(wanted: str, own: RunDir, sweep: Path) -> Iterator[RunDir]:
    """Trained models of the sweep whose configuration has this hash; it leaves out what is not of
    the experiment, such as the device, so more has to be compared."""
    for place in PLACES:
        for file in sorted(sweep.glob(f"{place}/{own.summary.name}")):
            trained = RunDir(file.parent)
            try:
                same = trained.read_summary().get("config_hash") == wanted
            except Damaged:
                continue
            if same and trained.path != own.path.absolute():
                yield trained


# ---- whether it is the same ---------------------------------------------------------------------


def _is_equal(session: Session, trained: RunDir) -> bool:
    """Whether training `session` would give the same bits; writes its environment.json."""
    whole = trained.read_status().get("state") == "completed" and not trained.missing(page=False)
    whole = whole and (trained.checkpoints / "last.pt").is_file()
    if not whole or (trained.path / BASELINE).exists():  # its summary says more
        return False
    own, theirs = (settings(read_yaml(run.config)) for run in (session.run_dir, trained))
    if own != theirs:
        return False
    write_surroundings(session)
    here, there = (run.read_json(run.environment) for run in (session.run_dir, trained))
    return "earlier" not in there and _decisive(here, there) == _decisive(there, here)


def _decisive(environment: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What of an environment decides bits. Own modules that only one process has loaded, such as
    another method, are none of this model's."""
    code, cpu = environment["code"], environment["cpu"]
    own = {name: digest for name, digest in code["own"].items() if name in other["code"]["own"]}
    return {
        **{key: environment.get(key) for key in DECISIVE},
        "code": (code["tlrun"], own),
        "cpu": (cpu["model"], cpu["capability"]),
    }


# ---- taking it ----------------------------------------------------------------------------------


def _take_from(session: Session, trained: RunDir, sweep: Path) -> dict[str, Any]:
    """Link what is only ever replaced, checkpoints and model; copy or make what else there is."""
    own = session.run_dir
    summary = trained.read_summary()
    origin = _origin(summary, trained, sweep, own)
    log.info("taken from %s, which trained the same model: %s", origin, own.path)
    copied = {trained.metrics.name, trained.transfer.name}
    if is_baseline(own):
        copied |= {trained.environment.name, trained.label_space.name, *summary["files"]}
        _link(trained.model, own.model)
    for name in copied - {own.images.name}:  # which a job has, and a baseline has not
        if (trained.path / name).is_file():
            shutil.copyfile(trained.path / name, own.path / name)
    _link_checkpoints(trained.checkpoints, own.checkpoints)
    if not is_baseline(own):
        session.build_all()
        summary = conclude(session)
    summary = {**summary, "files": own.left(), "taken_from": origin}
    own.write_json(own.summary, summary)
    return summary


def _origin(summary: Mapping[str, Any], trained: RunDir, sweep: Path, own: RunDir) -> str:
    """The folder of the sweep where it was trained; if that is gone, the one it is taken from."""
    origin = summary.get("taken_from")
    if origin and (sweep / origin).is_dir() and (sweep / origin) != own.path.absolute():
        return str(origin)
    return f"{trained.path.relative_to(sweep)}"


def _link_checkpoints(there: Path, here: Path) -> None:
    """All at once, so that a kill leaves none."""
    beside = here.with_name(f".{here.name}")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(there, beside, copy_function=_link)
    shutil.rmtree(here)  # of a run that has not begun
    os.replace(beside, here)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        Path(target).unlink(missing_ok=True)
        os.link(source, target)
    except OSError:  # a disk without links
        shutil.copyfile(source, target)
