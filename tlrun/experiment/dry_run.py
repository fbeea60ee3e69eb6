"""`dry_run=true`: print shapes, take one real step of each phase, leave nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tlrun.data.pipeline.streams import Batch
from tlrun.engine.durations import total_steps
from tlrun.engine.hooks import Hooks
from tlrun.experiment.checks import check_phases
from tlrun.experiment.session import Session
from tlrun.run_folder.run_dir import RunDir


def dry_run(session: Session) -> None:
    """Print the roles, the losses of one step of each phase, and the table of parts and stages."""
    check_phases(session)
    data = session.data
    for domain, roles in data.domains.items():
        sizes = ", ".join(
            f"{split} {len(examples)}"
            for split in ("train", "val", "test")
            if (examples := getattr(roles, split)) is not None
        )
        print(f"{domain:<8} {roles.name}: {sizes}")
    print(
        f"input    {tuple(data.input_shape)}, {data.num_classes} classes, "
        f"{session.precision} on {session.device}"
    )
    with TemporaryDirectory() as folder:
        rehearse(session, Path(folder))
    print_parameters(session)
    print("dry run: all of it works; nothing was kept")


def rehearse(session: Session, folder: Path) -> None:
    """Train one step of each phase, without evaluations: what a run would refuse is refused now."""
    trainer_cfg = session.cfg["trainer"]
    steps = [total_steps(phase, trainer_cfg, session.data) for phase in session.phases]
    phases = list(session.phases)
    while phases and steps[len(phases) - 1] == 0:  # a closed form: not the work of a dry run
        print(f"phase {phases.pop().name}: no steps")
    if not phases:
        return
    phases = [replace(phase, steps=min(1, n)) for phase, n in zip(phases, steps, strict=False)]
    cfg = {**session.cfg, "logger": {"name": "none"}, "trainer": {**trainer_cfg, "log_every": 1}}
    short = replace(session, cfg=cfg, run_dir=RunDir(folder), phases=phases)
    short.run_dir.checkpoints.mkdir()
    batches: dict[str, Mapping[str, Batch]] = {}
    hooks = Hooks(before_step=lambda step: batches.update({step.phase.name: step.batch}))
    short.trainer(hooks, evaluates=False).fit()
    rows = {row["phase"]: row for row in short.run_dir.read_metrics()}
    for phase in phases:
        print_batch(phase.name, batches.get(phase.name, {}))
        losses = [
            f"{key.removeprefix('loss/')} {value:.4f}"
            for key, value in rows.get(phase.name, {}).items()
            if key.startswith("loss/")
        ]
        print(f"phase {phase.name}: {', '.join(losses) or 'no steps'}")


def print_batch(phase: str, batch: Mapping[str, Batch]) -> None:
    """A line per stream: shapes and type."""
    for name, drawn in batch.items():
        labels = "no labels" if drawn.y is None else f"y {tuple(drawn.y.shape)}"
        print(f"phase {phase}: stream {name}: x {tuple(drawn.x.shape)} {drawn.x.dtype}, {labels}")


def print_parameters(session: Session) -> None:
    """A line per stage: name, parameters."""
    net = session.net
    stages = net.stages()
    width = max(len(name) for name in stages)
    for name in stages:
        count = sum(p.numel() for p in net.module_of(name).parameters())
        print(f"  {name:<{width}} {count:>12,}")
    print(f"  {'total':<{width}} {sum(p.numel() for p in net.parameters()):>12,}")
