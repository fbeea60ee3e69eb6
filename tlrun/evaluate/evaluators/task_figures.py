"""Evaluator of several tasks: each is judged by its own kind on its own images.

    <task>_val/accuracy | <task>_val/iou      during training (kind class | box), with the loss
    task/<task>                               that figure again: what its own checkpoint maximises
    task/mean                                 their mean: select=task_mean
    target_val/..., target_test/...           the target task's figures once more, the headline
    oracle/<task>_test                        test figures, only if the target test is allowed
    oracle/target_test_accuracy | ..._iou     that of the target task once more
    parameters                                of the net so far

A box has no class accuracy: where the target task is one, `target_test/accuracy` is null and
`target_test/iou` the headline.

Tasks that are learned one after the other leave the matrix R (task_matrix.py).
With models of one task each for comparison (`baseline=true`) also `alone` and delta_m. A task that
the method cannot judge yet (no head) has no figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.problems.label_space import Task, TaskFacts, facts_as
from tlrun.evaluate import metrics
from tlrun.evaluate.divergence import Chance
from tlrun.evaluate.evaluators.class_figures import ClassEvaluator, chance, write_predictions
from tlrun.evaluate.figures import (
    ACCURACY,
    KINDS,
    Figure,
    Figures,
    Kind,
    difference,
    oracle_key,
    written,
)
from tlrun.evaluate.images.predicted import predictions
from tlrun.evaluate.images.sections import Section
from tlrun.evaluate.images.tasks import drawn_boxes, of_task
from tlrun.evaluate.task_matrix import TaskMatrix
from tlrun.methods.base import Output
from tlrun.methods.query import Query
from tlrun.models.net import Net
from tlrun.run_folder.run_dir import RunDir

Values = dict[str, Any]
BOX_ERROR = Kind("mean absolute error of the sides", "sides", False)
TASKS_WITH_IMAGES = 4  # on the page; of more, the first
MAIN = {"class": "accuracy", "box": "iou"}  # the figure that stands for a task; higher is better


class TaskEvaluator(ClassEvaluator):
    """Of data with several tasks (`TaskFacts`)."""

    @property
    def facts(self) -> TaskFacts:
        return facts_as(self.data.facts, TaskFacts)

    @property
    def rules(self) -> tuple[str, ...]:
        """Selection rules that keep a checkpoint beside the user's: the best of each task."""
        return tuple(f"task_{name}" for name in self.data.tasks)

    @property
    def headline(self) -> str:
        return f"target_test/{MAIN[self.data.tasks[self.facts.target_task].kind]}"

    def chances(self) -> dict[str, Chance]:
        found = {}
        for name, task in self.data.tasks.items():
            held = self.data.role(f"{task.domain or task.name}_val")
            if task.kind == "class" and held is not None:
                found[f"{name}_val/accuracy"] = chance(task.truth(held.labels, held.columns))
        return {key: value for key, value in found.items() if value is not None}

    def row(self, net: Net) -> dict[str, float | None]:
        row: dict[str, float | None] = {"parameters": sum(p.numel() for p in net.parameters())}
        main: dict[str, float] = {}
        for name, task in self.data.tasks.items():
            for split in ("val", "test") if self.target_test else ("val",):
                figures = self.figures(net, task, split)
                best = figures.get(MAIN[task.kind])
                if best is None:
                    continue
                if split == "test":
                    row[f"oracle/{name}_test"] = best
                    continue
                row |= {f"{name}_val/{key}": figures[key] for key in (MAIN[task.kind], "loss")}
                row[f"task/{name}"] = main[name] = best
        if main:
            row["task/mean"] = sum(main.values()) / len(main)
        target = self.facts.target_task
        if target in main:
            row[f"target_val/{MAIN[self.data.tasks[target].kind]}"] = main[target]
        if self.target_test:
            row[oracle_key(self.headline)] = row.get(f"oracle/{target}_test")
        return row

    def test(self, net: Net) -> tuple[Figures, Any]:
        found: list[Figure] = []
        outputs: dict[str, Output] = {}
        if not self.target_test:
            return Figures(found), outputs
        for name, task in self.data.tasks.items():
            out = self.outputs(net, task, "test")
            if out is None:
                continue
            outputs[name] = out
            figures = judge(out, self._set(task, "test"), task)
            found += [figure.under(f"{name}_test") for figure in figures.stated.values()]
            if name == self.facts.target_task:
                found += [figure.under("target_test") for figure in figures.stated.values()]
                if task.kind == "box":
                    found.append(Figure("target_test/accuracy", None, ACCURACY))
        return Figures(found), outputs

    def write(self, run_dir: RunDir, outputs: Any) -> None:
        """predictions.csv of the target task, predictions_<task>.csv of other class tasks."""
        for name, out in outputs.items():
            if (task := self.data.tasks[name]).kind == "class" and out.scores is not None:
                target = name == self.facts.target_task
                path = run_dir.predictions
                path = path if target else path.with_stem(f"{path.stem}_{name}")
                examples = self._set(task, "test")
                truth = task.truth(examples.labels, examples.columns)
                write_predictions(path, examples, truth, out.scores, task.classes)

        if (matrix := self._matrix(self._eval_rows(run_dir))) is not None:
            add_entry(run_dir.pictures, matrix.picture())
            add_entry(run_dir.tables, matrix.table())

    def images(self, net: Net, outputs: Any) -> list[Section]:
        """What the first tasks learn from, or their boxes beside the true ones, and the errors of
        the target task."""
        sections: list[Section | None] = []
        for name, task in list(self.data.tasks.items())[:TASKS_WITH_IMAGES]:
            boxes = outputs[name].boxes if name in outputs else None
            split = "train" if boxes is None else "test"
            examples = self._set(task, split)
            if boxes is None:
                sections.append(of_task(task, examples, self.data.preprocess, self.seed))
            else:
                sections.append(drawn_boxes(task, examples, self.data.preprocess, self.seed, boxes))
        target = self.data.tasks[self.facts.target_task]
        out = outputs.get(target.name)
        if out is not None and out.scores is not None:
            examples = self._set(target, "test")
            truth = target.truth(examples.labels, examples.columns)
            sections.append(
                predictions(
                    examples,
                    out.scores,
                    truth,
                    target.classes,
                    self.data.preprocess,
                    f"test images of {target.name}",
                )
            )
        return [section for section in sections if section is not None]

    def history(self, rows: Sequence[Mapping[str, Any]]) -> Values:
        """The matrix R and the forgetting of a sequence of tasks; nothing for tasks at once."""
        matrix = self._matrix(rows)
        return matrix.summary() if matrix else {}

    def _matrix(self, rows: Sequence[Mapping[str, Any]]) -> TaskMatrix | None:
        units = {name: KINDS[MAIN[task.kind]].unit for name, task in self.data.tasks.items()}
        return TaskMatrix.of(rows, list(units), units)

    @staticmethod
    def _eval_rows(run_dir: RunDir) -> list[dict[str, Any]]:
        return [row for row in run_dir.read_metrics() if row.get("split") == "eval"]

    def compare(self, run_dir: RunDir, summary: Values, baselines: Mapping[str, Values]) -> Values:
        """With `alone`, the figures of models of one task each, `gain` (what is above them; of
        tasks in sequence the forward transfer), and selected["delta_m"].
        """
        alone: dict[str, float] = {}
        joint: dict[str, float] = {}
        for name, task in self.data.tasks.items():
            key = f"{name}_test/{MAIN[task.kind]}"
            own = [b["selected"][key] for b in baselines.values() if key in b["selected"]]
            if own and key in summary["selected"]:
                alone[name], joint[name] = own[-1], summary["selected"][key]
        if not alone:
            return summary
        gain = metrics.delta_m(joint, alone)
        add_entry(run_dir.tables, self.table(joint, alone, gain))
        add_entry(run_dir.pictures, self.picture(joint, alone))
        found = Figures([Figure("delta_m", gain, KINDS["delta_m"])])
        gains = {name: joint[name] - alone[name] for name in alone}
        return {
            **summary,
            "selected": {**summary["selected"], **found},
            "figures": {**summary.get("figures", {}), **found.about()},
            "alone": alone,
            "gain": gains,
        }

    def table(
        self, joint: Mapping[str, float], alone: Mapping[str, float], gain: float
    ) -> dict[str, Any]:
        """Each task alone and together with the others, for tables.json."""
        examples = self.facts.examples
        rows = []
        for name in alone:
            task = self.data.tasks[name]
            kind = KINDS[MAIN[task.kind]]
            rows.append(
                [
                    name,
                    examples[task.domain or name],
                    kind.name + (", %" if kind.unit == "share" else ""),
                    *(written(value, kind.unit) for value in (alone[name], joint[name])),
                    difference(joint[name] - alone[name], kind.unit),
                ]
            )
        return {
            "name": "tasks_alone",
            "title": "Every task alone, and with the others",
            "text": "Test figures. Alone: a model of its own, with as many steps and as many "
            f"of its images. Mean relative gain Δm: {100 * gain:+.2f} %.",
            "columns": ["task", "training images", "figure", "alone", "together", "difference"],
            "rows": rows,
        }

    def picture(self, joint: Mapping[str, float], alone: Mapping[str, float]) -> dict[str, Any]:
        """The same as bars, for pictures.json."""
        series = {"alone": alone, "together": joint}
        return {
            "name": "tasks_alone",
            "title": "Every task alone, and with the others",
            "kind": "bars",
            "labels": list(alone),
            "y_label": axis_label(self.data.tasks[name].kind for name in alone),
            "series": [
                {"name": name, "values": [100 * v for v in figures.values()]}
                for name, figures in series.items()
            ],
        }

    # ---- one task -----------------------------------------------------------------------------

    def figures(self, net: Net, task: Task, split: str) -> Figures:
        """Of a task on "val" or "test"; empty without such a set or without a head."""
        out = self.outputs(net, task, split)
        return Figures() if out is None else judge(out, self._set(task, split), task)

    def outputs(self, net: Net, task: Task, split: str) -> Output | None:
        """Scores (n, K) or boxes (n, 4) of a whole set, on the CPU in fp32."""
        domain = task.domain or task.name
        examples = self.data.role(f"{domain}_{split}")
        if examples is None or len(examples) == 0:
            return None
        blocks: dict[str, list[Tensor]] = {}
        for x, _y, _index in self.data.batches(examples, self.device, self.batch_size):
            out = self.method.predict(net, x, Query(task.name, domain))
            for key in ("scores", "boxes", "features"):
                if (value := getattr(out, key)) is not None:
                    blocks.setdefault(key, []).append(value.detach().float().cpu())
        wanted = "scores" if task.kind == "class" else "boxes"
        if wanted not in blocks:
            return None
        return Output(**{key: torch.cat(values) for key, values in blocks.items()})

    def _set(self, task: Task, split: str) -> ImageSet:
        examples = self.data.role(f"{task.domain or task.name}_{split}")
        assert examples is not None
        return examples


def add_entry(path: Path, entry: dict[str, Any]) -> None:
    """Add to a list that the report reads (tables.json, pictures.json), in place of its name."""
    had = RunDir.read_json(path, list[dict]) if path.is_file() else []
    RunDir.write_json(path, [*(e for e in had if e.get("name") != entry["name"]), entry])


def axis_label(kinds: Iterable[str], on: str = "test") -> str:
    """Of an axis in hundredths that tasks of these kinds share."""
    units = {"class": f"{on} accuracy, %", "box": f"{on} IoU, hundredths"}
    return "; ".join(units[kind] for kind in dict.fromkeys(kinds))


def judge(out: Output, examples: ImageSet, task: Task) -> Figures:
    """The figures of predictions of one kind of task."""
    truth = task.truth(examples.labels, examples.columns)
    if task.kind == "box":
        assert out.boxes is not None
        values: Values = metrics.box_values(out.boxes, truth)
        return Figures(
            Figure(key, value, BOX_ERROR if key == "loss" else KINDS[key])
            for key, value in values.items()
        )
    assert out.scores is not None
    guess, count = out.scores.argmax(1), len(task.classes)
    by_class = metrics.per_class_accuracy(guess, truth, count).tolist()
    values = {
        "accuracy": metrics.accuracy(guess, truth),
        "loss": float(cross_entropy(out.scores, truth, ignore_index=-1)),
        "balanced_accuracy": metrics.balanced_accuracy(guess, truth, count),
        "accuracy_by_class": dict(zip(task.classes, by_class, strict=True)),
    }
    return Figures(Figure(key, value, KINDS[key]) for key, value in values.items())
