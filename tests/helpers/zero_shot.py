"""Small zero-shot data on ready features, and a net that passes them on."""

from __future__ import annotations

import numpy as np
import torch

from tlrun.data.examples.attribute_table import Table
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Card
from tlrun.data.problems.pair import Data
from tlrun.data.problems.zero_shot import assemble
from tlrun.models.backbones import MLP
from tlrun.models.net import Net

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen")
GROUPS = {
    "training": ["ant", "cat", "elk", "gnu"],
    "validation": ["bee", "hen"],
    "unseen": ["dog", "fox"],
}
EVERY = {"training": list(CLASSES), "validation": [], "unseen": []}
NO_VALIDATION = {"training": list(CLASSES[:6]), "validation": [], "unseen": ["gnu", "hen"]}


def data(
    noise: float = 0.3,
    missing: bool = False,
    attributes: int = 6,
    groups=GROUPS,
    leave_out=0,
    **more,
) -> Data:
    """40 examples a class of 10 features, a noisy linear map of 6 attributes."""
    draws = np.random.default_rng(3)
    rows = (draws.random((len(CLASSES), attributes)) > 0.5) * 0.9 + 0.05
    rows[:, 0] = 0.5  # an attribute that is the same for all
    label = np.arange(40 * len(CLASSES)) % len(CLASSES)
    x = (rows - 0.5)[label] @ draws.standard_normal((attributes, 10))
    x = torch.from_numpy((x + noise * draws.standard_normal(x.shape)).astype(np.float32))
    values = rows.copy()
    if missing:
        values[1, 2] = values[4, 3] = np.nan
    examples = ImageSet("zoo", x, torch.from_numpy(label), CLASSES)
    half = torch.arange(len(label)) < len(label) // 2
    train, test = (examples.subset(torch.nonzero(m).flatten()) for m in (half, ~half))
    table = Table(CLASSES, tuple(f"a{k}" for k in range(attributes)), values)
    conf = {"normalize": "none", **more}
    sets = {"train": train, "seen": test, "unseen": test}
    return assemble(
        "zoo",
        table,
        groups,
        sets,
        Card("zoo", "", ""),
        seed=0,
        gamma=None,
        leave_out=leave_out,
        conf=conf,
    )


def built(method, data_: Data) -> Net:
    """The net of all phases, started; nothing trained."""
    torch.manual_seed(0)
    net = Net(MLP((10,), hidden=()), (10,), head={"hidden": []})
    for phase in method.phases(data_):
        method.build(phase, net, data_)
        method.start(phase, net, data_)
    return net.eval()


def train_arrays(data_: Data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X (N, D), y (N,), and the table (C, A) of all classes, for numpy."""
    examples = data_.role("source_train")
    x = examples.read(torch.arange(len(examples))).double().numpy()
    rows = np.array([[np.nan if v is None else v for v in r] for r in data_.facts.attributes])
    return x, examples.labels.numpy(), rows
