"""Evaluators by kind of task: they turn the net and the data into rows of figures.

A method never appears here by name: `Method.predict` gives scores, the data object says which roles
exist and which labels they carry.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tlrun.config.build import locate
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError, did_you_mean
from tlrun.evaluate import metrics
from tlrun.evaluate.divergence import Chance
from tlrun.evaluate.figures import ACCURACY, KINDS, Figure, Figures
from tlrun.evaluate.images.by_class import by_class
from tlrun.evaluate.images.predicted import predictions
from tlrun.evaluate.images.sections import Section
from tlrun.evaluate.validators import SetOutput, compute_validators
from tlrun.files import csv_file
from tlrun.files.arrays import write_arrays
from tlrun.methods.base import Method
from tlrun.methods.query import Query
from tlrun.models.net import Net
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)

EMBEDDED = 500  # images of each domain kept in features.npz, for the 2-D map


class Evaluator(ABC):
    """What the engine and `conclude` ask of an evaluator."""

    def __init__(
        self,
        data: Data,
        method: Method,
        device: torch.device,
        *,
        batch_size: int,
        max_images: int,
        seed: int,
        target_test: bool,
        source_images: int | None = None,
    ) -> None:
        """source_images: how many of the source's validation images `row` looks at; None = all."""
        self.data, self.method, self.device = data, method, device
        self.batch_size, self.max_images, self.seed, self.target_test = (
            batch_size,
            max_images,
            seed,
            target_test,
        )
        self.source_images = source_images

    @property
    def rules(self) -> tuple[str, ...]:
        """Selection rules that keep a checkpoint of their own, beside those the user asked for."""
        return ()

    @property
    def headline(self) -> str:
        """The key of the one test figure to read: that of the task which was trained."""
        return "target_test/accuracy"

    def chances(self) -> dict[str, Chance]:
        """Guessing on the labelled validation sets of what is trained on, by key of `row`."""
        return {}

    @abstractmethod
    def row(self, net: Net) -> dict[str, float | None]:
        """The figures of an evaluation during training; `oracle/*` ones if allowed."""

    @abstractmethod
    def test(self, net: Net) -> tuple[Figures, Any]:
        """The final figures, and whatever `write` needs."""

    def history(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What all evaluations of the run say together, for its summary. rows: in order of time."""
        return {}

    @abstractmethod
    def write(self, run_dir: RunDir, outputs: Any) -> None:
        """The files that belong to the figures: predictions.csv, features.npz, pictures.json."""

    def images(self, net: Net, outputs: Any) -> list[Section]:
        """What the page shows of the images and of their predictions. outputs: of `test`.

        Under the same rules as the figures: nothing of the target test's labels if it is off.
        """
        return []

    def compare(
        self, run_dir: RunDir, summary: dict[str, Any], baselines: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The summary with what its baselines' summaries (by folder) add: the figures before.

        What it adds to `selected`, it describes in `figures`.
        """
        return {**summary, "before": next(iter(baselines.values()))["selected"]}


class ClassEvaluator(Evaluator):
    """Classification: one label per image."""

    def chances(self) -> dict[str, Chance]:
        domain = "source" if self.data.sources else "target"
        held = self.watched(f"{domain}_val")
        trained = {name for phase in self.method.phases(self.data) for name in phase.streams}
        if held is None or trained.isdisjoint({domain, *self.data.sources}):
            return {}
        return {f"{domain}_val/accuracy": found} if (found := chance(held.labels)) else {}

    def watched(self, role: str) -> ImageSet | None:
        """What evaluations during training look at of a role: of the source's validation images at
        most `source_images`, the same at every evaluation of a run, else all."""
        return self._watched_source if role == "source_val" else self.data.role(role)

    @cached_property
    def _watched_source(self) -> ImageSet | None:
        examples = self.data.role("source_val")
        if examples is None or self.source_images is None or len(examples) <= self.source_images:
            return examples
        log.info(
            "evaluations during training look at %s of %s validation images of the source "
            "(evaluate.source_images)",
            f"{self.source_images:,}",
            f"{len(examples):,}",
        )
        return examples.subset(sample(len(examples), self.source_images, self.seed))

    def set_output(self, net: Net, role: str, examples: ImageSet | None = None) -> SetOutput | None:
        """Scores (n, K) and features (n, D) of a role such as "target_val", on the CPU in fp32.

        examples: of that role (None = all). None if there is no such set, or if the method cannot
        judge its domain yet.
        """
        examples = self.data.role(role) if examples is None else examples
        if examples is None:
            return None
        domain = role.rpartition("_")[0]
        domain = "source" if domain in self.data.sources else domain
        features, logits = [], []
        for x, _y, _index in self.data.batches(examples, self.device, self.batch_size):
            out = self.method.predict(net, x, Query(domain=domain))
            if out.scores is None:
                return None
            assert out.features is not None
            features.append(out.features.float().cpu())
            logits.append(out.scores.float().cpu())
        return SetOutput(torch.cat(features), torch.cat(logits), examples.labels)

    def row(self, net: Net) -> dict[str, float | None]:
        """The figures of an evaluation during training; no `oracle/*` if the target test is off."""
        sets = {
            role: output
            for role in ("source_val", "target_val")
            if (output := self.set_output(net, role, self.watched(role))) is not None
        }
        row: dict[str, float | None] = {}
        for role, output in sets.items():
            if output.labels is not None:
                row[f"{role}/accuracy"] = metrics.accuracy(output.logits.argmax(1), output.labels)
                row[f"{role}/loss"] = float(cross_entropy(output.logits, output.labels))
        if "target_val" in sets:
            row["target_val/effective_classes"] = metrics.effective_classes(
                sets["target_val"].logits.argmax(1), self.data.num_classes
            )
        scores = compute_validators(sets, self.max_images, self.seed)
        row |= {f"validator/{name}": value for name, value in scores.items()}
        if (
            self.target_test
            and (test := self.set_output(net, "target_test"))
            and test.labels is not None
        ):
            row["oracle/target_test_accuracy"] = metrics.accuracy(
                test.logits.argmax(1), test.labels
            )
        return row

    def test(self, net: Net) -> tuple[Figures, dict[str, SetOutput]]:
        """The final figures on the test sets, and the predictions they were computed from."""
        figures: list[Figure] = []
        outputs: dict[str, SetOutput] = {}
        roles = dict.fromkeys(("source_test", *(f"{s}_test" for s in self.data.sources)))
        for role in (*roles, "target_test"):
            if role == "target_test" and not self.target_test:
                continue
            predicted = self.set_output(net, role)
            if predicted is None:
                continue
            outputs[role] = predicted
            figures += self._figures(role, predicted)
        if "source_test" not in outputs and (held := self.set_output(net, "source_val")):
            outputs["source_val"] = held  # for the 2-D map: benchmark sets hold no source test out
        return Figures(figures), outputs

    def _figures(self, role: str, predicted: SetOutput) -> list[Figure]:
        if predicted.labels is None:
            return [Figure(f"{role}/accuracy", None, ACCURACY)]
        classes = self.data.source_classes if role == "source_test" else self.data.classes
        guess, truth = predicted.logits.argmax(1), predicted.labels
        if role not in ("source_test", "target_test"):  # one of several sources
            return [Figure(f"{role}/accuracy", metrics.accuracy(guess, truth), ACCURACY)]
        by_class = metrics.per_class_accuracy(guess, truth, len(classes)).tolist()
        values = {
            "accuracy": metrics.accuracy(guess, truth),
            "balanced_accuracy": metrics.balanced_accuracy(guess, truth, len(classes)),
            "macro_f1": metrics.macro_f1(guess, truth, len(classes)),
            "accuracy_by_class": dict(zip(classes, by_class, strict=True)),
        }
        return [Figure(f"{role}/{key}", value, KINDS[key]) for key, value in values.items()]

    def images(self, net: Net, outputs: Mapping[str, SetOutput]) -> list[Section]:
        """Each class in every domain, and what the target test images are taken for."""
        sections = [by_class(self.data, self.seed, self.target_test)]
        if (predicted := outputs.get("target_test")) is not None:
            examples = self.data.role("target_test")
            assert examples is not None
            logits, labels, classes = predicted.logits, predicted.labels, self.data.classes
            sections.append(predictions(examples, logits, labels, classes, self.data.preprocess))
        return [section for section in sections if section is not None]

    def write(self, run_dir: RunDir, outputs: Mapping[str, SetOutput]) -> None:
        if "target_test" in outputs:
            examples = self.data.role("target_test")
            assert examples is not None
            logits = outputs["target_test"].logits
            write_predictions(
                run_dir.predictions, examples, examples.labels, logits, self.data.classes
            )
        self.write_features(run_dir.features, outputs)

    def write_features(self, path: Path, outputs: Mapping[str, SetOutput]) -> None:
        """features.npz: a seeded sample of test features of both domains, for the 2-D map.

        Of the source's validation images where it has no test set.
        """
        features, labels, domains = [], [], []
        source = "source_test" if "source_test" in outputs else "source_val"
        for number, role in enumerate((source, "target_test")):
            if role not in outputs:
                continue
            keep = sample(len(outputs[role].logits), EMBEDDED, self.seed)
            features.append(outputs[role].features[keep].numpy())
            known = outputs[role].labels
            labels.append(np.full(len(keep), -1) if known is None else known[keep].numpy())
            domains.append(np.full(len(keep), number))
        if features:
            arrays = {"features": features, "label": labels, "domain": domains}
            write_arrays(path, {name: np.concatenate(parts) for name, parts in arrays.items()})


def write_predictions(
    path: Path, examples: ImageSet, labels: Tensor | None, scores: Tensor, classes: Sequence[str]
) -> None:
    """A csv of index, path, label (empty if unknown), prediction, confidence. scores: (n, K)."""
    confidence, guess = scores.softmax(1).max(1)
    paths = examples.paths
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv_file.Writer(file)
        writer.writerow(["index", "path", "label", "prediction", "confidence"])
        for i, (g, c) in enumerate(zip(guess.tolist(), confidence.tolist(), strict=True)):
            label = "" if labels is None or labels[i] < 0 else classes[int(labels[i])]
            writer.writerow([i, paths[i] if paths else "", label, classes[g], f"{c:.6f}"])


def chance(labels: Tensor | None) -> Chance | None:
    """Of (n,) int64 labels, those below 0 unknown; None without a known one."""
    present = torch.zeros(0, dtype=torch.int64) if labels is None else labels[labels >= 0]
    return Chance.of(torch.bincount(present).tolist()) if len(present) else None


def sample(count: int, most: int, seed: int) -> Tensor:
    """At most `most` of `count` indices, seeded, sorted."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)[:most].sort().values


EVALUATORS = {
    "class": "tlrun.evaluate.evaluators.class_figures.ClassEvaluator",
    "clusters": "tlrun.evaluate.evaluators.cluster_figures.ClusterEvaluator",
    "attributes": "tlrun.evaluate.evaluators.attribute_figures.AttributeEvaluator",
    "attributes in turn": "tlrun.evaluate.evaluators.left_out_figures.LeftOutEvaluator",
    "episodes": "tlrun.evaluate.evaluators.episode_figures.EpisodeEvaluator",
    "tasks": "tlrun.evaluate.evaluators.task_figures.TaskEvaluator",
}


def evaluator_of(data: Data) -> type[Evaluator]:
    """The evaluator that the data ask for: their own, else by the kind of their task.

    That of clusters where no classes are learned, that of classes in turn where none stays unseen.
    """
    kind = "clusters" if data.kind == "class" and not data.classes else data.kind
    kind = "attributes in turn" if getattr(data.facts, "leave_out", 0) else kind
    if kind not in EVALUATORS:
        raise ConfigError(f"no evaluator '{kind}': {did_you_mean(kind, EVALUATORS)}")
    evaluator: type[Evaluator] = locate(EVALUATORS[kind])
    return evaluator
