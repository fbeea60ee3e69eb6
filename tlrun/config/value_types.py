"""Type hints, as far as a configuration needs them: what fits one, and how it is said.

Every check of a value has its wording from here (`refusal`). Imports neither torch nor Hydra.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from tlrun.config.ranges import is_finite
from tlrun.errors import did_you_mean

LISTS = (list, tuple, Sequence)
GROUPS = (dict, Mapping)


def matches(value: Any, kind: Any) -> bool:
    """Whether a plain value fits a type hint; hints that YAML cannot express fit anything."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return matches(value, inner[0]) and inner[1].holds(value)
    if origin in (Union, types.UnionType):
        return any(matches(value, option) for option in inner)
    if origin is Literal:
        return value in inner and type(value) in {type(option) for option in inner}
    if kind in (None, type(None)):
        return value is None
    if kind is bool or kind is str:
        return isinstance(value, kind)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and is_finite(value)
    if (origin or kind) in LISTS:
        if not isinstance(value, list | tuple):
            return False
        if count := _length(kind):
            return len(value) == count and all(map(matches, value, inner))
        return not inner or all(matches(v, inner[0]) for v in value)
    if (origin or kind) in GROUPS:
        if not isinstance(value, Mapping):
            return False
        return not inner or all(matches(v, inner[1]) for v in value.values())
    return True


def describe(kind: Any) -> str:
    """A type hint in words: 'a whole number of at least 1, or null'."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return describe(inner[0]) + str(inner[1])
    if origin in (Union, types.UnionType):
        return ", or ".join(describe(option) for option in inner)
    if origin is Literal:
        options = [str(option) for option in inner]
        return f"one of {', '.join(options)}" if len(options) > 1 else options[0]
    if kind in (None, type(None)):
        return "null"
    if (origin or kind) in LISTS:
        count = f"{_length(kind)} " if _length(kind) else ""
        return f"a list of {count}values, each {describe(inner[0])}" if inner else "a list"
    names = {bool: "true or false", str: "a word", int: "a whole number", float: "a number"}
    if (origin or kind) in GROUPS:
        is_typed = inner and inner[1] is not Any
        return f"a group of keys, each with {describe(inner[1])}" if is_typed else "a group of keys"
    return names.get(kind, str(kind))


def _length(kind: Any) -> int | None:
    """How many values a hint such as tuple[int, int] asks for; None if any number will do."""
    inner = get_args(kind)
    return len(inner) if get_origin(kind) is tuple and Ellipsis not in inner else None


def choices_of(kind: Any) -> list[str]:
    """The words that a hint allows, for did-you-mean."""
    if get_origin(kind) is Literal:
        return [str(option) for option in get_args(kind)]
    return [word for option in get_args(kind) for word in choices_of(option)]


def show(value: Any) -> str:
    """A value as one types it on the command line."""
    if isinstance(value, list):
        return f"[{','.join(show(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def refusal(key: str, value: Any, kind: Any) -> str:
    """What is wrong with a value that does not fit its type hint: the one wording of all checks."""
    near = did_you_mean(str(value), choices_of(kind)) if choices_of(kind) else ""
    meant = near.split(" Valid:")[0] if near.startswith("did") else ""
    if isinstance(value, int | float) and not choices_of(kind) and matches(str(value), kind):
        meant = f"a path is written {key}=./{value}, another word '{key}=\"{value}\"'"
    return f"{key}={show(value)}: expected {describe(kind)}" + (f"; {meant}" if meant else "")
