"""A source whose labels are not read, so that it may have none (`Requirements.source_labels`).

There is nothing to match then: the net learns the classes of the target's labels, and none where
these are withheld or do not exist. Labels of the test sets remain, for scoring alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from tlrun.data.examples.match import match_columns, order_columns
from tlrun.data.examples.splits import Splits, warn_of_shared_images
from tlrun.data.problems.class_checks import check_target
from tlrun.data.problems.label_space import Task
from tlrun.data.problems.options import Options
from tlrun.errors import ConfigError


def stand_apart(splits: Mapping[str, Splits], options: Options) -> bool:
    """Whether the classes of source and target are not matched: the source has no labels, or none
    is read and the target's are not trained on either."""
    withheld = not options.source_labels and options.target_labels in ("none", 0)
    return withheld or splits["source"].train.labels is None


def label_spaces_apart(
    splits: Mapping[str, Splits], label_spaces: str, options: Options
) -> tuple[Splits, Splits, dict[str, Task]]:
    """Source and target with the classes that each has, and the tasks that are learned: none of the
    target where its labels are withheld. Raises ConfigError for label spaces to compare."""
    if label_spaces != "shared":
        raise ConfigError(
            f"data.label_spaces={label_spaces} compares the classes of source and target, and no "
            "label of the source is read here: leave it out"
        )
    source = order_columns(splits["source"], options.feature_names, "the run")
    target = match_columns(splits["target"], source)
    check_target(target, has_own_classes=False)
    if options.classes is None:  # nothing is learned where a trained run is tested
        warn_of_shared_images({"source": source, "target": target})
    learned = () if options.target_labels in ("none", 0) else (target.train.classes or ())
    tasks = {
        "class": Task("class", "class", tuple(learned), "target"),
        "source": Task("source", "class", tuple(source.train.classes or ()), "source"),
    }
    return source, target, tasks
