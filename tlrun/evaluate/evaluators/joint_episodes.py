"""Base and novel classes in one classifier: accuracy among all of them, for the queries of either.

    few_shot/5way_1shot_joint_base/accuracy     queries of base classes, held back from training
    few_shot/5way_1shot_joint_novel/accuracy    queries of the episode's novel classes
    few_shot/5way_1shot_joint_both/accuracy     all of them, as many of either
    few_shot/5way_1shot_joint/harmonic_mean     of base and novel in an episode, then the mean

Hariharan and Girshick, "Low-shot Visual Recognition by Shrinking and Hallucinating Features", ICCV
2017; episodes as Gidaris and Komodakis, "Dynamic Few-Shot Visual Learning without Forgetting", CVPR
2018, have them, whose "both" this is. A base class is represented by what training left
(`FewShot.base_prototypes`), a novel one by its support.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.problems.episodes import ClassTable, labels_of
from tlrun.data.problems.label_space import Shape
from tlrun.evaluate.figures import ACCURACY, Kind
from tlrun.methods.few_shot.episodic import FewShot
from tlrun.models.net import Net

BASE_IMAGES = 100  # of each base class, at most, that make up its prototype
HARMONIC = Kind("harmonic mean of base and novel", "share")
KINDS = {
    "_base/accuracy": ACCURACY,
    "_novel/accuracy": ACCURACY,
    "_both/accuracy": ACCURACY,
    "/harmonic_mean": HARMONIC,
}


@dataclass
class BaseClasses:
    """What the base classes bring. prototypes: (B, D); queries: features (n, D) of held-back
    images, with their labels (n,)."""

    prototypes: Tensor
    queries: Tensor
    labels: Tensor


def representative(examples: ImageSet) -> ImageSet:
    """At most BASE_IMAGES seeded images of each class."""
    assert examples.labels is not None
    labels = examples.labels.cpu()
    rows = [
        of_class[permutation(len(of_class), "prototype", int(k))[:BASE_IMAGES]]
        for k in labels.unique()
        for of_class in [(labels == k).nonzero().flatten()]
    ]
    return examples.subset(torch.cat(rows))


def joint_accuracies(
    method: FewShot,
    net: Net,
    base: BaseClasses,
    novel: Tensor,
    table: ClassTable,
    episodes: range,
    at_once: int,
) -> dict[str, Tensor]:
    """{end of the figure's key: (E,) float64} of episodes of the table. novel: (n, D) features."""
    blocks = [
        _block(method, net, base, novel, table, episodes[i : i + at_once])
        for i in range(0, len(episodes), at_once)
    ]
    return {key: torch.cat([block[key] for block in blocks]) for key in KINDS}


def _block(
    method: FewShot, net: Net, base: BaseClasses, novel: Tensor, table: ClassTable, episodes: range
) -> dict[str, Tensor]:
    shape = table.shape
    drawn = torch.stack([table.draw("test", "target_test", i) for i in episodes])
    support, query = drawn[:, :, : shape.shot].flatten(1), drawn[:, :, shape.shot :].flatten(1)
    known = torch.stack([*_base_queries(len(base.labels), query.shape[1], episodes)])
    y = labels_of(shape.way, shape.shot, novel.device)
    asked = torch.cat([novel[query], base.queries[known]], dim=1)
    scores = method.joint_scores(net, asked, novel[support], y, base.prototypes)
    guesses = scores.argmax(2).cpu()
    truth = labels_of(shape.way, shape.query) + len(base.prototypes)
    truth = torch.cat([truth.expand(len(drawn), -1), base.labels.cpu()[known]], dim=1)
    right = (guesses == truth).double()
    of_novel, of_base = right[:, : query.shape[1]].mean(1), right[:, query.shape[1] :].mean(1)
    together = (of_base + of_novel).clamp_min(1e-12)
    values = (of_base, of_novel, right.mean(1), 2 * of_base * of_novel / together)
    return dict(zip(KINDS, values, strict=True))


def _base_queries(available: int, count: int, episodes: range) -> Iterator[Tensor]:
    """For each episode `count` held-back images of base classes, or all if there are fewer."""
    for number in episodes:
        yield permutation(available, "base queries", number)[:count]


def setting(shape: Shape) -> str:
    """The name of an episode's figures: "5way_1shot"."""
    return f"{shape.way}way_{shape.shot}shot"
