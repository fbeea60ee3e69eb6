"""Zero-shot figures where every set of so many classes is unseen in turn (`data.leave_out`).

A figure of one pair of unseen classes says little: for some pairs the attributes do not tell the
two apart, and which pair is shown is a choice. Here every set is unseen once, by a method that was
chosen, fitted and calibrated without it; the figures are means over the sets.

unseen/accuracy         T1, mean over the sets; unseen/chance is guessing, 1 / leave_out
unseen/std              standard deviation of T1 between the sets (they share classes, so it is no
                        standard error)
unseen/worst, /best     T1 of the worst and of the best set
generalized/*, harmonic_mean, calibrated/*, seen_unseen_area    as in attribute_figures.py, means
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from tlrun.evaluate.evaluators.attribute_figures import (
    AttributeEvaluator,
    best_gamma,
    curve_of,
    harmonic_mean,
    mean_per_class,
    only,
)
from tlrun.evaluate.figures import KINDS, MEAN_ACCURACY, Figure, Figures, Kind
from tlrun.files import csv_file
from tlrun.methods.zero_shot.closed_form import ClosedForm
from tlrun.methods.zero_shot.held_out import HeldOut, LeftOut
from tlrun.models.net import Net
from tlrun.run_folder.run_dir import RunDir

Row = dict[str, float | None]
MEANS = (
    "generalized/seen",
    "generalized/unseen",
    "harmonic_mean",
    "calibrated/seen",
    "calibrated/unseen",
    "calibrated/harmonic_mean",
    "seen_unseen_area",
)
SHARE = Kind("", "share", None)


class LeftOutEvaluator(AttributeEvaluator):
    """Of a method in closed form on features that know of no class."""

    @property
    def headline(self) -> str:
        return "unseen/accuracy"

    def test(self, net: Net) -> tuple[Figures, dict[str, Any]]:
        """Of the net that has all classes, and of what is fitted without each set of them."""
        stated, outputs = super().test(net)
        if not self.target_test:
            return stated, outputs
        assert isinstance(self.method, ClosedForm)
        sets = {
            tuple(self.data.classes[c] for c in left.test.held): self.figures_of(left)
            for left in self.method.left_out(net, self.data)
        }
        outputs["sets"] = sets
        return Figures([*stated.stated.values(), *self._over_sets(sets)]), outputs

    def figures_of(self, left: LeftOut) -> Row:
        """Of one set of unseen classes."""
        test, count = left.test, self.data.num_classes
        row: Row = {"unseen/accuracy": _accuracy(test, test.held, seen=False, count=count)}
        both = (*test.others, *test.held)
        s, u = (_accuracy(test, both, seen=which, count=count) for which in (True, False))
        drawn = curve_of(test, count)
        row |= {"generalized/seen": s, "generalized/unseen": u}
        row["harmonic_mean"] = harmonic_mean(s, u)
        turns = [turn for turn in left.turns if turn.seen and turn.unseen]
        gamma = self.facts.gamma
        if gamma is None and turns:
            gamma = best_gamma([curve_of(turn, count) for turn in turns])
        if gamma is not None:
            s, u = drawn.at(gamma)
            row |= {"calibrated/seen": s, "calibrated/unseen": u}
            row["calibrated/harmonic_mean"] = harmonic_mean(s, u)
        return {**row, "seen_unseen_area": drawn.area, "gamma": gamma}

    def _over_sets(self, sets: Mapping[tuple[str, ...], Row]) -> Iterator[Figure]:
        right = np.array([row["unseen/accuracy"] for row in sets.values()])
        yield Figure("unseen/accuracy", float(right.mean()), MEAN_ACCURACY)
        yield Figure("unseen/chance", 1 / self.facts.leave_out, SHARE)
        yield Figure("unseen/std", float(right.std(ddof=1)) if len(right) > 1 else None, SHARE)
        yield Figure("unseen/worst", float(right.min()), SHARE)
        yield Figure("unseen/best", float(right.max()), SHARE)
        for key in MEANS:
            values = [row[key] for row in sets.values() if row.get(key) is not None]
            mean = float(np.mean(values)) if values else None  # type: ignore[arg-type]
            yield Figure(key, mean, KINDS[key.rpartition("/")[2]])

    def write(self, run_dir: RunDir, outputs: Mapping[str, Any]) -> None:
        """unseen_sets.csv: a line per set; a table and a picture of them for the page."""
        super().write(run_dir, {k: v for k, v in outputs.items() if k != "sets"})
        if (sets := outputs.get("sets")) is None:
            return
        keys = ("unseen/accuracy", *MEANS, "gamma")
        with (run_dir.path / "unseen_sets.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv_file.Writer(file)
            writer.writerow(["unseen", *keys])
            for names, row in sets.items():
                cells = ["" if row.get(k) is None else f"{row[k]:.6f}" for k in keys]
                writer.writerow([" + ".join(names), *cells])
        run_dir.write_json(run_dir.tables, [table(sets, self.facts.leave_out)])
        if self.facts.leave_out == 2:
            run_dir.write_json(run_dir.pictures, [heatmap(sets, self.data.classes)])


def _accuracy(test: HeldOut, candidates: tuple[int, ...], *, seen: bool, count: int) -> float:
    """Mean over classes of the images of the seen or the unseen ones."""
    scored = test.seen if seen else test.unseen
    allowed = torch.zeros(count, dtype=torch.bool)
    allowed[list(candidates)] = True
    return mean_per_class(only(scored.scores.cpu(), allowed), scored.labels.cpu())


def table(sets: Mapping[tuple[str, ...], Row], leave_out: int) -> dict[str, Any]:
    """The mean, the worst and the best sets, for tables.json; in per cent."""
    order = sorted(sets, key=lambda names: sets[names]["unseen/accuracy"] or 0.0)
    keys = ("unseen/accuracy", "harmonic_mean", "calibrated/harmonic_mean")
    columns = ["unseen classes", "T1, %", "H, %", "calibrated H, %"]

    def cells(names: tuple[str, ...]) -> list[str]:
        found = [sets[names].get(key) for key in keys]
        return ["–" if v is None else f"{100 * v:.1f}" for v in found]

    def spread(key: str) -> str:
        values = [100 * v for row in sets.values() if (v := row.get(key)) is not None]
        return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "–"

    shown = {"worst": order[:3], "best": order[-3:][::-1]}
    rows = [[f"all {len(sets)} (mean ± std)", *(spread(key) for key in keys)]]
    rows += [
        [f"{' + '.join(names)} ({which})", *cells(names)]
        for which, chosen in shown.items()
        for names in chosen
    ]
    rows.append(["guessing among the unseen", f"{100 / leave_out:.1f}", "", ""])
    return {
        "name": "unseen_sets",
        "title": f"Every set of {leave_out} classes unseen in turn",
        "text": "T1: accuracy among the unseen classes, from their attributes alone. Settings, fit "
        "and calibration of each row did without its classes. All sets: unseen_sets.csv.",
        "columns": columns,
        "rows": rows,
    }


def heatmap(sets: Mapping[tuple[str, ...], Row], classes: tuple[str, ...]) -> dict[str, Any]:
    """T1 of every pair, for pictures.json."""
    value = {frozenset(names): row["unseen/accuracy"] for names, row in sets.items()}
    percent = {names: None if v is None else round(100 * v, 1) for names, v in value.items()}
    return {
        "name": "unseen_pairs",
        "title": "Each pair of unseen classes",
        "text": "T1 of the pair in a row and a column: how well the two are told apart by their "
        "attributes, without an image of either; guessing is 50 %.",
        "kind": "heatmap",
        "x": list(classes),
        "y": list(classes),
        "values": [[percent.get(frozenset((a, b))) for b in classes] for a in classes],
        "x_label": "unseen class",
        "y_label": "the other one",
        "unit": "%",
    }
