"""Ranges of numbers, to stand on a signature: `def __init__(self, weight: Weight = 1.0)`.

`tlrun.config.value_types.matches` reads them, wherever a value of the configuration is checked:
constructors hold mathematics only. A method of your own may use these, or its own
`Annotated[float, Range(low=0, high=2, open_low=True)]`. Imports neither torch nor Hydra.

The upper bounds are far above whatever was of use to anybody: what lies beyond (a width of 1e30, a
count of twenty digits) ends in an error of memory or of integers long after it was typed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple


class Range(NamedTuple):
    """Bounds of a number: low <= value <= high; the bound itself is left out if it is open."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        if not is_finite(value):
            return False
        above = self.low is None or (value > self.low if self.open_low else value >= self.low)
        below = self.high is None or (value < self.high if self.open_high else value <= self.high)
        return above and below

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            low = f"above {_number(self.low)}" if self.open_low else f"from {_number(self.low)}"
            return f" {low} to {'below ' if self.open_high else ''}{_number(self.high)}"
        if self.low is not None:
            return f" {'above' if self.open_low else 'of at least'} {_number(self.low)}"
        if self.high is not None:
            return f" {'below' if self.open_high else 'of at most'} {_number(self.high)}"
        return ""


class Distinct(NamedTuple):
    """Of a list: no value stands in it twice."""

    def holds(self, values: Sequence[Any]) -> bool:
        return len({repr(value) for value in values}) == len(values)

    def __str__(self) -> str:
        return ", none of them twice"


def is_finite(value: float) -> bool:
    """Neither NaN nor infinite, nor a whole number that no float can hold."""
    return abs(value) < 2**1023 if isinstance(value, int) else math.isfinite(value)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


# lists
Names = Annotated[list[str], Distinct()]

# whole numbers
Count = Annotated[int, Range(1, 10**9)]  # of steps, images, rows, episodes
Size = Annotated[int, Range(0, 10**9)]  # a count that may be none
BatchSize = Annotated[int, Range(1, 2**16)]  # images of a batch
Pixels = Annotated[int, Range(1, 2**12)]  # the side of an image
Width = Annotated[int, Range(1, 2**14)]  # units of a layer
Depth = Annotated[int, Range(0, 100)]  # layers, or repetitions inside a step
Repeats = Annotated[int, Range(1, 100)]
Seed = Annotated[int, Range(0, 2**63 - 1)]

# words
Normalize = Literal["auto", "half", "imagenet", "clip", "dpn", "instance", "standard", "none"]
Interpolation = Literal["auto", "bilinear", "bicubic"]

# numbers
Number = Annotated[float, Range(-(10**6), 10**6)]
Positive = Annotated[float, Range(0, 10**6, open_low=True)]
NotNegative = Annotated[float, Range(0, 10**6)]
Weight = NotNegative  # of a loss beside others
LearningRate = Annotated[float, Range(0, 1000, open_low=True)]
Share = Annotated[float, Range(0, 1)]
AboveZeroToOne = Annotated[float, Range(0, 1, open_low=True)]
BelowOne = Annotated[float, Range(0, 1, open_high=True)]
InsideZeroToOne = Annotated[float, Range(0, 1, open_low=True, open_high=True)]
Scale = Annotated[float, Range(0, 100, open_low=True)]  # multiplies the channels of a backbone
