"""`dry_run=true`: build all, print shapes, run one batch of each phase, leave nothing."""

from __future__ import annotations

import torch

from tlrun.engine.precision import autocast
from tlrun.methods.method import Progress, Term
from tlrun.session import Session


def dry_run(session: Session) -> None:
    """Print the roles, the table of parts and stages, and the losses of one batch."""
    data, net = session.data, session.net
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
    for phase in session.phases:
        session.method.build(phase, net, data)
        session.finish_build(net)
    print_parameters(session)
    # Those that start from carried weights have none here.
    terms = [term for term in session.terms.values() if type(term).start is Term.start]
    for phase in session.phases:
        steps = session.loop().total_steps(phase)
        if steps == 0:  # a closed form over the whole set: not the work of a dry run
            print(f"phase {phase.name}: no steps")
            continue
        session.method.build(phase, net, data)  # a method may know its phase by the last build
        session.method.start(phase, net, data)
        streams = session.loop().open_streams(phase)
        batch = {name: stream.batch(0) for name, stream in streams.items()}
        for name, drawn in batch.items():
            labels = "no labels" if drawn.y is None else f"y {tuple(drawn.y.shape)}"
            print(
                f"phase {phase.name}: stream {name}: "
                f"x {tuple(drawn.x.shape)} {drawn.x.dtype}, {labels}"
            )
        net.train()
        generator = session.method.step(net, batch, Progress(0, steps))
        while True:
            with autocast(session.precision, session.device):
                update = next(generator, None)
                if update is None:
                    break
                found = dict(update.losses)
                for term in terms if update.main and phase.terms else ():
                    found |= term.loss(update, net)
            torch.stack([loss.float() for loss in found.values()]).sum().backward()
            losses = ", ".join(f"{name} {loss.item():.4f}" for name, loss in found.items())
            print(f"phase {phase.name}: update of {', '.join(update.parts or net.parts)}: {losses}")
        for stream in streams.values():
            stream.close()
    print("dry run: all of it works; nothing was kept")


def print_parameters(session: Session) -> None:
    """A line per stage: name, parameters."""
    net = session.net
    stages = net.stages()
    width = max(len(name) for name in stages)
    for name in stages:
        count = sum(p.numel() for p in net.module_of(name).parameters())
        print(f"  {name:<{width}} {count:>12,}")
    print(f"  {'total':<{width}} {sum(p.numel() for p in net.parameters()):>12,}")
