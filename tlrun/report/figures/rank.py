"""The picture of `tlrun rank`: each score against the stage, a line for each net."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tlrun.report.figures.style import figure, line_look, short
from tlrun.report.read.rank import SHARES, TITLES, StageScores

PANELS = ("logme", "h_score_shrunk", "logistic", "knn")  # what every stage has
NAMED = 14  # stages of a single net that are written out along the axis


def draw_rank(lines: Sequence[StageScores], path: Path) -> None:
    """Four panels; LEEP and NCE are of whole nets, and stand in the table alone."""
    nets: dict[str, list[StageScores]] = {}
    for line in lines:
        nets.setdefault(line.net, []).append(line)
    with figure(path, 6.0 + 0.2 * (len(nets) > 1) * len(nets), 2, 2) as (fig, axes):
        for ax, score in zip(axes.flat, PANELS, strict=True):
            times = 100 if score in SHARES else 1
            for place, (name, stages) in enumerate(nets.items()):
                ax.plot(
                    [line.cut for line in stages],
                    [times * (line.values[score] or 0.0) for line in stages],
                    marker="o",
                    ms=4,
                    lw=1.6,
                    label=short(name, 40),
                    **line_look(place),
                )
            ax.set_title(TITLES[score].replace("logistic %", "logistic regression, accuracy in %"))
            stages = next(iter(nets.values()))
            if len(nets) == 1 and len(stages) <= NAMED:
                names = [short(line.stage.removeprefix("backbone."), 14) for line in stages]
                ax.set_xticks([line.cut for line in stages], names, rotation=40, ha="right")
            else:
                ax.set_xlabel("stage, counted from the input")
        if len(nets) > 1:
            handles, labels = axes[0, 0].get_legend_handles_labels()
            fig.legend(handles, labels, loc="outside lower left", ncols=2)
