"""`dry_run=true`: print shapes, take one real step of each phase, leave nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tlrun.experiment.session import Session
from tlrun.run_folder.run_dir import RunDir


def dry_run(session: Session) -> None:
    """Print the roles, the losses of one step of each phase, and the table of parts and stages."""
    data = session.data
    for domain, roles in data.domains.items():
        sizes = ", ".join(
            f"{split} {len(found)}"
            for split in ("train", "val", "test")
            if (found := getattr(roles, split)) is not None
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
    """Run the loop itself for a step of each phase, without evaluations, so that it refuses what a
    run would refuse."""
    planned = session.loop()
    steps = [planned.total_steps(phase) for phase in session.phases]
    phases = list(session.phases)
    while phases and steps[len(phases) - 1] == 0:  # a closed form: not the work of a dry run
        print(f"phase {phases.pop().name}: no steps")
    phases = [replace(phase, steps=min(1, n)) for phase, n in zip(phases, steps, strict=False)]
    cfg = copy.deepcopy(session.cfg)
    cfg["logger"] = {"name": "none"}
    cfg["trainer"]["log_every"] = 1
    short = replace(session, cfg=cfg, run_dir=RunDir(folder), phases=phases)
    short.run_dir.checkpoints.mkdir()
    loop = short.loop()
    loop.evaluate = dict  # no figures
    loop.record.eval_row = lambda row, *, quiet: None  # type: ignore[method-assign]
    loop.fit()
    rows = short.run_dir.read_metrics()
    for phase in phases:
        for name, stream in loop.open_streams(phase).items():
            drawn = stream.batch(0)
            stream.close()
            labels = "no labels" if drawn.y is None else f"y {tuple(drawn.y.shape)}"
            print(
                f"phase {phase.name}: stream {name}: "
                f"x {tuple(drawn.x.shape)} {drawn.x.dtype}, {labels}"
            )
        losses = {
            key.removeprefix("loss/"): value
            for row in rows
            for key, value in row.items()
            if row.get("phase") == phase.name and key.startswith("loss/")
        }
        told = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        print(f"phase {phase.name}: {told or 'no steps'}")


def print_parameters(session: Session) -> None:
    """A line per stage: name, parameters."""
    net = session.net
    stages = net.stages()
    width = max(len(name) for name in stages)
    for name in stages:
        count = sum(p.numel() for p in net.module_of(name).parameters())
        print(f"  {name:<{width}} {count:>12,}")
    print(f"  {'total':<{width}} {sum(p.numel() for p in net.parameters()):>12,}")
