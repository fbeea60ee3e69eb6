"""What a sequence of tasks leaves of each: the matrix R of Lopez-Paz and Ranzato (NeurIPS 2017).

R[i][j] is the figure of task j at the end of phase i: test figures, or the validation's where the
test is switched off. Forgetting of task j is the best of R[i][j] before the last phase less its
value after it (Chaudhry et al., ECCV 2018). Pure functions over the rows of metrics.jsonl.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tlrun.evaluate.figures import Unit, written

Row = Mapping[str, Any]


@dataclass
class TaskMatrix:
    """phases: I names, tasks: J names, values: I lists of J figures in [0, 1] (None: no head yet).

    parameters: of the net in each phase. on: "test" or "validation". units: of the tasks' figures,
    shares where nothing is said.
    """

    phases: list[str]
    tasks: list[str]
    values: list[list[float | None]]
    parameters: list[int | None]
    on: str
    units: Mapping[str, Unit] = field(default_factory=dict)

    @classmethod
    def of(
        cls, rows: Sequence[Row], tasks: Sequence[str], units: Mapping[str, Unit] | None = None
    ) -> TaskMatrix | None:
        """From evaluation rows in order of time; None unless several phases bear names of tasks."""
        last = {str(row.get("phase")): row for row in rows}
        if len(last) < 2 or not set(last) <= set(tasks):
            return None
        tested = any(f"oracle/{task}_test" in row for row in rows for task in tasks)
        keys = [f"oracle/{task}_test" if tested else f"task/{task}" for task in tasks]
        return cls(
            list(last),
            list(tasks),
            [[row.get(key) for key in keys] for row in last.values()],
            [row.get("parameters") for row in last.values()],
            "test" if tested else "validation",
            units or {},
        )

    def forgetting(self) -> dict[str, float]:
        """By task that was learned before the last phase, in [-1, 1]; below 0 = it gained."""
        forgotten = {}
        for j, task in enumerate(self.tasks):
            before = [row[j] for row in self.values[:-1]]
            measured = [value for value in before if value is not None]
            after = self.values[-1][j]
            if measured and after is not None:
                forgotten[task] = max(measured) - after
        return forgotten

    def summary(self) -> dict[str, Any]:
        """For summary.json."""
        lost = self.forgetting()
        return {
            "task_matrix": {
                "phases": self.phases,
                "tasks": self.tasks,
                "values": self.values,
                "parameters": self.parameters,
                "on": self.on,
            },
            "forgetting": lost,
            "mean_forgetting": sum(lost.values()) / len(lost) if lost else None,
        }

    def picture(self) -> dict[str, Any]:
        """A heatmap for pictures.json."""
        return {
            "name": "task_matrix",
            "title": "Every task after every phase",
            "kind": "heatmap",
            "x": self.tasks,
            "y": [f"after {phase}" for phase in self.phases],
            "x_label": "task",
            "y_label": "",
            "unit": f"{self.on} figure, %" + (" (IoU: hundredths)" if self._has_iou else ""),
            "values": [[None if v is None else 100 * v for v in row] for row in self.values],
        }

    def table(self) -> dict[str, Any]:
        """Forgetting and growth, for tables.json."""
        lost = self.forgetting()
        final = dict(zip(self.tasks, self.values[-1], strict=True))
        sizes = dict(zip(self.phases, self.parameters, strict=True))
        return {
            "name": "task_matrix",
            "title": "What each task kept",
            "text": f"By {self.on} figures, shares in %"
            + (", IoU as it is. " if self._has_iou else ". ")
            + "Forgetting: the best at the end of an earlier "
            "phase, less the end of the last. Parameters: of the net once the task is learned.",
            "columns": ["task", "at the end", "forgetting", "parameters"],
            "rows": [
                [
                    task,
                    self._written(task, final[task]),
                    self._written(task, lost.get(task)),
                    f"{sizes[task]:,}" if sizes.get(task) else "–",
                ]
                for task in self.tasks
            ],
        }

    @property
    def _has_iou(self) -> bool:
        return "IoU" in self.units.values()

    def _written(self, task: str, value: float | None) -> str:
        return "–" if value is None else written(value, self.units.get(task, "share"))
