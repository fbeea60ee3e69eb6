"""Zero-shot methods whose mapping is a formula: fitted at once, and anew without some classes.

A fit is cheap, so its setting (penalties) is chosen on seen classes that are held out in turn, and
with `data.leave_out` the whole procedure (choice, fit, calibration) is repeated for every set of
unseen classes on the same features. These must then know nothing of any class: ready features,
pixels (`backbone=mlp backbone.hidden=[]`), or a net that is not trained here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tlrun.methods.base import Phase
from tlrun.methods.zero_shot.class_attributes import (
    AttributeMethod,
    choose,
    features_of,
    mapping,
    mean_by_class,
    measured,
    signatures,
)
from tlrun.methods.zero_shot.held_out import (
    HeldOut,
    LeftOut,
    Scored,
    group_size,
    groups_in_turn,
    sets_in_turn,
)
from tlrun.models.net import Forward, Net


@dataclass(frozen=True)
class Fit:
    """mean (D,) and scale () of the features that it was fitted to, weight (D, A)."""

    mean: Tensor
    scale: Tensor
    weight: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x: (n, D) features -> (n, A)."""
        return (x - self.mean) / self.scale @ self.weight


@dataclass(frozen=True)
class Examples:
    """x: (n, D) float64 features; y: (n,) int64."""

    x: Tensor
    y: Tensor

    def of(self, classes: Sequence[int]) -> Examples:
        keep = torch.isin(self.y, torch.tensor(list(classes), device=self.y.device))
        return Examples(self.x[keep], self.y[keep])


class ClosedForm(AttributeMethod):
    """`chosen`: the setting of the mapping, once it is fitted."""

    default: Any = None  # setting where there are too few classes to choose on
    chosen: Any = None

    def grid(self) -> list[Any]:
        """The settings to choose from; one where the configuration says it."""
        raise NotImplementedError

    def solutions(self, x: Tensor, y: Tensor, rows: Tensor, grid: list[Any]) -> dict[Any, Tensor]:
        """Weight (D, A) by setting. x: (N, D), centred and scaled; y: (N,); rows: (K, A)."""
        raise NotImplementedError

    def compare(self, mapped: Tensor, rows: Tensor) -> Tensor:
        """mapped: (n, A), rows: (C, A) -> scores (n, C)."""
        return mapped @ rows.T

    def phases(self, data: Any) -> list[Phase]:
        return [self.mapping_phase(data)] if data.facts.leave_out else super().phases(data)

    def scores(self, net: Net, out: Forward) -> Tensor | None:
        if "mapping" not in net.parts:
            return None
        return self.compare(mapping(net)(out.features), signatures(net).unit)

    def state_dict(self) -> dict[str, Any]:
        return {"chosen": self.chosen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.chosen = state.get("chosen", self.chosen)

    # ---- the fit ------------------------------------------------------------------------------

    def start(self, phase: Phase, net: Net, data: Any) -> None:
        if phase.name != "mapping":
            return
        learned, x, y = measured(net, data)
        classes = range(len(data.facts.training))
        rows, examples = signatures(net).unit.double(), Examples(x, y)
        if len(data.facts.validation) >= 2:
            fits = self.fits(examples, classes, rows, self.grid())

            def scorer(setting: Any, features: Tensor) -> Tensor:
                return self.compare(fits[setting](features), rows)

            self.chosen = choose(self.grid(), net, data, scorer, self.default)
        else:
            size = group_size(len(classes), len(data.facts.unseen) or data.facts.leave_out)
            nobody, grid = examples.of(()), self.grid()
            self.chosen, _ = self.choose_in_turn(examples, nobody, classes, rows, size, grid)
        fit = self.fits(examples, classes, rows, [self.chosen])[self.chosen]
        with torch.no_grad():
            learned.weight.copy_(fit.weight)

    def fits(
        self, examples: Examples, classes: Sequence[int], rows: Tensor, grid: list[Any]
    ) -> dict[Any, Fit]:
        """By setting, from the examples of `classes` alone. rows: (C, A) of all classes."""
        used = examples.of(classes)
        mean = used.x.mean(0)
        x = used.x - mean
        scale = x.square().sum(1).mean().sqrt().clamp_min(1e-12)
        number = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        number[list(classes)] = torch.arange(len(classes), device=rows.device)
        solved = self.solutions(x / scale, number[used.y], rows[list(classes)], grid)
        return {setting: Fit(mean, scale, weight) for setting, weight in solved.items()}

    def choose_in_turn(
        self,
        examples: Examples,
        held: Examples,
        classes: Sequence[int],
        rows: Tensor,
        size: int,
        grid: list[Any],
    ) -> tuple[Any, list[HeldOut]]:
        """The setting that tells groups of `size` held-out classes apart best, and what they score.

        examples: of training; held: further images of the same classes, for the seen side.
        """
        if size == 0:
            return (grid[0] if len(grid) == 1 else self.default), []
        right = torch.zeros(len(grid))
        turns: dict[Any, list[HeldOut]] = {setting: [] for setting in grid}
        for group in groups_in_turn(classes, size):
            others = tuple(c for c in classes if c not in group)
            fits = self.fits(examples, others, rows, grid)
            seen, unseen = held.of(others), examples.of(group)
            for k, setting in enumerate(grid):
                scored = Scored(self.compare(fits[setting](unseen.x), rows), unseen.y)
                guess = torch.tensor(group, device=rows.device)[scored.scores[:, group].argmax(1)]
                right[k] += mean_by_class(guess, unseen.y)
                at_home = Scored(self.compare(fits[setting](seen.x), rows), seen.y)
                turns[setting].append(HeldOut(group, others, at_home, scored))
        best = [k for k, value in enumerate(right.tolist()) if value >= float(right.max()) - 1e-9]
        chosen = grid[best[len(best) // 2]]  # of a plateau, not the edge
        return chosen, turns[chosen]

    # ---- without some classes -------------------------------------------------------------------

    def held_out(self, net: Net, data: Any) -> Iterator[HeldOut]:
        classes, rows = range(len(data.facts.training)), signatures(net).unit.double()
        size = group_size(len(classes), len(data.facts.unseen) or data.facts.leave_out)
        if size:
            train = Examples(*features_of(net, data, "source_train"))
            held = Examples(*features_of(net, data, "source_val"))
            grid = self.grid() if self.chosen is None else [self.chosen]
            yield from self.choose_in_turn(train, held, classes, rows, size, grid)[1]

    def left_out(self, net: Net, data: Any) -> Iterator[LeftOut]:
        """For every set of `data.leave_out` classes: chosen, fitted and calibrated without them."""
        count, rows = len(data.facts.training), signatures(net).unit.double()
        train, held, test = (
            Examples(*features_of(net, data, f"source_{split}"))
            for split in ("train", "val", "test")
        )
        for unseen in sets_in_turn(count, data.facts.leave_out):
            seen = tuple(c for c in range(count) if c not in unseen)
            size = group_size(len(seen), len(unseen))
            chosen, turns = self.choose_in_turn(train, held, seen, rows, size, self.grid())
            fit = self.fits(train, seen, rows, [chosen])[chosen]
            scored = Scored(self.compare(fit(test.x), rows), test.y)
            yield LeftOut(HeldOut(unseen, seen, scored.of(seen), scored.of(unseen)), turns)
