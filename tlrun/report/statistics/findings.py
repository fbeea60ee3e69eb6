"""What a run found, in figures and sentences: for the page and the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tlrun.evaluate.figures import Figure, Kind, Unit, finite, is_interval
from tlrun.report.formats import in_points, number, sentence_case, with_interval
from tlrun.report.read.run_record import RunRecord, mapping
from tlrun.report.statistics.significance import wilson

SPLITS = ("source_test", "target_test")
METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
# What the page and the terminal show in tables of their own.
COMMON = {f"{split}/{metric}" for split in SPLITS for metric in METRICS}


@dataclass(frozen=True)
class Headline:
    """The one figure to read, and that of the model before adaptation if there is one.

    count: whether it is no measurement but a number of images.
    """

    figure: Figure
    label: str
    before: float | None
    count: bool = False

    @property
    def unit(self) -> Unit:
        return self.figure.kind.unit

    @property
    def text(self) -> str:
        """Without the sign of its unit: "93.1 ± 0.4"."""
        if self.count:
            return number(self.figure.value, "count")
        return with_interval(self.figure.value, self.figure.ci95, self.unit)

    @property
    def sign(self) -> str:
        return " %" if self.unit == "share" else ""

    @property
    def gain(self) -> str:
        gained = self.figure.value - (self.before or 0.0)
        return number(gained, self.unit, signed=True) + in_points(self.unit)


def headline(record: RunRecord) -> Headline | None:
    """Of the task that was trained (selected step).

    Where nobody knows the classes of the target test images, how many of them were labelled: that
    is the work done. Else the source's accuracy, or the first share or IoU that there is.
    """
    if record.value(record.headline) is None and (images := record.newly_labelled):
        labelled = Figure("target_test/images", images, Kind("images", "number", None))
        return Headline(labelled, "Target images labelled", None, count=True)
    others = [
        figure.key
        for figure in further(record)
        if figure.kind.unit in ("share", "IoU")
        and "_val/" not in figure.key
        and figure.key != "delta_m"  # a difference says little alone
    ]
    for key in (record.headline, "source_test/accuracy", *others):
        figure = record.figure(key)
        if figure.value is not None:
            before = record.value(key, "before")
            return Headline(figure, sentence_case(record.title(key)), before)
    return None


def further(record: RunRecord, rule: str = "selected") -> list[Figure]:
    """What else the evaluators left, as numbers."""
    figures = (
        record.figure(key, rule)
        for key in record.figures(rule)
        if key not in COMMON and key != "step" and not is_interval(key)
    )
    return [figure for figure in figures if figure.value is not None]


def failures(record: RunRecord) -> list[str]:
    """Whether the training failed, and that of the model it is compared with: a sentence each."""
    said = [record.training_failure.why] if record.training_failure else []
    if record.baseline is not None and record.baseline.training_failure:
        why = record.baseline.training_failure.why
        said.append(f"For comparison, {record.baseline.method}: {why}")
    return said


def sentences(record: RunRecord) -> list[str]:
    """What stands behind the headline: images, interval, the rule, the oracle."""
    if not record.summary:
        return ["There is no summary.json: this run has no result."]
    key, unit = record.headline, record.kind(record.headline).unit
    value, last, oracle = (record.value(key, rule) for rule in ("selected", "last", "oracle"))
    said = []
    images = int(record.predictions.labelled.sum()) if record.predictions is not None else 0
    if value is not None and images and key == "target_test/accuracy":
        low, high = (number(edge, "share") for edge in wilson(value, images))
        said.append(
            f"Measured on {images:,} target test images; their number alone allows "
            f"{low} to {high} % (95 % Wilson interval)."
        )
    if value is None and record.newly_labelled:
        source = record.figure("source_test/accuracy")
        right = number(source.value, "share", sign=True)
        on_source = "" if source.value is None else f" On source test images {right} are right."
        said.append(
            "How many of these labels are right is not known: the target test images came without "
            f"labels. They are in predictions.csv.{on_source}"
        )
    elif value is None and not further(record):
        said.append(
            "Target test accuracy was not measured: there were no target test labels, or it was "
            "switched off."
        )
    said.append(selection_sentence(record))
    if value is not None and last is not None:
        text = f"The last step has {number(last, unit, sign=True)}"
        if oracle is not None:
            text += f", the best one by target labels (oracle) {number(oracle, unit, sign=True)}"
        said.append(f"{text}.")
    said.append(comparison(record))
    return [sentence for sentence in said if sentence]


def times(record: RunRecord) -> dict[str, float]:
    """Seconds of the whole command and of its parts, the total first; {} of older runs."""
    parts = mapping(record.summary.get("wall_seconds"))
    return {
        name: seconds for name, value in parts.items() if (seconds := finite(value)) is not None
    }


def comparison(record: RunRecord) -> str:
    """What is equal between the run and the model it is compared with, and what is not."""
    if record.baseline is None:
        return ""
    summaries = (record.summary, record.baseline.summary)
    counts = [finite(s.get(key)) for s in summaries for key in ("steps", "images_seen")]
    if None in counts:
        return ""
    steps, images, its_steps, its_images = (number(value, "count") for value in counts)
    as_many = f"as many steps ({steps})" if steps == its_steps else f"{its_steps} steps ({steps})"
    and_images = "as many images" if images == its_images else f"{its_images} images ({images})"
    joined = "and" if (steps == its_steps) == (images == its_images) else "but"
    name = record.baseline.method
    return f"The {name} model beside it took {as_many} {joined} saw {and_images}."


def selection_sentence(record: RunRecord) -> str:
    """Which rule chose which step, and whether it saw target labels; "" where none was chosen."""
    summary, step = record.summary, record.value("step")
    if step is None:
        return ""
    rule, chosen = str(summary.get("selection_rule") or "last"), number(step, "count")
    steps = finite(summary.get("steps"))
    of = "" if steps is None else f" of {number(steps, 'count')}"
    if summary.get("selection_fell_back"):
        why = summary.get("selection_why_last") or f"no evaluation passed the guard of {rule}"
        return f"The last step, {chosen}{of}, stands for the choice of {rule}: {why}."
    saw = "target labels" if summary.get("selection_saw_target_labels") else "no target label"
    return f"The rule {rule} selected step {chosen}{of}; it saw {saw}."


def badges(summary: dict[str, Any]) -> list[dict[str, str]]:
    """What target labels were seen: a warning each, or one plain assurance."""
    seen = finite(summary.get("target_labels_seen"))
    warnings = []
    if summary.get("selection_saw_target_labels"):
        warnings.append("Selection saw target labels: this figure is optimistic")
    if seen:
        warnings.append(f"Training saw {number(seen, 'count')} target labels")
    if warnings or seen is None:
        return [{"kind": "warn", "text": text} for text in warnings]
    return [{"kind": "good", "text": "No target label was seen in training or selection"}]
