"""Methods with several updates a step, trained by hand as the engine does it, on one batch."""

from __future__ import annotations

import torch

from helpers import small
from tlrun.data.pipeline.streams import Batch
from tlrun.methods.base import Phase, Progress

MIDDLE = Progress(step=50, total=100)
ONLY = Phase()
LAMBDA = 2 / (1 + torch.exp(torch.tensor(-5.0))) - 1  # at MIDDLE


def train(method, net, batch, steps=40, lr=0.01, phase=ONLY):
    """Take `steps` steps of Adam, each update on its own parts; returns the net in train mode."""
    optimizer = torch.optim.Adam(net.train().parameters(), lr)
    for step in range(steps):
        for update in method.step(net, batch, phase, Progress(step, steps)):
            apply(update, net, optimizer)
    return net


def apply(update, net, optimizer):
    """One step of the optimizer on the losses of an update, for the parts that it names."""
    optimizer.zero_grad(set_to_none=True)
    parameters = list(net.parameters_of(update.parts))
    sum(update.losses.values()).backward(inputs=parameters)
    optimizer.step()


def moves(method, net, batch) -> list[set[str]]:
    """For each update of a step: the parts whose parameters an optimizer step on it changes."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    changed_parts = []
    for update in method.step(net, batch, Phase(), MIDDLE):
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        apply(update, net, optimizer)
        changed = {n for n, p in net.named_parameters() if not torch.equal(p, before[n])}
        changed_parts.append({name.split(".")[1] for name in changed})  # parts.<part>.<parameter>
    return changed_parts


def gradients(objective, module):
    """Of the objective by each parameter of the module; 0 where it does not depend on it."""
    parameters = list(module.parameters())
    grads = torch.autograd.grad(objective, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)]


def assert_gradients(net, expected):
    """Those that backward left in `net` are `expected`: {part: gradients of its parameters}."""
    for part, wanted in expected.items():
        for parameter, gradient in zip(net[part].parameters(), wanted, strict=True):
            ours = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            assert torch.allclose(ours, gradient, atol=1e-5), part


def features_of_both(net, batch, mode):
    """(B, D) of source and target: one pass under `joint`, else a pass each."""
    images = [batch[name].x for name in ("source", "target")]
    if mode == "joint":
        return net.features(torch.cat(images)).split(len(images[0]))
    return [net.features(x) for x in images]


@torch.no_grad()
def gap(source, target) -> float:
    """Distance of the means of two sets of features (B, D), relative to their spread."""
    spread = torch.cat([source - source.mean(0), target - target.mean(0)]).norm(dim=1).mean()
    return float((source.mean(0) - target.mean(0)).norm() / spread)


def shifted(size=16, names=("source", "target")):
    """Images whose brightness by quarter says the class; domain i has i more in one channel."""
    generator = torch.Generator().manual_seed(3)
    batches = {}
    for i, name in enumerate(names):
        y = torch.arange(size) % small.CLASSES
        x = 0.3 * torch.randn(size, 3, 16, 16, generator=generator)
        for image, label in zip(x, y.tolist(), strict=True):
            top, left = 8 * (label // 2), 8 * (label % 2)
            image[:, top : top + 8, left : left + 8] += 1.0
        x[:, 0] += i
        batches[name] = Batch(x, None if name == "target" else y, torch.arange(size))
    return batches
