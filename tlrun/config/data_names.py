"""What the data of a run are called: on pages, in tables, in names of folders. Imports no torch.

A pair is data, as a set is: `pacs photo→sketch` and `pacs photo→cartoon` are two columns of a table
and never two settings of one. `is_pair_key` says which keys choose a pair.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlrun.config.build import plain
from tlrun.config.domains import ALL_BUT, PLACES, domains_of

CHOOSES = ("domain", *PLACES)  # keys of a side that say which domain it is
LONGEST = 80  # characters of a folder's name; the hash behind it tells jobs apart


def is_pair_key(key: str) -> bool:
    """Whether a key of an override chooses a domain: data.source, data.target.root, ..."""
    words = key.split(".")
    chooses = len(words) == 2 or (len(words) == 3 and words[2] in CHOOSES)
    return words[0] == "data" and words[1:2] in (["source"], ["target"]) and chooses


def data_title(cfg: Mapping[str, Any]) -> str:
    """`mnist_usps`, `pacs photo→sketch`, or `photo→sketch` of one's own folders and files.

    Domains stand in it where a command chooses them, by words or by places. A name that only says
    how they are read (`folder`, `features`) makes room for them. cfg: composed, saved, or what is
    left of a job that failed; "" where it holds no name.
    """
    data = plain(cfg).get("data")
    if not isinstance(data, Mapping):
        return ""
    name = str(data.get("name") or "")
    if not _is_chosen(data):
        return name
    if data.get("set", name) is None and data.get("root"):  # any folder with a folder per domain
        name = Path(str(data["root"])).name
    if name in (_function(data.get("source")), _function(data.get("target"))):
        name = ""
    return f"{name} {domains_of({'data': _written_out(data)}).name}".strip()


def folder_title(cfg: Mapping[str, Any], choice: str) -> str:
    """The same for the name of a folder: `pacs_photo-sketch`; `choice` where no domain is chosen.

    cfg: not resolved, so words stand as they were typed (`pacs_all_but_target-sketch`).
    """
    data = cfg.get("data")
    if not isinstance(data, Mapping) or not _is_chosen(data):
        return choice.replace("/", "-")
    name = choice
    if choice in (_function(data.get("source")), _function(data.get("target"))):
        name = ""
    title = f"{name} {domains_of({'data': data}).name}".strip().replace("→", "-")
    return re.sub(r"[^\w.+-]+", "_", title)[:LONGEST].strip("._-") or choice.replace("/", "-")


def _is_chosen(data: Mapping[str, Any]) -> bool:
    """Whether a command chooses the domains: by words, or by the place of folder or file."""
    if "tasks" in data:  # there, `target` is a task
        return False
    sources = data.get("sources")
    sides = [*(sources.values() if isinstance(sources, Mapping) else ()), data.get("target")]
    return any(_is_placed(side) for side in (*sides, data.get("source")))


def _is_placed(side: Any) -> bool:
    if isinstance(side, Mapping):
        return any(side.get(key) not in (None, "???") for key in CHOOSES)
    return bool(side) and side != "???"


def _written_out(data: Mapping[str, Any]) -> dict[str, Any]:
    """Without `all_but_*`, which a job that failed early still holds."""
    out, known = dict(data), data.get("domains")
    for side, other in (("source", "target"), ("target", "source")):
        if out.get(side) == ALL_BUT[side] and isinstance(known, list):
            rest = out.get(other)
            rest = rest if isinstance(rest, list) else [rest]
            out[side] = [name for name in known if name not in rest]
    return out


def _function(side: Any) -> str:
    """The last name of the function that reads a side from a place; "" where it knows domains."""
    if not isinstance(side, Mapping) or side.get("domain"):
        return ""
    return str(side.get("_target_", "")).rpartition(".")[2]
