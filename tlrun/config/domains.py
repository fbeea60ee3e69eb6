"""Domains in words: `data=pacs data.source=photo data.target=sketch`. Imports no torch.

A group `data` with a list `domains` names source and target by its words:

    data.source=photo               one domain
    data.source=[photo,cartoon]     several, each a source of its own
    data.source=all_but_target      all of `data.domains` but the target
    data.target=all_but_source      all but the sources, joined

`settle_domains` checks them and writes the latter two out, so that a saved configuration and its
hash hold the domains themselves. `domains_of` says what the domains of any configuration are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from tlrun.config.build import plain
from tlrun.config.one_set import has_source
from tlrun.errors import ConfigError, did_you_mean
from tlrun.messages import plural

log = logging.getLogger("tlrun")

PLACES = ("root", "list", "path")  # keys of a data set that say where one's own files lie
ALL_BUT = {"source": "all_but_target", "target": "all_but_source"}


@dataclass(frozen=True)
class Domains:
    """The names of the domains of a run. source: () where it has none; several: one each."""

    source: tuple[str, ...]
    target: tuple[str, ...]

    @property
    def source_name(self) -> str:
        """`photo`, or `art_painting+cartoon+photo`."""
        return "+".join(self.source)

    @property
    def target_name(self) -> str:
        return "+".join(self.target)

    @property
    def name(self) -> str:
        """`photo→sketch`; the target alone where there is no source."""
        return "→".join(part for part in (self.source_name, self.target_name) if part)


def domains_of(cfg: Mapping[str, Any]) -> Domains:
    """The domains of a configuration, composed or saved, whatever its group `data` is.

    Words are taken as they stand. A data set in its place (`_target_`) is called by its `domain`
    or `set`, else by its folder or file (`root`, `list`, `path`), else by the name of its function.
    Data that have neither source nor target (tasks, episodes) have no domains.
    """
    data = plain(cfg).get("data") or {}
    sources = data.get("sources")
    if isinstance(sources, Mapping):
        source: tuple[str, ...] = tuple(map(str, sources))
    else:
        source = _names(data.get("source")) if has_source(data) else ()
    return Domains(source, _names(data.get("target")))


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(map(str, value))
    if not isinstance(value, Mapping):
        return (str(value),)
    for key in ("domain", "set"):
        if value.get(key):
            return (str(value[key]),)
    for key in PLACES:
        if value.get(key):
            place = Path(str(value[key]))
            return (place.name if key == "root" else place.stem,)
    return (str(value.get("_target_", "")).rpartition(".")[2] or "unnamed",)


def settle_domains(cfg: DictConfig, *, trained: bool = False) -> None:
    """Check the words of `cfg.data` and write `all_but_*` out. Other data stay as they are.

    trained: the configuration is that of a run, whose domains may be evaluated as targets: with a
    warning instead of an error. Raises ConfigError.
    """
    data: Any = plain(cfg.get("data"))
    if not isinstance(data, Mapping) or "domains" not in data or "_target_" in data:
        return
    known = _known(data)
    words = {side: _words(data.get(side), side, known) for side in ALL_BUT}
    open_sides = [side for side, chosen in words.items() if chosen == [ALL_BUT[side]]]
    if len(open_sides) == 2:
        raise ConfigError(
            "data.source=all_but_target and data.target=all_but_source mean each other: name the "
            f"domains of one of them. {did_you_mean('', known)}"
        )
    for side in open_sides:
        other = words["target" if side == "source" else "source"]
        words[side] = [name for name in known if name not in other]
        if not words[side]:
            raise ConfigError(
                f"data.{side}={ALL_BUT[side]}: {', '.join(other)} are all domains of {_title(data)}"
            )
    if both := [name for name in words["source"] if name in words["target"]]:
        sentence = f"data.source and data.target are both '{both[0]}'"
        if not trained:
            rest = [name for name in known if name not in words["source"]]
            raise ConfigError(f"{sentence}: choose two. {did_you_mean('', rest or known)}")
        log.warning("%s: these figures are of what the run has learned from", sentence)
    with open_dict(cfg):
        cfg.data.domains = known
        for side, chosen in words.items():
            cfg.data[side] = chosen[0] if len(chosen) == 1 else (chosen or None)


def _title(data: Mapping[str, Any]) -> str:
    return str(data.get("name") or data.get("set") or "these data")


def _known(data: Mapping[str, Any]) -> list[str]:
    """The domains that the words may name: those listed, else the folders of `data.root`."""
    listed = data.get("domains")
    if listed is not None and not isinstance(listed, list):
        raise ConfigError(f"data.domains={listed}: give a list of names, data.domains=[a,b]")
    if listed:
        names = [str(name) for name in listed]
        if doubled := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"data.domains names '{doubled}' twice: name it once")
        return names
    root = data.get("root")
    if not root:
        raise ConfigError(
            "where are the domains? Give data.root=FOLDER, which holds a folder per domain "
            "(FOLDER/<domain>/<class>/*.jpg)"
        )
    try:
        places = sorted(Path(str(root)).expanduser().iterdir())
        names = [p.name for p in places if p.is_dir() and p.name[0] not in "._@"]
    except OSError as error:
        raise ConfigError(
            f"data.root={root}: {error.strerror}; give the folder that holds a folder per domain"
        ) from error
    if len(names) < 2:
        raise ConfigError(
            f"data.root={root} holds {plural(len(names), 'folder')}: a folder per domain is "
            "needed, at least two (for one folder of your own: data=folder)"
        )
    return names


def _words(value: Any, side: str, known: Sequence[str]) -> list[str]:
    """The words of a side as a list; `all_but_*` stays. Raises ConfigError."""
    if value is None:
        if side == "source":
            return []
        raise ConfigError(f"data.target has no value: {did_you_mean('', known)}")
    if isinstance(value, Mapping):
        raise ConfigError(
            f"data.{side} is a word here, data.{side}={known[0]}: {did_you_mean('', known)}; keys "
            "such as fit and val_fraction stand beside it (data.fit=squash)"
        )
    words = [str(word) for word in (value if isinstance(value, list) else [value])]
    if not words:
        raise ConfigError(f"data.{side}=[] names no domain: {did_you_mean('', known)}")
    if doubled := next((word for word in words if words.count(word) > 1), None):
        raise ConfigError(f"data.{side} names '{doubled}' twice: name it once")
    if words == [ALL_BUT[side]]:
        return words
    for word in words:
        if word not in known:
            choices = [*known, ALL_BUT[side]]
            raise ConfigError(f"data.{side}={word}: {did_you_mean(word, choices)}")
    return words
