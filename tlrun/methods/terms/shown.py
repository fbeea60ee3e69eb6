"""What a term finds in the net and in an update, or the sentence that says why it does not."""

from __future__ import annotations

from tlrun.errors import ConfigError
from tlrun.methods.base import DomainOutput, Update
from tlrun.methods.fine_tuning.finetune import SOURCE_HEAD
from tlrun.models.net import Net


def old_head(net: Net, term: str) -> str:
    """The head that was learned before: the source's own, or the classifier if it was carried."""
    if SOURCE_HEAD in net.parts:
        return SOURCE_HEAD
    if "classifier" in net.parts and set(net.select(["classifier"])) <= set(net.carried):
        return "classifier"
    raise ConfigError(
        f"terms=[{term}] needs the head that was learned on the source: method=finetune with "
        "init=source, or init=RUN_DIR of a run with the same classes"
    )


def old_heads(net: Net, term: str) -> dict[str, str]:
    """Every head that was learned before -> the name of the stream whose images it judges."""
    return net.learned or {old_head(net, term): "source"}


def target_output(update: Update, term: str) -> DomainOutput:
    """What the update saw of the target. Raises ConfigError where a method shows nothing of it."""
    if "target" not in update.outputs:
        raise ConfigError(f"terms=[{term}] needs target images; this method does not use any")
    return update.outputs["target"]
