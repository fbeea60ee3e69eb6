"""Small things to test methods and the engine on: a net, a batch, a session on bundled digits."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import DictConfig

from tlrun.config.build import build, plain
from tlrun.config.compose import compose
from tlrun.data.pipeline.streams import Batch
from tlrun.experiment.assemble import open_session
from tlrun.experiment.auto import resolve_auto
from tlrun.experiment.session import Session
from tlrun.models.backbones import DannCNN
from tlrun.models.batch_norm import convert
from tlrun.models.net import Net
from tlrun.run_folder.run_dir import RunDir

CLASSES = 4


def net(head=None, **backbone) -> Net:
    """A narrow DANN net for RGB images of 16 pixels, without a method's parts."""
    torch.manual_seed(0)
    return Net(
        DannCNN((3, 16, 16), width=0.1, **backbone), (3, 16, 16), head=head or {"hidden": [8]}
    )


def batch(*domains: str, size: int = 8) -> dict[str, Batch]:
    """`size` random images of each domain, by default source and target; the source has labels."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: Batch(
            torch.randn(size, 3, 16, 16, generator=generator) + i,
            torch.randint(CLASSES, (size,), generator=generator) if name == "source" else None,
            torch.arange(size),
        )
        for i, name in enumerate(domains or ("source", "target"))
    }


def built(method, net_: Net) -> Net:
    """The net with the parts that the method adds for its phases, in train mode."""
    classes = tuple("abcd")
    data = SimpleNamespace(num_classes=CLASSES, classes=classes, source_classes=classes)
    for phase in method.phases(data):
        method.build(phase, net_, data)
        convert(net_, method.batch_norm)
    return net_.train()


def session(folder: Path, *overrides: str) -> Session:
    """What a few steps on the bundled digits need, with a narrow net; nothing is trained yet."""
    cfg = composed(*overrides)
    run_dir = RunDir.create(folder)
    run_dir.checkpoints.mkdir()
    return open_session(run_dir, plain(resolve_auto(cfg)))


def composed(*overrides: str) -> DictConfig:
    """The configuration of `session`: what was composed before is copied, a tenth of the work."""
    return copy.deepcopy(_composed(Path.cwd(), overrides))


@lru_cache(maxsize=128)
def _composed(working_folder: Path, overrides: tuple[str, ...]) -> DictConfig:
    return compose([*QUICK, *overrides])


QUICK = (
    "trainer.steps=6",
    "trainer.batch_size=8",
    "trainer.eval_every=3",
    "trainer.log_every=2",
    "trainer.threads=1",
    "trainer.precision=fp32",
    "trainer.features_cache_gb=0",
    "backbone.width=0.1",
    "baseline=false",
    "logger=none",
)


def configured(kind: type, group: str = "method", **arguments: Any) -> Any:
    """What a configuration with these arguments builds: they are checked against the signature."""
    return build({"_target_": f"{kind.__module__}.{kind.__qualname__}", **arguments}, group)
