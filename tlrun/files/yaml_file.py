"""YAML files of a run folder, read so that a file from anybody is harmless. Imports no torch.

`read_yaml` gives plain values: no Python objects, no interpolations, no environment variables. A
file that would cost more than it holds (aliases that multiply, endless nesting, sheer size) is
refused before it is expanded (docs/security.md).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader  # PyYAML's own would read 1e-4 as text
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from tlrun.errors import ConfigError

LARGEST = 1_000_000  # bytes; a config.yaml has about 5,000, a sweep.yaml 200 for each command
DEEPEST = 64  # mappings and lists inside each other
LONGEST_NUMBER = 100  # characters: `1:1:1:...` takes the square of its length


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds: dicts, lists, strings, numbers, booleans, None (of an empty file).

    Raises ConfigError that names the file: unreadable, no UTF-8, no YAML, or what tlrun never
    writes: aliases (`&`, `*`), more than DEEPEST levels or LARGEST bytes.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > LARGEST:
        raise ConfigError(f"{path} is too large for a file of tlrun's: above {LARGEST:,} bytes")
    try:
        return _load(data.decode())
    except _Refused as error:
        raise ConfigError(f"{path} is refused: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, an impossible number
        raise ConfigError(f"{path} is damaged: it is not YAML ({type(error).__name__})") from error


class _Refused(Exception):
    """YAML that is valid, and that tlrun has no use for."""


class _Loader(get_yaml_loader()):  # type: ignore[misc]
    """OmegaConf's loader (a SafeLoader) without aliases, not deeper than DEEPEST, plain values."""

    depth = 0
    yaml_constructors = {  # PyYAML's own name; OmegaConf's would build Path objects
        tag: make
        for tag, make in get_yaml_loader().yaml_constructors.items()
        if "python/" not in str(tag)
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise _Refused(
                f"it holds a YAML alias (line {mark.line + 1}), which tlrun never writes"
            )
        self.depth += 1
        if self.depth > DEEPEST:
            raise _Refused(f"it is nested more than {DEEPEST} levels deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_scalar(self, node: Any) -> Any:
        if node.tag.endswith((":int", ":float")) and len(node.value) > LONGEST_NUMBER:
            raise _Refused(f"it holds a number of {len(node.value):,} characters")
        return super().construct_scalar(node)


def _load(text: str) -> Any:
    """By libyaml where PyYAML has it; what that refuses is judged without it, so that both accept
    the same and the fault has the same name."""
    if _Scanned is not None:
        with suppress(yaml.YAMLError):
            return yaml.load(text, Loader=_Scanned)
    return yaml.load(text, Loader=_Loader)


_Scanned: type[_Loader] | None = None
if yaml.__with_libyaml__:
    from yaml.cyaml import CParser  # type: ignore[attr-defined]

    class _ScannedByC(CParser, _Loader):
        """_Loader, with libyaml for the text: a fifth of the time. Nodes and values are made by
        the class above, which refuses what it refuses."""

        check_node, get_node = Composer.check_node, Composer.get_node
        get_single_node = Composer.get_single_node

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            Composer.__init__(self)
            SafeConstructor.__init__(self)
            Resolver.__init__(self)

    _Scanned = _ScannedByC
