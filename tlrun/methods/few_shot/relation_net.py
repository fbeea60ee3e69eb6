"""Relation networks: how alike a query and a class are is itself learned.

    r_k = g( [ Σ_i f(x_i) over the support of class k , f(x) ] )      maps, one above the other
    min over f, g: E_episodes [ Σ_k (σ(r_k) − 1[y = k])² ] over the queries

Sung, Yang, Zhang, Xiang, Torr, Hospedales, "Learning to Compare: Relation Network for Few-Shot
Learning", CVPR 2018. Omniglot: 99.6 / 99.8 % in 5-way 1-shot / 5-shot. g: two blocks of conv3x3-64,
batch norm, ReLU and (on maps of at least 2x2) pool, then fully connected layers of 8 and 1. It
looks at maps, so let the backbone keep some: `backbone=conv4 backbone.pools=2`. Batch norm of g:
statistics of the pairs of an episode in training, running ones afterwards.
x: (E way (shot + query), C, H, W), episode after episode; r: (E, Q, way).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlrun.config.ranges import Width
from tlrun.data.problems.pair import Data
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.few_shot.episodic import FewShot, share_right
from tlrun.models.net import Net


class Relation(nn.Module):
    """g: pairs of maps (n, 2 C, H, W) -> (n,), before the sigmoid. hidden: its channels."""

    def __init__(self, shape: tuple[int, int, int], hidden: int) -> None:
        super().__init__()
        channels, height, width = shape
        layers: list[nn.Module] = []
        for count in (2 * channels, hidden):
            layers += [nn.Conv2d(count, hidden, 3, padding=1), nn.BatchNorm2d(hidden), nn.ReLU()]
            if min(height, width) >= 2:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
        layers += [nn.Flatten(), nn.Linear(hidden * height * width, 8), nn.ReLU(), nn.Linear(8, 1)]
        self.layers = nn.Sequential(*layers)
        self.shape = shape

    def forward(self, query: Tensor, classes: Tensor) -> Tensor:
        """query: (Q, D), classes: (K, D) -> (Q, K)."""
        maps = query.unflatten(1, self.shape), classes.unflatten(1, self.shape)
        size = (len(query), len(classes))
        pairs = torch.cat(
            [
                maps[0][:, None].expand(*size, *self.shape),
                maps[1][None].expand(*size, *self.shape),
            ],
            dim=2,
        )
        out: Tensor = self.layers(pairs.flatten(0, 1))
        return out.view(size)


class RelationNet(FewShot):
    """hidden: channels of g."""

    needs_images = False

    def __init__(self, hidden: Width = 64) -> None:
        self.hidden = hidden

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("relation", Relation(map_shape(net), self.hidden))

    def classify(self, net: Net, query: Tensor, support: Tensor, y: Tensor) -> Tensor:
        member = F.one_hot(y).to(support.dtype)
        sums = torch.einsum("mk,emd->ekd", member, support)
        # one episode at a time: all pairs of maps of several would not fit into memory
        scores = [net["relation"](q, s) for q, s in zip(query, sums, strict=True)]
        return torch.stack(scores)

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        scores, target = self.episode_scores(net, batch["source"])
        wanted = F.one_hot(target, scores.shape[1]).to(scores.dtype)
        loss = (scores.sigmoid() - wanted).square().sum(1).mean()
        yield Update({"relation": loss}, metrics={"accuracy": share_right(scores, target)})


def map_shape(net: Net) -> tuple[int, int, int]:
    """(C, H, W) of the backbone's last stage, if its features are that map; else (D, 1, 1)."""
    stage = net.path("backbone")[-1]
    probe = torch.zeros(2, *net.input_shape, device=next(net.parameters()).device)
    training = net.training
    net.eval()
    with torch.no_grad():
        found = net(probe, head=None, taps=(stage,)).taps[stage].shape[1:]
    net.train(training)
    if len(found) == 3 and prod(found) == net.feature_dim:
        return int(found[0]), int(found[1]), int(found[2])
    return net.feature_dim, 1, 1
