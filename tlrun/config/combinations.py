"""The nets that `tlrun rank` compares: every combination of the values of `backbone=a,b,c`.

Imports no torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tlrun.config.overrides import key_of, parse_overrides
from tlrun.errors import ConfigError

NAMES = ("backbone", "backbone.name")


def combinations(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Name of the net ("" where no word has it) -> its words, with published weights unless `init`
    or `backbone.weights` is given. Raises ConfigError where another key takes several values.

    >>> combinations(["data=pacs", "backbone=a,b"])["b"]
    ['data=pacs', 'backbone=b', 'init=pretrained']
    """
    usual = ["init=pretrained"]
    choices: list[list[str]] = []
    for word, override in zip(overrides, parse_overrides(overrides), strict=True):
        key = key_of(word)
        if key in ("init", "backbone.weights"):
            usual = []
        if not override.is_sweep_override():
            choices.append([word])
            continue
        if key.partition(".")[0] not in ("backbone", "init"):
            raise ConfigError(
                f"{word}: rank compares nets on one set of images, so only backbone, its keys and "
                "init take several values"
            )
        values = dict.fromkeys(override.sweep_string_iterator())
        choices.append([f"{key}={value}" for value in values])
    varied = [i for i, words in enumerate(choices) if len(words) > 1]
    return {
        _name([words[i] for i in varied]) or _name(_backbone(words)): [*words, *usual]
        for words in itertools.product(*choices)
    }


def _backbone(words: Sequence[str]) -> list[str]:
    return [word for word in words if key_of(word) in NAMES]


def _name(words: Sequence[str]) -> str:
    """Of what tells a net from the others; the names of backbones without their keys."""
    return " ".join(w.partition("=")[2] if key_of(w) in NAMES else w for w in words)
