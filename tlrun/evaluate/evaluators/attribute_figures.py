"""Zero-shot figures: unseen classes alone, seen and unseen together, and what calibration gains.

T1                  candidates are the unseen classes; mean over classes of their accuracy
S, U, H             candidates are all classes; S and U are means over seen and unseen classes,
                    H = 2SU / (S + U) (Xian et al., TPAMI 2018)
calibrated          the same with argmax_c s_c − γ·1[c seen] (Chao et al., ECCV 2016); γ is the best
                    for H on classes that are held out as if they were unseen (the validation
                    classes, else groups of seen ones in turn), never on the test
area                under U against S as γ runs over all numbers
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlrun.data.problems.label_space import AttributeFacts, facts_as
from tlrun.evaluate.divergence import Chance
from tlrun.evaluate.evaluators.class_figures import ClassEvaluator
from tlrun.evaluate.figures import KINDS, MEAN_ACCURACY, Figure, Figures
from tlrun.evaluate.metrics import accuracy, per_class_accuracy
from tlrun.evaluate.validators import SetOutput
from tlrun.messages import plural
from tlrun.methods.zero_shot.class_attributes import AttributeMethod
from tlrun.methods.zero_shot.held_out import HeldOut
from tlrun.models.net import Net
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger("tlrun")

FEW_SEEN = 6  # classes: a γ that rests on fewer was seen to lower H
POINTS = 200  # of the drawn curve


def harmonic_mean(s: float, u: float) -> float:
    """2SU / (S + U), 0 where both are 0."""
    return 2 * s * u / (s + u) if s + u > 0 else 0.0


def mean_per_class(scores: Tensor, labels: Tensor) -> float:
    """scores: (n, C), −inf for what is no candidate; labels: (n,). Mean over classes present."""
    return float(per_class_accuracy(scores.argmax(1), labels, scores.shape[1]).nanmean())


@dataclass
class Curve:
    """S and U after calibration with γ: a step function, one step per image.

    gammas: (m,) ascending, where something changes; seen, unseen: (m + 1,) S and U below gammas[0],
    between gammas[0] and gammas[1], ...
    """

    gammas: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray

    def at(self, gamma: float) -> tuple[float, float]:
        """(S, U) at γ."""
        step = int(np.searchsorted(self.gammas, gamma, side="left"))
        return float(self.seen[step]), float(self.unseen[step])

    @property
    def area(self) -> float:
        """Under U against S, in [0, 1]."""
        s, u = self.seen[::-1], self.unseen[::-1]  # S from 0 up
        return float(((s[1:] - s[:-1]) * (u[1:] + u[:-1]) / 2).sum())

    def harmonic(self, gammas: np.ndarray) -> np.ndarray:
        """(k,) H at each γ."""
        step = np.searchsorted(self.gammas, gammas, side="left")
        s, u = self.seen[step], self.unseen[step]
        total = s + u
        return np.where(total > 0, 2 * s * u / np.where(total > 0, total, 1), 0.0)

    def best(self) -> float:
        """γ of the largest H: the middle of its interval."""
        return best_gamma([self])


def best_gamma(curves: Sequence[Curve]) -> float:
    """γ of the largest mean H over the curves: the middle of the interval in which it is so."""
    inner = np.unique(np.concatenate([c.gammas for c in curves]))
    ends = np.concatenate([inner[:1] - 2.0, inner, inner[-1:] + 2.0])
    middles = (ends[1:] + ends[:-1]) / 2
    h = np.mean([c.harmonic(middles) for c in curves], axis=0)
    top = np.flatnonzero(h >= h.max() - 1e-12)
    return float(middles[top[len(top) // 2]])


def curve_of(turn: HeldOut, classes: int) -> Curve:
    """Of a group of held-out classes against the others."""
    is_seen, held = (torch.zeros(classes, dtype=torch.bool) for _ in range(2))
    is_seen[list(turn.others)], held[list(turn.held)] = True, True
    seen, unseen = ((s.scores.cpu(), s.labels.cpu()) for s in (turn.seen, turn.unseen))
    return curve(seen, unseen, is_seen, is_seen | held)


def curve(
    seen: tuple[Tensor, Tensor], unseen: tuple[Tensor, Tensor], is_seen: Tensor, candidate: Tensor
) -> Curve:
    """seen, unseen: (scores (n, C), labels (n,)) of images. is_seen, candidate: (C,) bool."""

    def thresholds(scores: Tensor, labels: Tensor, own: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Where an image goes over to the unseen classes, and its share of the mean if right."""
        scores = scores.detach().double()
        first = scores.masked_fill(~(candidate & is_seen), -torch.inf)
        second = scores.masked_fill(~(candidate & ~is_seen), -torch.inf)
        margin = first.amax(1) - second.amax(1)
        right = scores.masked_fill(~(candidate & own), -torch.inf).argmax(1) == labels
        count = torch.bincount(labels, minlength=scores.shape[1])
        weight = right.double() / (count[labels] * int((count > 0).sum()))
        return margin.numpy(), weight.numpy()

    at_s, w_s = thresholds(*seen, is_seen)
    at_u, w_u = thresholds(*unseen, ~is_seen)
    gammas = np.unique(np.concatenate([at_s, at_u]))
    lost, won = (np.zeros(len(gammas) + 1) for _ in range(2))
    np.add.at(lost, np.searchsorted(gammas, at_s) + 1, w_s)  # s_c − γ falls below: no longer seen
    np.add.at(won, np.searchsorted(gammas, at_u) + 1, w_u)
    return Curve(gammas, (w_s.sum() - lost.cumsum()).clip(0), won.cumsum())


def doubt(facts: AttributeFacts, gamma: float | None) -> str | None:
    """What is to be said of a γ that rests on few seen classes, or is missing for their number."""
    seen = len(facts.training) + len(facts.validation)
    if facts.gamma is not None or facts.leave_out or seen >= FEW_SEEN:
        return None
    what = (
        f"no calibration gamma is chosen: {plural(seen, 'seen class')} are too few to hold some out"
        if gamma is None
        else f"the calibration gamma rests on {plural(seen, 'seen class')} and may lower H"
    )
    return f"{what}; data.gamma=NUMBER gives it (0 = no calibration)"


class AttributeEvaluator(ClassEvaluator):
    """Of data with seen, validation and unseen classes (`Data.facts`)."""

    doubted = False  # the line on γ was given: a run tests several times

    @property
    def facts(self) -> AttributeFacts:
        return facts_as(self.data.facts, AttributeFacts)

    def group(self, *names: str) -> Tensor:
        """(C,) bool: which classes are of these groups."""
        chosen = {name for group in names for name in self.facts.group(group)}
        return torch.tensor([c in chosen for c in self.data.classes])

    def chances(self) -> dict[str, Chance]:
        """Of the training classes: a mean over classes, so each of them counts alike."""
        held, training = self.data.role("source_val"), self.group("training")
        if held is None or held.labels is None:
            return {}
        images = int(training[held.labels].sum())
        key = "source_val/training_classes_accuracy"
        return {key: Chance(1 / int(training.sum()), images)} if images else {}

    def row(self, net: Net) -> dict[str, float | None]:
        held = self.set_output(net, "source_val")
        if held is None:
            return {}
        assert held.labels is not None
        training, validation = self.group("training"), self.group("validation")
        (ys, ss), (yv, sv) = _split(held, training), _split(held, validation)
        row: dict[str, float | None] = {
            "source_val/training_classes_accuracy": mean_per_class(only(ss, training), ys)
        }
        row["source_val/accuracy"] = row["source_val/training_classes_accuracy"]
        if len(yv):
            row["source_val/accuracy"] = mean_per_class(only(sv, validation), yv)
            steps = curve((ss, ys), (sv, yv), training, training | validation)
            row["source_val/harmonic_mean"] = harmonic_mean(*steps.at(steps.best()))
        row["validator/source_accuracy"] = row["source_val/accuracy"]
        if self.target_test and (test := self.set_output(net, "target_test")):
            assert test.labels is not None
            unseen = only(test.logits, self.group("unseen"))
            row["oracle/target_test_accuracy"] = accuracy(unseen.argmax(1), test.labels)
        return row

    def gamma(self, net: Net) -> float | None:
        """The data's own, else the best on the validation classes, else on seen ones in turn.

        None where neither can be: the seen classes are too few.
        """
        if self.facts.gamma is not None:
            return float(self.facts.gamma)
        training, validation = self.group("training"), self.group("validation")
        held = self.set_output(net, "source_val")
        if held is None:
            return None
        if not validation.any():
            if not isinstance(self.method, AttributeMethod):
                return None
            turns = [t for t in self.method.held_out(net, self.data) if t.seen and t.unseen]
            return (
                best_gamma([curve_of(t, self.data.num_classes) for t in turns]) if turns else None
            )
        (ys, ss), (yv, sv) = _split(held, training), _split(held, validation)
        return curve((ss, ys), (sv, yv), training, training | validation).best()

    def test(self, net: Net) -> tuple[Figures, dict[str, Any]]:
        seen = self.set_output(net, "source_test")
        assert seen is not None
        assert seen.labels is not None
        is_seen, is_unseen = self.group("training"), self.group("unseen")
        alone = mean_per_class(only(seen.logits, is_seen), seen.labels)
        figures = [Figure("seen/accuracy", alone, MEAN_ACCURACY)]
        shown = SetOutput(seen.features, only(seen.logits, is_seen), seen.labels)
        outputs: dict[str, Any] = {"source_test": shown}
        figures += self._figures("source_test", shown)
        gamma = self.gamma(net)
        line = doubt(self.facts, gamma) if isinstance(self.method, AttributeMethod) else None
        if line and not self.doubted:
            log.warning("%s", line)
            self.doubted = True
        figures.append(Figure("calibration/gamma", gamma, KINDS["gamma"]))
        unseen = self.set_output(net, "target_test") if self.target_test else None
        if unseen is None:
            return Figures(figures), outputs
        assert unseen.labels is not None
        candidates = only(unseen.logits, is_unseen)
        outputs["target_test"] = SetOutput(unseen.features, candidates, unseen.labels)
        figures += self._figures("target_test", outputs["target_test"])
        alone = mean_per_class(candidates, unseen.labels)
        figures.append(Figure("unseen/accuracy", alone, MEAN_ACCURACY))
        both = is_seen | is_unseen
        drawn = curve((seen.logits, seen.labels), (unseen.logits, unseen.labels), is_seen, both)
        s = mean_per_class(only(seen.logits, both), seen.labels)
        u = mean_per_class(only(unseen.logits, both), unseen.labels)
        together: dict[str, float | None] = {
            "generalized/seen": s,
            "generalized/unseen": u,
            "harmonic_mean": harmonic_mean(s, u),
            **dict.fromkeys(("calibrated/seen", "calibrated/unseen", "calibrated/harmonic_mean")),
        }
        if gamma is not None:
            s, u = drawn.at(gamma)
            together |= {"calibrated/seen": s, "calibrated/unseen": u}
            together["calibrated/harmonic_mean"] = harmonic_mean(s, u)
        together["seen_unseen_area"] = drawn.area
        figures += [
            Figure(key, value, KINDS[key.rpartition("/")[2]]) for key, value in together.items()
        ]
        stated = Figures(figures)
        outputs["curve"] = (drawn, stated)
        return stated, outputs

    def write(self, run_dir: RunDir, outputs: Mapping[str, Any]) -> None:
        super().write(run_dir, {k: v for k, v in outputs.items() if k != "curve"})
        if "curve" in outputs:
            run_dir.write_json(run_dir.pictures, [picture(*outputs["curve"])])


def only(scores: Tensor, candidate: Tensor) -> Tensor:
    """Scores with −inf for all but the candidates."""
    return scores.masked_fill(~candidate, -torch.inf)


def _split(output: SetOutput, of: Tensor) -> tuple[Tensor, Tensor]:
    """(labels, scores) of the images whose class is one of `of` (C,)."""
    assert output.labels is not None
    keep = of[output.labels]
    return output.labels[keep], output.logits[keep]


def picture(drawn: Curve, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The seen-unseen curve, for pictures.json."""
    chosen = np.unique(np.linspace(0, len(drawn.seen) - 1, POINTS).round().astype(int))
    marks = {
        "without calibration": ("generalized/seen", "generalized/unseen"),
        "γ of the held-out classes": ("calibrated/seen", "calibrated/unseen"),
    }
    series: list[dict[str, Any]] = [
        {
            "name": f"area {figures['seen_unseen_area']:.3f}",
            "x": (100 * drawn.seen[chosen]).tolist(),
            "y": (100 * drawn.unseen[chosen]).tolist(),
        }
    ]
    series += [
        {"name": name, "x": [100 * figures[s]], "y": [100 * figures[u]]}
        for name, (s, u) in marks.items()
        if figures[s] is not None
    ]
    return {
        "name": "seen_unseen",
        "title": "Seen and unseen classes together",
        "text": "Accuracy on seen and on unseen classes (means over classes) when all of them are "
        "candidates, as the scores of the seen ones are lowered by γ.",
        "kind": "lines",
        "x_label": "seen classes, %",
        "y_label": "unseen classes, %",
        "series": series,
    }
