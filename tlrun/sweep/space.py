"""What a search varies: Hydra's sweep syntax as dimensions. Imports neither torch nor Optuna.

'optimizer.lr=tag(log, interval(1e-4, 1e-1))'   a number, on a logarithmic scale
'method.trade_off=interval(0.1, 1)'             a number
'method.n=int(interval(1, 4))', 'method.n=range(1, 5)'    whole numbers (range: 5 is not one)
optimizer=adam,sgd    'method.kernels=choice(1, 2)'       one of these
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from tlrun.config.data_names import is_pair_key
from tlrun.config.overrides import parse_overrides
from tlrun.errors import ConfigError

Value = float | int | str
DIGITS = 4  # of a number that is asked for


@dataclass(frozen=True)
class Dimension:
    """One key of a search. text: its range as Hydra reads it."""

    key: str
    text: str

    @cached_property
    def override(self) -> Override:
        return parse_overrides([f"{self.key}={self.text}"])[0]

    @cached_property
    def choices(self) -> list[str]:
        """Of a choice: the values as they are typed; [] for numbers."""
        value = self.override.value()
        if isinstance(value, IntervalSweep | RangeSweep):
            return []
        return [str(text) for text in self.override.sweep_string_iterator()]

    @cached_property
    def bounds(self) -> tuple[float, float, float | None]:
        """Of numbers: the lowest, the highest, and the step of a range."""
        value: Any = self.override.value()
        if isinstance(value, RangeSweep):
            values = list(value.range())
            return values[0], values[-1], abs(value.step)
        return value.start, value.end, None

    @property
    def is_log(self) -> bool:
        return "log" in getattr(self.override.value(), "tags", ())

    @property
    def is_whole(self) -> bool:
        return all(isinstance(bound, int) for bound in self.bounds if bound is not None)

    def distribution(self) -> Any:
        """As Optuna has it."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.choices:
            return CategoricalDistribution(self.choices)
        low, high, step = self.bounds
        if self.is_whole:
            return IntDistribution(int(low), int(high), log=self.is_log, step=int(step or 1))
        return FloatDistribution(low, high, log=self.is_log, step=step)

    def check(self) -> None:
        """Raise ConfigError for a range that holds nothing: before the first trial, not after."""
        try:
            self.distribution()
        except (ValueError, IndexError) as error:
            why = "it is empty" if isinstance(error, IndexError) else str(error).rstrip(".")
            raise ConfigError(f"{self.key}={self.text} is no range to search: {why}") from error

    def rounded(self, value: Any) -> Value:
        """A number that is asked for, to four digits: it is typed and read by people."""
        if self.choices or self.is_whole:
            return value
        low, high, step = self.bounds
        return float(value if step else min(max(float(f"{value:.{DIGITS}g}"), low), high))

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the dimension's."""
        if self.choices:
            return value in self.choices
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        low, high, step = self.bounds
        if not low <= value <= high or (self.is_whole and value != int(value)):
            return False
        return step is None or abs((value - low) / step - round((value - low) / step)) < 1e-9

    def is_in(self, cfg: DictConfig) -> bool:
        """Whether an experiment has the key: a value, or a group with options."""
        return self.key in cfg.hydra.runtime.choices or _has(cfg, self.key)

    def value_in(self, cfg: DictConfig) -> Value | None:
        """What an experiment has there; None if that is no number and no choice of ours."""
        if self.key in cfg.hydra.runtime.choices:
            return str(cfg.hydra.runtime.choices[self.key])
        value = OmegaConf.select(cfg, self.key)
        if self.choices:
            same = [text for text in self.choices if _read(self.key, text) == value]
            return same[0] if same else None
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class SearchCommand:
    """A search's command line: what is fixed, what is searched, with which seeds each setting."""

    fixed: list[str]  # overrides
    space: list[Dimension]
    seeds: list[int]


def read_command(arguments: Sequence[str], preset: Mapping[str, str]) -> SearchCommand:
    """Overrides and a preset space: a key on the command line wins over the preset's.

    Raises ConfigError for what cannot be searched.
    """
    fixed, seeds, typed, given = [], [0], dict[str, str](), set()
    for override in parse_overrides(arguments):
        key = str(override.get_key_element())
        given.add(key.lstrip("+~"))
        if key == "seed":
            seeds = _seeds(override)
        elif not override.is_sweep_override():
            fixed.append(str(override.input_line))
        elif key in ("method", "data", "experiment"):
            raise ConfigError(
                f"a search looks at one {key} at a time: give the command once for each"
            )
        elif is_pair_key(key):
            raise ConfigError(
                f"a search compares settings on one pair, and {key} is no setting: give the "
                "command once for each"
            )
        else:
            typed[key] = str(override.input_line).partition("=")[2]
    space = {key: str(text) for key, text in preset.items() if key not in given} | typed
    return SearchCommand(fixed, [_checked_dimension(*entry) for entry in space.items()], seeds)


def _seeds(override: Override) -> list[int]:
    """Of `seed=3` or `seed=0,1,2`."""
    if not override.is_sweep_override():
        return [int(override.value())]  # type: ignore[arg-type]
    if not override.is_discrete_sweep():
        raise ConfigError("seeds of a search are listed, as seed=0,1,2: its value is their mean")
    listed = [str(text) for text in override.sweep_string_iterator()]
    return [int(text.partition("=")[2] or text) for text in listed]


def _checked_dimension(key: str, text: str) -> Dimension:
    """Raises ConfigError for a range that holds nothing, or that is none."""
    dimension = Dimension(key, text)
    if not dimension.override.is_sweep_override():
        raise ConfigError(f"the search space has {key}: {text}, which is one value, no range")
    dimension.check()
    return dimension


def _read(key: str, text: str) -> Any:
    return parse_overrides([f"{key}={text}"])[0].value()


def _has(cfg: DictConfig, key: str) -> bool:
    parent: Any = OmegaConf.select(cfg, key.rpartition(".")[0]) if "." in key else cfg
    return isinstance(parent, DictConfig) and key.rpartition(".")[2] in parent
