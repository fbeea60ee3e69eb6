"""Evaluator of several tasks: each is judged by its own kind on its own images.

    <task>_val/accuracy | <task>_val/iou      during training (kind class | box), with the loss
    task/<task>                               that figure again: what its own checkpoint maximises
    task/mean                                 their mean: select=task_mean
    target_val/accuracy, target_test/...      the target task's figures once more, the headline
    oracle/<task>_test                        test figures, only if the target test is allowed
    parameters                                of the net so far

Tasks that are learned one after the other leave the matrix R (task_matrix.py).
With models of one task each for comparison (`baseline=true`) also `alone` and delta_m. A task that
the method cannot judge yet (no head) has no figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tlrun.data.image_set import ImageSet
from tlrun.data.pair import Task
from tlrun.data.streams import batches
from tlrun.data.tasks import TaskData
from tlrun.evaluate import metrics
from tlrun.evaluate.evaluators import ClassEvaluator, write_predictions
from tlrun.evaluate.task_matrix import TaskMatrix
from tlrun.methods.method import Output
from tlrun.models.net import Net
from tlrun.run_dir import RunDir

Figures = dict[str, Any]
MAIN = {"class": "accuracy", "box": "iou"}  # the figure that stands for a task; higher is better


class TaskEvaluator(ClassEvaluator):
    """`data` is a TaskData."""

    data: TaskData

    @property
    def rules(self) -> tuple[str, ...]:
        """Selection rules that keep a checkpoint beside the user's: the best of each task."""
        return tuple(f"task_{name}" for name in self.data.tasks)

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
        target = self.data.target_task
        if target in main:
            row["target_val/accuracy"] = main[target]
        if self.target_test:
            row["oracle/target_test_accuracy"] = row.get(f"oracle/{target}_test")
        return row

    def test(self, net: Net) -> tuple[Figures, Any]:
        found: Figures = {}
        outputs: dict[str, Output] = {}
        if not self.target_test:
            return found, outputs
        for name, task in self.data.tasks.items():
            out = self.outputs(net, task, "test")
            if out is None:
                continue
            outputs[name] = out
            figures = judge(out, self._set(task, "test"), task)
            found |= {f"{name}_test/{key}": value for key, value in figures.items()}
            if name == self.data.target_task:
                found |= {f"target_test/{key}": value for key, value in figures.items()}
                found["target_test/accuracy"] = figures.get(MAIN[task.kind])
        return found, outputs

    def write(self, run_dir: RunDir, found: Any) -> None:
        """predictions.csv of the target task, predictions_<task>.csv of other class tasks."""
        for name, out in found.items():
            if (task := self.data.tasks[name]).kind == "class" and out.scores is not None:
                target = name == self.data.target_task
                path = run_dir.predictions
                path = path if target else path.with_stem(f"{path.stem}_{name}")
                examples = self._set(task, "test")
                truth = task.truth(examples.labels, examples.columns)
                write_predictions(path, examples, truth, out.scores, task.classes)

        if (matrix := TaskMatrix.of(self._eval_rows(run_dir), list(self.data.tasks))) is not None:
            add_entry(run_dir.pictures, matrix.picture())
            add_entry(run_dir.tables, matrix.table())

    def history(self, rows: Sequence[Mapping[str, Any]]) -> Figures:
        """The matrix R and the forgetting of a sequence of tasks; nothing for tasks at once."""
        matrix = TaskMatrix.of(rows, list(self.data.tasks))
        return matrix.summary() if matrix else {}

    @staticmethod
    def _eval_rows(run_dir: RunDir) -> list[dict[str, Any]]:
        return [row for row in run_dir.read_metrics() if row.get("split") == "eval"]

    def compare(
        self, run_dir: RunDir, summary: Figures, baselines: Mapping[str, Figures]
    ) -> Figures:
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
        selected = {**summary["selected"], "delta_m": gain}
        gains = {name: joint[name] - alone[name] for name in alone}
        return {**summary, "selected": selected, "alone": alone, "gain": gains}

    def table(
        self, joint: Mapping[str, float], alone: Mapping[str, float], gain: float
    ) -> dict[str, Any]:
        """Each task alone and together with the others, for tables.json."""
        examples = self.data.facts["examples"]
        rows = [
            [
                name,
                examples[(task := self.data.tasks[name]).domain],
                MAIN[task.kind],
                *(f"{100 * share:.1f}" for share in (alone[name], joint[name])),
                f"{100 * (joint[name] - alone[name]):+.1f}",
            ]
            for name in alone
        ]
        return {
            "name": "tasks_alone",
            "title": "Every task alone, and with the others",
            "text": "Test figures in %. Alone: a model of its own, with as many steps and as many "
            f"of its images. Mean relative gain Δm: {100 * gain:+.2f} %.",
            "columns": ["task", "training images", "figure", "alone", "together", "points"],
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
            "y_label": "test figure, %",
            "series": [
                {"name": name, "values": [100 * v for v in figures.values()]}
                for name, figures in series.items()
            ],
        }

    # ---- one task -----------------------------------------------------------------------------

    def figures(self, net: Net, task: Task, split: str) -> Figures:
        """Of a task on "val" or "test"; empty without such a set or without a head."""
        out = self.outputs(net, task, split)
        return {} if out is None else judge(out, self._set(task, split), task)

    def outputs(self, net: Net, task: Task, split: str) -> Output | None:
        """Scores (n, K) or boxes (n, 4) of a whole set, on the CPU in fp32."""
        domain = task.domain or task.name
        examples = self.data.role(f"{domain}_{split}")
        if examples is None or len(examples) == 0:
            return None
        found: dict[str, list[Tensor]] = {}
        for x, _y, _index in batches(examples, self.data.preprocess, self.device, self.batch_size):
            out = self.method.predict(net, x, task=task.name, domain=domain)
            for key in ("scores", "boxes", "features"):
                if (value := getattr(out, key)) is not None:
                    found.setdefault(key, []).append(value.detach().float().cpu())
        wanted = "scores" if task.kind == "class" else "boxes"
        if wanted not in found:
            return None
        return Output(**{key: torch.cat(values) for key, values in found.items()})

    def _set(self, task: Task, split: str) -> ImageSet:
        examples = self.data.role(f"{task.domain or task.name}_{split}")
        assert examples is not None
        return examples


def add_entry(path: Path, entry: dict[str, Any]) -> None:
    """Add to a list that the report reads (tables.json, pictures.json), in place of its name."""
    had = RunDir.read_json(path) if path.is_file() else []
    RunDir.write_json(path, [*(e for e in had if e["name"] != entry["name"]), entry])


def judge(out: Output, examples: ImageSet, task: Task) -> Figures:
    """The figures of predictions of one kind of task."""
    truth = task.truth(examples.labels, examples.columns)
    if task.kind == "box":
        assert out.boxes is not None
        return metrics.box_figures(out.boxes, truth)
    assert out.scores is not None
    guess, count = out.scores.argmax(1), len(task.classes)
    by_class = metrics.per_class_accuracy(guess, truth, count).tolist()
    return {
        "accuracy": metrics.accuracy(guess, truth),
        "loss": float(cross_entropy(out.scores, truth, ignore_index=-1)),
        "balanced_accuracy": metrics.balanced_accuracy(guess, truth, count),
        "accuracy_by_class": dict(zip(task.classes, by_class, strict=True)),
    }
