"""Zero-shot methods whose head is trained by steps, and what it says of classes it has not learned.

Beside the head learn a few more of its kind, one for each group of seen classes that is held out:
from the same batches and first weights, as long and as fast, but without the images and rows of the
group. The calibration γ is chosen on what they say of their groups (held_out.py). They look at the
same features and change nothing of them, so that the backbone runs once; where it is trained, it
has seen all training classes, as with ConSE and IAP. So has a batch norm inside a head, whose
statistics are of whole batches. A head that `init=RUN_DIR` carries over has learned all classes in
that run: those of held-out classes then begin with weights of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tlrun.errors import ConfigError
from tlrun.methods.base import Update
from tlrun.methods.zero_shot.class_attributes import AttributeMethod, Signatures, features_of
from tlrun.methods.zero_shot.held_out import (
    TRAINED,
    HeldOut,
    Scored,
    group_size,
    groups_in_turn,
)
from tlrun.models.net import Net

if TYPE_CHECKING:
    from tlrun.data.problems.label_space import AttributeFacts

HELD_OUT = "held_out"  # the part with the further heads


class HeldOutHead(nn.Module):
    """A head that learns without a group of the seen classes.

    held, others: positions of the classes. head: of the method's kind. rows: those of all classes,
    with the statistics of the others alone, which stand first. column (C,): where a class stands.
    begun (): whether it has begun to learn, here or in the run of a checkpoint.
    """

    column: Tensor
    begun: Tensor

    def __init__(
        self, head: nn.Module, held: tuple[int, ...], facts: AttributeFacts, threshold: str
    ) -> None:
        super().__init__()
        self.held = held
        self.others = tuple(c for c in range(len(facts.training)) if c not in held)
        order = [*self.others, *(c for c in range(len(facts.attributes)) if c not in self.others)]
        own = replace(
            facts,
            attributes=[facts.attributes[c] for c in order],
            training=[facts.training[c] for c in self.others],
        )
        self.head = copy.deepcopy(head)
        self.rows = Signatures(own, threshold)
        self.register_buffer("column", torch.tensor(order).argsort(), persistent=False)
        self.register_buffer("begun", torch.tensor(False))


class TrainedHead(AttributeMethod):
    """Subclasses say what a head learns by and how it scores, given the rows that go with it."""

    training_parts = (HELD_OUT,)  # a prediction takes γ from the summary

    def head_loss(
        self, head: nn.Module, rows: Signatures, features: Tensor, y: Tensor, weight: Tensor
    ) -> Tensor:
        """y: (B,) among the training classes of `rows`. weight: (B,) of each image, mean 1."""
        raise NotImplementedError

    def head_scores(self, head: nn.Module, rows: Signatures, features: Tensor) -> Tensor:
        """(B, C) over all classes in the order of `rows`."""
        raise NotImplementedError

    def parts(self, head: str, data: Any) -> tuple[str, ...]:
        """The part `head`, and with it the heads of held-out classes where there are any."""
        return (head, HELD_OUT) if groups(data.facts) else (head,)

    def add_held_out(self, net: Net, head: nn.Module, data: Any) -> None:
        """Structure only. Not where the data have validation classes: γ is then chosen on these."""
        if held := groups(data.facts):
            heads = [HeldOutHead(head, group, data.facts, self.threshold) for group in held]
            net.add(HELD_OUT, nn.ModuleList(heads))

    def start_held_out(self, net: Net) -> None:
        """From here on their weights say something."""
        for one in held_out_heads(net):
            one.begun.fill_(True)

    def held_out_update(self, net: Net, features: Tensor, y: Tensor) -> Iterator[Update]:
        """One step of each further head. features: (B, D), which they leave as they are."""
        heads = held_out_heads(net)
        if not heads:
            return
        gpus = [features.device] if features.is_cuda else []
        with torch.random.fork_rng(gpus):  # what a dropout in them draws would be missed by the net
            losses = [self._held_out_loss(one, features.detach(), y) for one in heads]
        # a sum: each head moves as if it were alone
        yield Update({HELD_OUT: torch.stack(losses).sum()}, parts=(HELD_OUT,), main=False)

    def _held_out_loss(self, one: HeldOutHead, features: Tensor, y: Tensor) -> Tensor:
        """The mean over the images of its classes, 0 where the batch has none."""
        column = one.column[y]
        learned = column < len(one.others)
        share = learned.float().mean().clamp_min(1 / len(y))
        column = torch.where(learned, column, 0)
        return self.head_loss(one.head, one.rows, features, column, learned / share)

    @torch.no_grad()
    def held_out(self, net: Net, data: Any) -> Iterator[HeldOut]:
        """Nobody has learned from the training images of a group, unless the backbone has.

        Raises ConfigError where the heads have weights of no training.
        """
        heads = held_out_heads(net)
        if not heads:
            return
        if not all(one.begun for one in heads):
            raise ConfigError(
                "this run's weights hold no heads that learned without a group of seen classes, by "
                "which the calibration γ is chosen (it stopped before they began, or is of an "
                "earlier version of the method): train it to its end, or anew, or give γ, as "
                "data.gamma=0.02"
            )
        val = features_of(net, data, "source_val")
        has_weights = next(net.backbone.parameters(), None) is not None
        unlearned = val if has_weights else features_of(net, data, "source_train")
        for one in heads:
            seen_side, unseen_side = (
                Scored(self.head_scores(one.head, one.rows, x.float())[:, one.column], y)
                for x, y in (val, unlearned)
            )
            yield HeldOut(one.held, one.others, seen_side.of(one.others), unseen_side.of(one.held))


def groups(facts: AttributeFacts) -> Sequence[tuple[int, ...]]:
    """The seen classes that are held out of a further head each. They depend on the classes of the
    run alone, not on `gamma`, which an evaluation may set anew."""
    size = 0 if facts.validation else group_size(len(facts.training), len(facts.unseen))
    return groups_in_turn(range(len(facts.training)), size, TRAINED) if size else []


def held_out_heads(net: Net) -> list[HeldOutHead]:
    """Those that the net has by now."""
    heads = net[HELD_OUT].children() if HELD_OUT in net.parts else ()
    return [one for one in heads if isinstance(one, HeldOutHead)]
