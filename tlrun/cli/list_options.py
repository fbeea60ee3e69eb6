"""`tlrun list`: what can be chosen, a line each, from the first comment of its config file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tlrun.errors import ConfigError, did_you_mean

GROUPS = {
    "methods": "method",
    "data": "data",
    "backbones": "backbone",
    "terms": "terms",
    "balances": "balance",
    "selectors": "select",
    "recipes": "recipe",
    "experiments": "experiment",
    "launchers": "launcher",
    "searches": "search",
    "optimizers": "optimizer",
    "schedules": "schedule",
    "loggers": "logger",
}


def listing(kinds: Iterable[str], folders: Iterable[Path]) -> str:
    """The text for some of GROUPS (none = all), over the packaged folder and any --config-dir.

    Raises ConfigError on an unknown kind.
    """
    chosen = list(kinds) or list(GROUPS)
    for kind in chosen:
        if kind not in GROUPS:
            raise ConfigError(f"nothing to list under '{kind}': {did_you_mean(kind, GROUPS)}")
    roots = list(folders)
    blocks = []
    for kind in chosen:
        rows = sorted({row for root in roots for row in options_of(root / GROUPS[kind])})
        width = max((len(name) for name, _ in rows), default=0)
        lines = [f"  {name:<{width}}  {text}".rstrip() for name, text in rows]
        blocks.append("\n".join([f"{kind}   ({GROUPS[kind]}=...)", *lines]))
    return "\n\n".join(blocks)


def options_of(group: Path) -> list[tuple[str, str]]:
    """(name, first comment line) of every option below the folder of a group."""
    return [
        (str(file.relative_to(group).with_suffix("")), first_comment(file))
        for file in group.rglob("*.yaml")
        if group.name != "search" or file.parent == group  # below are the spaces of the methods
    ]


def first_comment(file: Path) -> str:
    """The first line of a config file that is a comment, but for Hydra's `# @package` line."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").strip()
        if line and not line.startswith("#"):
            break
    return ""
