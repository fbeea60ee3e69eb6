"""What a term finds in the net and in an update, or the sentence that says why it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from tlrun.errors import ConfigError
from tlrun.methods.base import DomainOutput, Update
from tlrun.methods.fine_tuning.finetune import SOURCE_HEAD
from tlrun.models.net import PUBLISHED_HEAD, Net

if TYPE_CHECKING:
    from tlrun.data.examples.image_set import ImageSet
    from tlrun.data.problems.pair import Data


def old_head(net: Net, term: str) -> str:
    """The head that was learned before, and carried over: the source's own, that of published
    weights, or the classifier."""
    return _learned_before(
        net,
        (SOURCE_HEAD, PUBLISHED_HEAD, "classifier"),
        f"terms=[{term}] needs the head that was learned on the source, and its backbone: "
        "method=finetune with init=source, init=pretrained (the head of the published weights), or "
        "init=RUN_DIR of a run with the same classes, all carried over",
    )


def old_heads(net: Net, term: str) -> dict[str, str]:
    """Every head that was learned before -> the name of the stream whose images it judges."""
    return net.learned or {old_head(net, term): "source"}


def source_heads(net: Net, term: str) -> dict[str, str]:
    """As `old_heads`, but only what was learned from images of this run's source."""
    if net.learned:
        return net.learned
    why = (
        f"terms=[{term}] needs the head that was learned on the source, and its backbone: "
        "method=finetune with init=source, or init=RUN_DIR of a run with the same classes, all "
        "carried over"
    )
    return {_learned_before(net, (SOURCE_HEAD, "classifier"), why): "source"}


def _learned_before(net: Net, names: tuple[str, ...], why: str) -> str:
    """The first of these parts that was carried over, with the backbone that it was learned on.

    Raises ConfigError(why) without one.
    """
    for name in names:
        if name in net.parts and set(net.select(["backbone", name])) <= set(net.carried):
            return name
    raise ConfigError(why)


def labelled_target(data: Data, term: str) -> ImageSet:
    """The target's training images. Raises ConfigError where they have no labels."""
    examples = data.role("target_train")
    if examples is None or examples.labels is None:
        raise ConfigError(f"terms=[{term}] needs labelled target images: target_labels=k")
    return examples


def target_output(update: Update, term: str) -> DomainOutput:
    """What the update saw of the target. Raises ConfigError where a method shows nothing of it."""
    if "target" not in update.outputs:
        raise ConfigError(f"terms=[{term}] needs target images; this method does not use any")
    return update.outputs["target"]


def shown(
    update: Update, term: str, what: Literal["features", "logits", "y"], domain: str = "target"
) -> Tensor:
    """features (B, D), logits (B, K) or labels y (B,) of a domain. Raises ConfigError where they
    are not there, as a method of one's own may say before (`Method.shown`) and not do."""
    value: Tensor | None = getattr(update.outputs.get(domain), what, None)
    if value is None:
        name = "labels" if what == "y" else what
        raise ConfigError(
            f"terms=[{term}] needs the {name} of {domain} images, and the main updates of this "
            "method hold none"
        )
    return value


def each_domain(update: Update, term: str, what: Literal["features", "logits"]) -> list[Tensor]:
    """Of the target, and before it of the source where the update shows it."""
    domains = [d for d in ("source", "target") if d == "target" or d in update.outputs]
    return [shown(update, term, what, domain) for domain in domains]
