"""What the methods for episodes share: the stream, the support, scores from features.

A method that embeds each image by itself and then compares writes `classify`; since its features do
not depend on the episode, the evaluator computes those of all novel images once. One that adapts
the net to the support (MAML) writes `predict`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from tlrun.data.problems.episodes import EpisodeBatch, EpisodeStream, labels_of, split
from tlrun.data.problems.label_space import EpisodeFacts, facts_as
from tlrun.fp32 import in_fp32
from tlrun.methods.base import Batches, Method, Output, Phase, Progress, Requirements, Update
from tlrun.methods.query import Query
from tlrun.models.net import Net

if TYPE_CHECKING:
    from tlrun.data.pipeline.streams import Batch
    from tlrun.data.problems.pair import Data


class FewShot(Method):
    """Base of the methods for episodes. Every `classify` runs in fp32, also under autocast.

    joint: whether it has a prototype for each class, so that base classes can stand beside new ones
    (`prototypes`, `base_prototypes`, `prototype_scores`). frozen: stages that `predict` leaves as
    they are whatever the support: where these are the backbone and no images are needed, it is
    given what the backbone makes of an image, which is computed once.
    """

    requirements = Requirements(streams=("source",), kind="episodes")
    needs_images = False
    joint = False
    frozen: Sequence[str] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "classify" in vars(cls):
            cls.classify = in_fp32(cls.classify)  # type: ignore[method-assign]

    def phases(self, data: Data) -> list[Phase]:
        stream = partial(EpisodeStream, shape=facts_as(data.facts, EpisodeFacts).train)
        return [Phase(streams=("source",), sampling={"source": stream})]

    def shown(self, phase: Phase) -> dict[str, tuple[str, ...]]:
        """Nothing: terms of the weights alone can join."""
        return {}

    def classify(self, net: Net, query: Tensor, support: Tensor, y: Tensor) -> Tensor:
        """Scores from features: query (E, Q, D), support (E, M, D) of E episodes, whose support has
        the same labels y (M,) -> (E, Q, way)."""
        raise NotImplementedError

    def prototypes(self, net: Net, support: Tensor, y: Tensor) -> Tensor:
        """(E, way, D), of support (E, M, D) with the labels y (M,)."""
        raise NotImplementedError

    def base_prototypes(self, net: Net, features: Tensor, y: Tensor) -> Tensor:
        """(B, D) of the base classes, from training images of theirs: features (n, D), y (n,)."""
        return self.prototypes(net, features[None], y)[0]

    def prototype_scores(self, net: Net, query: Tensor, prototypes: Tensor) -> Tensor:
        """query (E, Q, D), prototypes (E, K, D) -> (E, Q, K)."""
        raise NotImplementedError

    @in_fp32
    def joint_scores(
        self, net: Net, query: Tensor, support: Tensor, y: Tensor, base: Tensor
    ) -> Tensor:
        """Scores (E, Q, B + way) of base classes, whose prototypes are `base` (B, D), then of those
        of the support; the others as for `classify`."""
        own = self.prototypes(net, support, y)
        every = torch.cat([base.to(own).expand(len(own), -1, -1), own], dim=1)
        return self.prototype_scores(net, query, every)

    def predict(self, net: Net, x: Tensor, query: Query) -> Output:
        """x: (B, ...); scores (B, way) for the classes of the `Support`, None without one."""
        features = net(x, head=None).features
        if query.support is None:
            return Output(features=features)
        support = net(query.support.x, head=None).features
        scores = self.classify(net, features[None], support[None], query.support.y)
        return Output(scores=scores[0], features=features)

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        """The negative log-likelihood of the queries."""
        scores, target = self.episode_scores(net, batch["source"])
        loss = F.cross_entropy(scores, target)
        yield Update({"episodes": loss}, metrics={"accuracy": share_right(scores, target)})

    def episode_scores(self, net: Net, batch: Batch) -> tuple[Tensor, Tensor]:
        """One forward pass over a training batch: scores (E Q, way), labels (E Q,)."""
        assert isinstance(batch, EpisodeBatch)
        shape = batch.shape
        features = net(batch.x, head=None).features
        support, query = split(features, shape)
        y = labels_of(shape.way, shape.shot, features.device)
        scores = self.classify(net, query, support, y)
        target = labels_of(shape.way, shape.query, features.device).repeat(len(scores))
        return scores.flatten(0, 1), target


def share_right(scores: Tensor, target: Tensor) -> Tensor:
    """Accuracy of scores (n, K) against labels (n,): a scalar tensor, to be logged."""
    return (scores.detach().argmax(1) == target).float().mean()


@in_fp32
def class_means(support: Tensor, y: Tensor) -> Tensor:
    """Prototypes: support (E, M, D), y (M,) -> (E, way, D), the mean of each class."""
    member = F.one_hot(y).to(support.dtype)  # (M, way)
    return torch.einsum("mk,emd->ekd", member / member.sum(0), support)
