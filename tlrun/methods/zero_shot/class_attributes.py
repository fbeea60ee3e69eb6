"""What the zero-shot methods share: class signatures, features of whole sets, two phases.

A class is described by a row of attributes. `Signatures` holds them in the forms that the methods
use; they come from the data's facts each time a net is built, never from a checkpoint, so a class
can be added after training by a name and a row. Statistics (mean, scale, threshold) are those of
the training classes alone. Missing values are the training classes' mean of that attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlrun.errors import ConfigError
from tlrun.fp32 import in_fp32
from tlrun.losses.classification import classification_loss
from tlrun.methods.base import (
    Batches,
    DomainOutput,
    Method,
    Output,
    Phase,
    Progress,
    Requirements,
    Update,
)
from tlrun.methods.query import Query
from tlrun.methods.zero_shot import mapping as maps
from tlrun.methods.zero_shot.held_out import HeldOut, Scored, group_size, groups_in_turn
from tlrun.models.net import Forward, Net

if TYPE_CHECKING:
    from tlrun.data.problems.label_space import AttributeFacts


class Signatures(nn.Module):
    """Rows of all classes, training classes first.

    values (C, A): each attribute divided by its largest size over the training classes. unit: rows
    of length 1. binary: above the threshold or not. known: False where the table has no value.
    training: number of training classes.
    """

    values: Tensor
    unit: Tensor
    binary: Tensor
    known: Tensor

    def __init__(self, facts: AttributeFacts, threshold: str = "overall") -> None:
        super().__init__()
        nan = float("nan")
        table = torch.tensor(
            [[nan if v is None else v for v in row] for row in facts.attributes],
            dtype=torch.float64,
        )
        self.training_classes = len(facts.training)
        seen = table[: self.training_classes]
        mean = seen.nanmean(0).nan_to_num(0.0)
        size = seen.nan_to_num(0.0).abs().amax(0)
        values = torch.where(table.isnan(), mean, table) / torch.where(size > 0, size, 1.0)
        limit = seen.nanmean() if threshold == "overall" else mean
        for name, value in (
            ("values", values.float()),
            ("unit", F.normalize(values, dim=1).float()),
            ("binary", (table > limit).float()),
            ("known", ~table.isnan()),
        ):
            self.register_buffer(name, value, persistent=False)


class AttributeMethod(Method):
    """Base class. Phase `features`: cross-entropy of the backbone and a head over the training
    classes; then whatever a subclass adds. Subclasses say how classes are scored: every `scores`
    runs in fp32, also under autocast.

    Ready features need no phase of their own: `backbone=mlp backbone.hidden=[]` passes them on.
    """

    requirements = Requirements(streams=("source",), target_images=False, kind="attributes")
    needs_images = False
    threshold = "overall"
    mapped = True  # a mapping is learned on still features; False: the net itself is the model

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "scores" in vars(cls):
            cls.scores = in_fp32(cls.scores)  # type: ignore[method-assign]

    def phases(self, data: Any) -> list[Phase]:
        if data.facts.leave_out:
            raise ConfigError(
                "data.leave_out fits a method anew for every set of unseen classes: choose "
                "method=eszsl or method=sae, or name the unseen classes (data.unseen=[...])"
            )
        features = Phase("features")
        if not self.mapped:
            return [features]
        return [*([] if data.facts.ready_features else [features]), self.mapping_phase(data)]

    def mapping_phase(self, data: Any) -> Phase:
        return Phase("mapping", streams=(), steps=0)

    def build(self, phase: Phase, net: Net, data: Any) -> None:
        net.add("signatures", Signatures(data.facts, self.threshold))
        if phase.name == "features":
            net.add("classifier", net.new_head(len(data.facts.training)))
        elif data.facts.ready_features and next(net.backbone.parameters(), None) is not None:
            raise ConfigError(
                "ready features are used as they are: backbone=mlp backbone.hidden=[]"
            )
        if phase.name == "mapping":
            net.add("mapping", maps.Mapping(net.feature_dim, signatures(net).unit.shape[1]))

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        x, y = batch["source"].x, batch["source"].y
        out = net(x)
        loss = classification_loss(out.logits, y)
        yield Update(
            {"classification": loss},
            outputs={"source": DomainOutput(x, out.features, out.logits, y)},
        )

    def scores(self, net: Net, out: Forward) -> Tensor | None:
        """(B, C) over all classes; None before there is a mapping."""
        raise NotImplementedError

    def held_out(self, net: Net, data: Any) -> Iterator[HeldOut]:
        """Scores as without a few of the seen classes, group by group; nothing where there are too
        few of them."""
        yield from ()

    def predict(self, net: Net, x: Tensor, query: Query) -> Output:
        out = net(x)
        return Output(scores=self.scores(net, out), features=out.features)


class HeadMethod(AttributeMethod):
    """A method on the probabilities of a head over the training classes: it does without a class
    by leaving it out of the softmax, as if the image could be none of it."""

    mapped = False

    @torch.no_grad()
    def held_out(self, net: Net, data: Any) -> Iterator[HeldOut]:
        classes = range(len(data.facts.training))
        examples = data.role("source_val")
        size = group_size(len(classes), len(data.facts.unseen))
        if size == 0 or examples is None:
            return
        device = signatures(net).values.device
        outputs = [net(x) for x, _, _ in data.batches(examples, device)]
        features, logits = (
            torch.cat([getattr(out, name) for out in outputs]) for name in ("features", "logits")
        )
        labels = examples.labels.to(device)
        for group in groups_in_turn(classes, size):
            others = tuple(c for c in classes if c not in group)
            absent = torch.zeros(len(classes), dtype=torch.bool, device=device)
            absent[list(group)] = True
            without = Forward(features, logits.masked_fill(absent, -torch.inf))
            scores = self.scores(net, without)
            assert scores is not None
            scored = Scored(scores, labels)
            yield HeldOut(group, others, scored.of(others), scored.of(group))


def signatures(net: Net) -> Signatures:
    found = net["signatures"]
    assert isinstance(found, Signatures)
    return found


def mapping(net: Net) -> maps.Mapping:
    found = net["mapping"]
    assert isinstance(found, maps.Mapping)
    return found


@torch.no_grad()
def features_of(net: Net, data: Any, role: str) -> tuple[Tensor, Tensor]:
    """Features (n, D) float64 and labels (n,) of a whole set, through the net in eval mode."""
    examples = data.role(role)
    assert examples is not None
    was_training = net.training
    net.eval()
    device = signatures(net).values.device
    found = [net(x, head=None).features for x, _, _ in data.batches(examples, device)]
    net.train(was_training)
    return torch.cat(found).double(), examples.labels.to(device)


def measured(net: Net, data: Any) -> tuple[maps.Mapping, Tensor, Tensor]:
    """The mapping, with the mean and scale of the training features, these, and their labels.

    Features (n, D) float64 as the net gives them, labels (n,).
    """
    found = mapping(net)
    x, y = features_of(net, data, "source_train")
    found.fit_input(x)
    return found, x, y


def mean_by_class(guess: Tensor, truth: Tensor) -> float:
    """Mean over the classes in `truth` of the share that is right."""
    right = (guess == truth).double()
    return float(torch.stack([right[truth == c].mean() for c in truth.unique()]).mean())


def choose(
    grid: list[Any], net: Net, data: Any, scorer: Callable[[Any, Tensor], Tensor], otherwise: Any
) -> Any:
    """The setting of `grid` that tells the validation classes apart best, as if they were unseen.

    scorer: (setting, features) -> scores (n, C). otherwise: without validation classes.
    """
    first = len(data.facts.training)
    count = len(data.facts.validation)
    if len(grid) == 1 or count < 2:
        return grid[0] if len(grid) == 1 else otherwise
    x, y = features_of(net, data, "source_val")
    x, y = x[y >= first], y[y >= first]
    right = [
        mean_by_class(scorer(g, x)[:, first : first + count].argmax(1) + first, y) for g in grid
    ]
    best = [i for i, value in enumerate(right) if value == max(right)]
    return grid[best[len(best) // 2]]  # of a plateau, not the edge
