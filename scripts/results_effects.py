"""The effect of each family: what a preset reaches, beside the same net without its method.

A preset's header states it (`# effect: 91.0 ± 0.9 against 88.7 ± 0.8, the task alone (USPS)`); here
these lines become the table of docs/results.md and docs/effects.png.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from results_copies import FIGURE, PRESETS, ROOT

PICTURE = ROOT / "docs" / "effects.png"
LINE = re.compile(
    rf"^# effect: +(?P<reached>{FIGURE}) against (?P<without>{FIGURE}), (?P<baseline>[^(\n]+?)"
    r"(?: \((?P<where>[^)\n]+)\))?$",
    re.MULTILINE,
)

# In the order of README's families; the six of the mission and their unsupervised sides.
FAMILIES = {
    "conservative training": ("bundled/sequential",),
    "layer transfer": ("mnist_usps/finetune",),
    "multi-task": ("multitask/mnist_usps",),
    "progressive": ("progressive/usps_mnist_mnistm",),
    "domain-adversarial": ("digits_digitsm/dann",),
    "the alternating form": ("mnist_mnistm/dann_alternating",),
    "zero-shot": ("zero_shot/awa2_world", "bundled/zero_shot"),
    "texts as classes": ("bundled/vision_language",),
    "one- and few-shot": ("bundled/few_shot",),
    "distances": ("bundled/adaptation_terms",),
    "consistency": ("digits/fixmatch_da",),
    "source-free": ("digits/shot",),
    "terms": ("pacs/mcc",),
    "domain generalisation": ("mnist_usps_mnistm/mixstyle",),
    "without labels": ("bundled/pretext",),
}


@dataclass(frozen=True)
class Effect:
    """reached, without: "83.3 ± 1.5". baseline: what `without` is. where: the data or the task."""

    family: str
    preset: str
    reached: str
    without: str
    baseline: str
    where: str

    def cells(self) -> list[str]:
        name = f"`{self.preset}`"
        return [self.family, name, self.reached, self.without, self.baseline, self.where or "–"]


def effects() -> list[Effect]:
    """Those that headers state, in the order of the families."""
    found = []
    for family, presets in FAMILIES.items():
        for preset in presets:
            path = PRESETS / f"{preset}.yaml"
            line = LINE.search(path.read_text(encoding="utf-8")) if path.exists() else None
            if line is not None:
                found.append(
                    Effect(
                        family,
                        preset,
                        line["reached"],
                        line["without"],
                        line["baseline"],
                        line["where"] or "",
                    )
                )
    return found


def table(found: list[Effect]) -> list[str]:
    head = "| family | preset | with it | without | without it is | where |"
    return [head, "|---|---|---|---|---|---|", *(f"| {' | '.join(e.cells())} |" for e in found)]


def draw(found: list[Effect], path: Path = PICTURE) -> None:
    """A line from the baseline to what is reached, for each family."""
    from tlrun.report.figures.style import LINES, QUIET, figure

    with figure(path, 0.45 * len(found) + 0.9) as (_, axes):
        ax = axes[0, 0]
        for row, effect in enumerate(found):
            (low, below), (high, above) = _number(effect.without), _number(effect.reached)
            ax.plot([low, high], [row, row], color=LINES[0], lw=2, zorder=1)
            ax.text(103, row, f"{low:.1f} → {high:.1f}", va="center", clip_on=False)
            for value, spread, colour in ((low, below, QUIET), (high, above, LINES[0])):
                ax.errorbar(value, row, xerr=spread, fmt="o", ms=7, color=colour, capsize=3)
        ax.set(
            yticks=range(len(found)),
            yticklabels=[f"{e.family}\n{e.preset}" for e in found],
            xlim=(0, 101),
            xlabel="accuracy in %; grey: without the method",
        )
        ax.invert_yaxis()


def _number(figure: str) -> tuple[float, float]:
    mean, _, spread = figure.partition(" ± ")
    return float(mean), float(spread or 0)
