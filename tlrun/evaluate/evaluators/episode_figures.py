"""Evaluator of episodes: accuracy on new classes from a few images of each, with its interval.

    few_shot/5way_1shot/accuracy    mean over episodes of the share of right queries
    few_shot/5way_1shot/ci95        1.96 s / √E, s the standard deviation between E episodes
    few_shot/5way_1shot_joint...    base and novel classes in one classifier (joint_episodes.py)

The episodes are a hash of their number alone, the same for every run, method and seed. During
training only the validation classes are used (`validator/source_accuracy`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.problems.episodes import ClassTable, EpisodeData, FixedEpisodes, labels_of
from tlrun.data.problems.label_space import Shape
from tlrun.data.problems.pair import Data
from tlrun.evaluate.divergence import Chance
from tlrun.evaluate.evaluators.class_figures import Evaluator
from tlrun.evaluate.evaluators.joint_episodes import (
    KINDS,
    BaseClasses,
    joint_accuracies,
    representative,
    setting,
)
from tlrun.evaluate.figures import ACCURACY, Figure, Figures, Kind
from tlrun.evaluate.images.episode import episode
from tlrun.evaluate.images.sections import Section
from tlrun.files import csv_file
from tlrun.methods.few_shot.episodic import FewShot
from tlrun.methods.query import Query, Support
from tlrun.models.net import Net
from tlrun.models.prefix import WHOLE, Entry
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger("tlrun")

AT_ONCE = 100  # episodes whose features are compared together


class EpisodeEvaluator(Evaluator):
    """Few-shot classification. Methods without scores for a way (MAML's head) give no figure."""

    data: EpisodeData

    def __init__(self, data: Data, *arguments: Any, **settings: Any) -> None:
        assert isinstance(data, EpisodeData)
        super().__init__(data, *arguments, **settings)
        method = self.method
        self.by_features = (
            isinstance(method, FewShot) and type(method).classify is not FewShot.classify
        )

    def chances(self) -> dict[str, Chance]:
        shape = self.data.tests[0]
        queries = self.data.val_episodes * shape.way * shape.query
        return {"source_val/accuracy": Chance(1 / shape.way, queries)}

    def row(self, net: Net) -> dict[str, float | None]:
        """Validation classes; novel ones (`oracle/*`) only where the target test is allowed."""
        shape, count = self.data.tests[0], self.data.val_episodes
        mean, interval = self._figure(net, "source_val", shape, count)
        row = {
            "source_val/accuracy": mean,
            "source_val/ci95": interval,
            "validator/source_accuracy": mean,
        }
        if self.target_test:
            row["oracle/target_test_accuracy"] = self._figure(net, "target_test", shape, count)[0]
        return row

    def test(self, net: Net) -> tuple[Figures, dict[str, Tensor]]:
        """The final figures of every (way, shot), and the accuracies of the episodes."""
        shapes, count = self.data.tests, self.data.test_episodes
        mean, interval = self._figure(net, "source_val", shapes[0], count)
        figures = [Figure("source_val/accuracy", mean, ACCURACY, interval)]
        if not self.target_test:
            return Figures(figures), {}
        found: dict[str, Tensor] = {}
        features = self._features(net, self._set("target_test"))
        for shape in shapes:
            result = self.accuracies(net, "target_test", shape, count, features)
            if result is not None:
                found[f"{shape.way}way_{shape.shot}shot"] = result
        joint = self.joint(net, features)
        for fixed in self.data.fixed:
            if (result := self.fixed_accuracies(net, fixed)) is not None:
                found[fixed.name] = result
        for name, accuracies in found.items():
            figures.append(Figure(f"few_shot/{name}/accuracy", *_with_interval(accuracies)))
        for name, (accuracies, kind) in joint.items():
            mean, interval = mean_and_interval(accuracies)
            figures.append(Figure(f"few_shot/{name}", mean, kind, interval))
        first = found.get(f"{shapes[0].way}way_{shapes[0].shot}shot")
        figures.append(Figure("target_test/accuracy", *_with_interval(first)))
        return Figures(figures), found

    def write(self, run_dir: RunDir, found: dict[str, Tensor]) -> None:
        """episodes.csv: the accuracy of every episode of the final test."""
        if not found:
            return
        with (run_dir.path / "episodes.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv_file.Writer(file)
            writer.writerow(["setting", "episode", "accuracy"])
            for name, accuracies in found.items():
                writer.writerows(
                    [name, i, f"{value:.6f}"] for i, value in enumerate(accuracies.tolist())
                )

    def images(self, net: Net, outputs: Any) -> list[Section]:
        """The first episode of the closing test; of validation classes if that is off."""
        role, what = ("target_test", "novel") if self.target_test else ("source_val", "validation")
        examples, shape = self._set(role), self.data.tests[0]
        drawn = ClassTable(examples, shape, role).draw("test", role, 0)
        order, places = drawn.flatten().sort()
        chosen = examples.subset(order)
        place = places.argsort().view_as(drawn)  # of each image in the subset
        support, query = place[:, : shape.shot].flatten()[None], place[:, shape.shot :].flatten()
        y = labels_of(shape.way, shape.shot)[None]
        features = self._features(net, chosen)
        guesses = self._guesses(net, chosen, features, support, y, query[None])
        guesses = None if guesses is None else guesses.view(shape.way, shape.query)
        return [episode(examples, drawn, shape, guesses, self.data.preprocess, what)]

    def joint(self, net: Net, novel: Tensor | None) -> dict[str, tuple[Tensor, Kind]]:
        """Of base and novel classes together, by the end of the figure's key: accuracies (E,) and
        their kind; {} where no images of base classes are held back (data.base_test)."""
        train, held, method = (
            self.data.role("source_train"),
            self.data.role("source_test"),
            self.method,
        )
        if train is None or held is None:
            return {}
        if novel is None or not isinstance(method, FewShot) or not method.joint:
            log.warning(
                "data.base_test holds base images back, and this method has no prototypes of base "
                "classes: choose protonet, baseline_pp or simple_shot, or data.base_test=0"
            )
            return {}
        shown, queries = representative(train), self._features(net, held)
        known = self._features(net, shown)
        assert known is not None
        assert queries is not None
        labels, truth = shown.labels, held.labels
        assert labels is not None
        assert truth is not None
        prototypes = method.base_prototypes(net, known, labels.to(self.device))
        base = BaseClasses(prototypes, queries, truth)
        examples, episodes = self._set("target_test"), range(self.data.test_episodes)
        found: dict[str, tuple[Tensor, Kind]] = {}
        for shape in self.data.tests:
            table = ClassTable(examples, shape, "novel classes")
            values = joint_accuracies(method, net, base, novel, table, episodes, AT_ONCE)
            name = f"{setting(shape)}_joint"
            found |= {f"{name}{key}": (values[key], kind) for key, kind in KINDS.items()}
        return found

    # ---- episodes ---------------------------------------------------------------------------

    def accuracies(
        self, net: Net, role: str, shape: Shape, count: int, features: Tensor | None = None
    ) -> Tensor | None:
        """(count,) float64: share of right queries of each episode; None without scores.

        features: those of the role's images, if they are at hand.
        """
        examples = self._set(role)
        table = ClassTable(examples, shape, role)
        drawn = torch.stack([table.draw("test", role, i) for i in range(count)])
        support, query = drawn[:, :, : shape.shot].flatten(1), drawn[:, :, shape.shot :].flatten(1)
        y = labels_of(shape.way, shape.shot)[None].expand_as(support)
        target = labels_of(shape.way, shape.query)[None].expand_as(query)
        if features is None and self.by_features:  # of no more images than the episodes have
            used = drawn.unique()
            examples = examples.subset(used)
            place = torch.zeros(int(used.max()) + 1, dtype=torch.int64)
            place[used] = torch.arange(len(used))
            support, query = place[support], place[query]
            features = self._features(net, examples)
        return self._judge(net, examples, features, support, y, query, target)

    def fixed_accuracies(self, net: Net, fixed: FixedEpisodes) -> Tensor | None:
        """(R,) float64: the same for published episodes."""
        return self._judge(
            net,
            fixed.examples,
            self._features(net, fixed.examples),
            fixed.support,
            fixed.support_labels,
            fixed.query,
            fixed.query_labels,
        )

    def _judge(
        self,
        net: Net,
        examples: ImageSet,
        features: Tensor | None,
        support: Tensor,
        y: Tensor,
        query: Tensor,
        target: Tensor,
    ) -> Tensor | None:
        """(E,) float64: the share of right queries. target: (E, Q); the others: `_guesses`."""
        guesses = self._guesses(net, examples, features, support, y, query)
        return None if guesses is None else (guesses == target).double().mean(1)

    def _guesses(
        self,
        net: Net,
        examples: ImageSet,
        features: Tensor | None,
        support: Tensor,
        y: Tensor,
        query: Tensor,
    ) -> Tensor | None:
        """(E, Q) int64. support, y: (E, M); query: (E, Q); the rows of y are alike."""
        found: list[Tensor] = []
        if features is not None:
            assert isinstance(self.method, FewShot)
            labels = y[0].to(self.device)
            for a, b in zip(query.split(AT_ONCE), support.split(AT_ONCE), strict=True):
                scores = self.method.classify(net, features[a], features[b], labels)
                found.append(scores.argmax(2).cpu())
        else:
            with self._reading(net, examples, torch.cat([query, support], dim=1)) as read:
                for a, b, labels in zip(query, support, y, strict=True):
                    asked = Query(support=Support(read(b), labels.to(self.device)))
                    out = self.method.predict(net, read(a), asked).scores
                    if out is None:
                        return None
                    found.append(out.argmax(1).cpu()[None])
        return torch.cat(found)

    @contextmanager
    def _reading(
        self, net: Net, examples: ImageSet, drawn: Tensor
    ) -> Iterator[Callable[[Tensor], Tensor]]:
        """Images by their index; inside, what a frozen backbone makes of them, each of those drawn
        being run once, as `Net.entry` has it in training."""
        if net.entry or not self._holds_backbone_still(net):
            yield lambda index: self._read(examples, index)
            return
        used = drawn.unique()
        place = torch.zeros(int(used.max()) + 1, dtype=torch.int64)
        place[used] = torch.arange(len(used))
        batches = self.data.batches(examples.subset(used), self.device, self.batch_size)
        features = torch.cat([net.run("backbone", x) for x, _y, _index in batches])
        net.entry = Entry(WHOLE, tuple(features.shape[1:]), features[0].nbytes)
        try:
            yield lambda index: features[place[index]]
        finally:
            net.entry = None

    def _holds_backbone_still(self, net: Net) -> bool:
        """Whether no episode changes the backbone, and the method gives images to the net alone."""
        method = self.method
        still = method.frozen if isinstance(method, FewShot) and not method.needs_images else ()
        return set(net.path("backbone")) <= set(still)

    def _figure(
        self, net: Net, role: str, shape: Shape, count: int
    ) -> tuple[float | None, float | None]:
        found = self.accuracies(net, role, shape, count)
        return (None, None) if found is None else mean_and_interval(found)

    def _features(self, net: Net, examples: ImageSet) -> Tensor | None:
        """(n, D) float32 of all images; None for a method whose features depend on the episode."""
        if not self.by_features:
            return None
        blocks = []
        for x, _y, _index in self.data.batches(examples, self.device, self.batch_size):
            features = self.method.predict(net, x, Query()).features
            assert features is not None
            blocks.append(features.float())
        return torch.cat(blocks)

    def _set(self, role: str) -> ImageSet:
        examples = self.data.role(role)
        assert examples is not None
        return examples

    def _read(self, examples: ImageSet, index: Tensor) -> Tensor:
        return self.data.inputs(examples, index, self.device)


def _with_interval(accuracies: Tensor | None) -> tuple[float | None, Kind, float | None]:
    """(value, kind, ci95) of a figure."""
    mean, interval = (None, None) if accuracies is None else mean_and_interval(accuracies)
    return mean, ACCURACY, interval


def mean_and_interval(accuracies: Tensor) -> tuple[float, float]:
    """(mean, 1.96 s / √E) of the accuracies (E,) of episodes."""
    spread = float(accuracies.std()) if len(accuracies) > 1 else math.nan
    return float(accuracies.mean()), 1.96 * spread / math.sqrt(len(accuracies))
