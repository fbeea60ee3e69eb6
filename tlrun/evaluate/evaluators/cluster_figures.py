"""Evaluator of a net that has learned no classes: are its features sorted by those that there are?

    target_test/clustering_accuracy    k-means, each cluster taken for the class that suits it best
    target_test/nmi                    normalised mutual information of clusters and classes

Test labels score, and nothing else sees them: k-means is given their number of classes alone. Sets
without labels have no figures; `features.npz` holds their features all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from tlrun.data.examples.image_set import ImageSet
from tlrun.evaluate.clusters import cluster_figures
from tlrun.evaluate.divergence import Chance
from tlrun.evaluate.evaluators.class_figures import ClassEvaluator
from tlrun.evaluate.figures import KINDS, Figure, Figures
from tlrun.evaluate.images.by_class import by_class
from tlrun.evaluate.images.sections import Section
from tlrun.evaluate.validators import SetOutput
from tlrun.methods.query import Query
from tlrun.models.net import Net
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger("tlrun")

TESTS = ("source_test", "target_test")


class ClusterEvaluator(ClassEvaluator):
    """Features of images, by the classes of their test sets."""

    @property
    def headline(self) -> str:
        return "target_test/clustering_accuracy"

    def chances(self) -> dict[str, Chance]:
        return {}

    def set_output(self, net: Net, role: str, examples: ImageSet | None = None) -> SetOutput | None:
        """Features (n, D) of a role, on the CPU in fp32, with scores of no class (n, 0).

        examples: of that role (None = all).
        """
        examples = self.data.role(role) if examples is None else examples
        if examples is None:
            return None
        query, features = Query(domain=role.rpartition("_")[0]), []
        for x, _y, _index in self.data.batches(examples, self.device, self.batch_size):
            found = self.method.predict(net, x, query).features
            assert found is not None
            features.append(found.flatten(1).float().cpu())
        together = torch.cat(features)
        return SetOutput(together, torch.zeros(len(together), 0), examples.labels)

    def row(self, net: Net) -> dict[str, float | None]:
        """The figures of the target test, if it is allowed: no other set has labels to score by."""
        if not self.target_test:
            return {}
        figures = self._clusters(self.set_output(net, "target_test"))
        return {f"oracle/target_test_{key}": value for key, value in figures.items()}

    def test(self, net: Net) -> tuple[Figures, dict[str, SetOutput]]:
        roles = [role for role in TESTS if role != "target_test" or self.target_test]
        sets = {role: self.set_output(net, role) for role in roles}
        outputs = {role: output for role, output in sets.items() if output is not None}
        figures = [
            Figure(f"{role}/{key}", value, KINDS[key])
            for role, output in outputs.items()
            for key, value in self._clusters(output).items()
        ]
        return Figures(figures), outputs

    def _clusters(self, output: SetOutput | None) -> dict[str, float | None]:
        """{} for a set without labels."""
        if output is None or output.labels is None:
            return {}
        return cluster_figures(output.features, output.labels, self.seed)

    def images(self, net: Net, outputs: Mapping[str, SetOutput]) -> list[Section]:
        """Each class in every domain."""
        section = by_class(self.data, self.seed, self.target_test)
        return [] if section is None else [section]

    def write(self, run_dir: RunDir, outputs: Mapping[str, SetOutput]) -> None:
        self.write_features(run_dir.features, outputs)
        target: Tensor | None = outputs["target_test"].labels if "target_test" in outputs else None
        scored = "scored by its test labels alone" if target is not None else "not scored"
        log.info(
            "no target labels: the net has learned no classes, and its features are %s. Start from "
            "them where there are labels: method=finetune init=%s",
            scored,
            run_dir.path,
        )
