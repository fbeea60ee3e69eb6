"""One run from its config to its report; the only module that sees all rooms.

    data -> model -> method -> fit -> evaluate -> summary -> report

`execute` does that for a run folder that holds a config.yaml; everything else here is a way to it.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import torch
from omegaconf import DictConfig, OmegaConf

from tlrun.config import build, compose, config_hash, load_config, plain
from tlrun.engine import checkpoint
from tlrun.engine.precision import resolve_device, resolve_precision
from tlrun.errors import ConfigError, DataError, Interrupted, RunError, TlrunError
from tlrun.run_dir import RunDir, collect_environment
from tlrun.session import Session, open_session

log = logging.getLogger(__name__)


def execute(path: Path) -> dict[str, Any]:
    """Train, evaluate and report the run whose config.yaml lies in `path`; returns its summary.

    Goes on from `checkpoints/last.pt` when there is one. Raises TlrunError (the status is
    "failed", "interrupted" by then) and whatever else goes wrong.
    """
    run_dir = RunDir.open(path)
    with _locked(run_dir), run_dir.logging(), _status(run_dir):
        cfg = resolve(load_config(run_dir.config))
        if cfg.dry_run:
            from tlrun.dry_run import dry_run

            dry_run(open_session(run_dir, plain(cfg)))
            shutil.rmtree(run_dir.path)
            return {}
        OmegaConf.save(cfg, run_dir.config)
        run_dir.checkpoints.mkdir(exist_ok=True)
        run_dir.set_status("running")
        session = train(run_dir, plain(cfg))
        summary = conclude(session)
        if cfg.baseline:
            run_baseline(run_dir, cfg)
            summary = conclude_with_baseline(run_dir, summary)
        from tlrun.report.page import write_report
        from tlrun.report.text import text_summary

        run_dir.set_status("completed", step=summary["steps"])
        write_report(run_dir.path)
        if run_dir.path.name != "baseline":
            log.info("%s", text_summary(run_dir.path))
    return summary


# ---- training -------------------------------------------------------------------------------


def train(run_dir: RunDir, cfg: dict[str, Any]) -> Session:
    """Fit in this process, or in `trainer.devices` workers; returns the session with the last weights."""
    session = open_session(run_dir, cfg)
    _write_descriptions(session)
    world = int(cfg["trainer"]["devices"])
    if world == 1:
        session.loop().fit()
        return session
    from tlrun.worker import launch

    launch(run_dir.path, world)
    session.build_all()
    return session


def train_worker(path: Path, rank: int, world: int) -> None:
    """What each of several processes does (see worker.py)."""
    run_dir = RunDir.open(path)
    with run_dir.logging() if rank == 0 else contextlib.nullcontext():
        session = open_session(run_dir, plain(load_config(run_dir.config)), rank, world)
        try:
            session.loop().fit()
        finally:
            session.process.leave()


# ---- evaluation and files -------------------------------------------------------------------


def conclude(session: Session) -> dict[str, Any]:
    """Evaluate the selected and the last weights on the test sets and write what the run leaves."""
    run_dir = session.run_dir
    last = checkpoint.load_last(run_dir.checkpoints)
    assert last is not None
    rows = [row for row in run_dir.read_metrics() if row.get("split") == "eval"]
    with torch.no_grad():
        session.load(last)
        last_figures, _ = session.evaluator.test(session.net)
        selected = session.load_selected()
        figures, found = session.evaluator.test(session.net)
    if "target_test" in found:
        session.evaluator.write_predictions(run_dir.predictions, found["target_test"])
    session.evaluator.write_features(run_dir.features, found)
    write_model(run_dir, session)
    summary = summarise(session, rows, last, {"step": selected["step"], **figures}, last_figures)
    run_dir.write_json(run_dir.summary, summary)
    return summary


def summarise(
    session: Session,
    rows: list[dict[str, Any]],
    last: dict[str, Any],
    selected: dict[str, Any],
    last_figures: dict[str, Any],
) -> dict[str, Any]:
    """summary.json: stable keys, other tools read them."""
    cfg, counters = session.cfg, last["counters"]
    oracle = session.choose(rows, "oracle")
    seconds = float(counters["train_seconds"])
    return {
        "schema": 1,
        "status": "completed",
        "method": cfg["choices"]["method"],
        "data": cfg["data"]["name"],
        "backbone": cfg["backbone"]["name"],
        "seed": cfg["seed"],
        "steps": last["step"],
        "updates": counters["updates"],
        "images_seen": counters["images_seen"],
        "config_hash": config_hash(cfg),
        "target_labels_seen": session.data.target_labels_seen,
        "selection_rule": cfg["select"]["name"],
        "selection_saw_target_labels": cfg["select"]["name"] == "oracle",
        "selected": selected,
        "last": {"step": last["step"], **last_figures},
        "oracle": {
            "step": oracle["step"] if oracle else None,
            "target_test/accuracy": oracle["oracle/target_test_accuracy"] if oracle else None,
        },
        "parameters": sum(p.numel() for p in session.net.parameters()),
        "train_seconds": round(seconds, 2),
        "images_per_second": round(counters["images_seen"] / max(seconds, 1e-9), 1),
        "peak_memory_mb": peak_memory_mb(session.device),
    }


def write_model(run_dir: RunDir, session: Session) -> None:
    """model.safetensors: the loaded weights, for use elsewhere."""
    from safetensors.torch import save

    from tlrun.run_dir import write_atomic

    state = {
        f"{name}.{key}": value.detach().cpu().contiguous().clone()
        for name, part in session.net.parts.items()
        for key, value in part.state_dict().items()
    }
    write_atomic(run_dir.model, save(state, metadata={"format": "pt", "tlrun": config_hash(session.cfg)}))


def _write_descriptions(session: Session) -> None:
    """What predict and a reader need to know of data and machine, before training starts."""
    run_dir = session.run_dir
    run_dir.write_json(run_dir.label_space, session.data.label_space())
    run_dir.write_json(run_dir.environment, collect_environment(session.data.info()))


def peak_memory_mb(device: torch.device) -> float:
    """GPU: largest allocation. CPU: largest resident size of this process so far."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


# ---- the source-only model beside an adapted one ----------------------------------------------


def run_baseline(run_dir: RunDir, cfg: DictConfig) -> None:
    """Train `source_only` with the same net, augmentation and number of steps in RUN_DIR/baseline."""
    folder = run_dir.path / "baseline"
    if RunDir(folder).read_status().get("state") == "completed":
        return
    other = cfg.copy()
    OmegaConf.set_struct(other, False)
    plainest = compose(["method=source_only"])
    other.method, other.choices.method = plainest.method, "source_only"
    other.baseline, other.phases, other.batch_norm, other.target_labels = False, {}, "auto", "auto"
    other.terms = {}
    folder.mkdir(exist_ok=True)
    OmegaConf.save(other, folder / "config.yaml")
    log.info("before adaptation: training source_only with the same budget (baseline=false leaves it out)")
    execute(folder)


def conclude_with_baseline(run_dir: RunDir, summary: dict[str, Any]) -> dict[str, Any]:
    """Add the source-only model's figures to the summary, as "before"."""
    before = RunDir(run_dir.path / "baseline")
    summary = {**summary, "before": before.read_json(before.summary)["selected"]}
    run_dir.write_json(run_dir.summary, summary)
    return summary


# ---- other ways to run --------------------------------------------------------------------------


def resolve(cfg: DictConfig) -> DictConfig:
    """Replace `auto` by what it means here, so that the saved config says what was run."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    device = resolve_device(str(cfg.trainer.device))
    cfg.trainer.precision = resolve_precision(str(cfg.trainer.precision), device)
    if cfg.trainer.threads == "auto":
        cfg.trainer.threads = torch.get_num_threads()
    if cfg.baseline == "auto":
        # "before adaptation" costs about half as much again, so only methods that adapt are shown beside it
        needs = build(cfg.method).needs
        cfg.baseline = "target" in needs.streams and cfg.target_labels in ("auto", "none") and needs.target_labels == "none"
    return cfg


def run(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None) -> dict[str, Any]:
    """`tlrun` for notebooks: run(["method=dann", "data=digits_digitsm"]) -> summary.

    The run folder is named in the summary's "run_dir". Raises TlrunError.
    """
    from hydra.core.utils import setup_globals

    setup_globals()
    cfg = compose(overrides, config_dir=config_dir, keep_hydra=True)
    path = Path(str(cfg.hydra.run.dir))
    return start(cfg, path, overrides)


def start(cfg: DictConfig, path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Claim a run folder, write its config and execute it."""
    run_dir = RunDir.create(path)
    job = cfg.copy()
    OmegaConf.set_struct(job, False)
    job.pop("hydra", None)
    OmegaConf.save(job, run_dir.config)
    OmegaConf.save(OmegaConf.create(list(overrides)), run_dir.overrides)
    return {**execute(run_dir.path), "run_dir": str(run_dir.path)}


def resume(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Go on with an interrupted run (or a sweep's unfinished jobs) exactly where it stopped."""
    path = Path(path)
    if not (path / "config.yaml").exists():
        from tlrun.run_dir import runs_in

        jobs = runs_in(path) if path.is_dir() else []
        if not jobs:
            raise ConfigError(f"{path} holds no run to resume; give a run folder, or a sweep folder")
        return {job.name: resume(job, overrides) for job in jobs}
    run_dir = RunDir.open(path)
    saved = checkpoint.load_last(run_dir.checkpoints) if run_dir.checkpoints.is_dir() else None
    cfg = load_config(run_dir.config, list(overrides))
    done = run_dir.read_status().get("state") == "completed"
    if done and not overrides:
        log.warning("%s is complete; nothing to resume", path)
        return dict(run_dir.read_json(run_dir.summary))
    if saved is not None:
        refuse_changes(saved["config"], plain(cfg))
    if overrides:
        run_dir.set_status("interrupted", resumed_with=list(overrides))
        OmegaConf.save(cfg, run_dir.config)
    return execute(path)


LONGER = ("trainer.steps", "trainer.epochs")


def refuse_changes(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ConfigError with a diff when a config changed in a way that would alter the run.

    Log cadence and the like may change, and training may become longer: λ and lr follow the new total.
    """
    if config_hash(before) == config_hash(now):
        return
    changed = dict(differences(before, now))
    allowed = {key for key in LONGER if key in changed and _grows(*changed[key])}
    rest = {key: values for key, values in changed.items() if key not in allowed}
    if config_hash(_with(before, {key: changed[key][1] for key in allowed})) != config_hash(now):
        listed = "; ".join(f"{key}: {a} -> {b}" for key, (a, b) in sorted(rest.items()))
        raise ConfigError(f"the config differs from the one this run began with ({listed}); start a new run for that")


def differences(a: Any, b: Any, prefix: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(dotted key, (value in a, value in b)) wherever two nested configs differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {**a, **b}:
            yield from differences(a.get(key), b.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif a != b:
        yield prefix, (a, b)


def _grows(a: Any, b: Any) -> bool:
    return a is not None and b is not None and b >= a


def _with(cfg: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    changed = OmegaConf.create(cfg)
    for key, value in values.items():
        OmegaConf.update(changed, key, value)
    return plain(changed)  # type: ignore[no-any-return]


@contextlib.contextmanager
def _locked(run_dir: RunDir) -> Iterator[None]:
    """One process per run folder."""
    lock = filelock.FileLock(run_dir.path / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise RunError(f"another process is working on {run_dir.path}; wait for it or stop it") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _status(run_dir: RunDir) -> Iterator[None]:
    """Write how the run ended, whatever ends it; turn out-of-memory into a sentence."""
    try:
        yield
    except Interrupted as error:
        run_dir.set_status("interrupted", error=str(error))
        raise
    except KeyboardInterrupt:
        run_dir.set_status("interrupted", error="Ctrl-C")
        raise Interrupted(f"stopped; go on with: tlrun resume {run_dir.path}", 130) from None
    except (ConfigError, DataError, RunError, TlrunError) as error:
        run_dir.set_status("failed", error=str(error))
        raise
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
            message = "out of memory: try a smaller trainer.batch_size, or trainer.accumulate=2 (same result, less memory)"
            run_dir.set_status("failed", error=message)
            raise RunError(message) from error
        run_dir.set_status("failed", error=f"{type(error).__name__}: {error}")
        log.debug("%s", traceback.format_exc())
        raise
