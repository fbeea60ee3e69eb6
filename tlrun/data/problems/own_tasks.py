"""`data=tasks`: several tasks on folders of your own, a folder per class for each of them.

    data.tasks.dog.root=photos/dogs        photos/dogs/<class>/*.jpg: dog, other
    data.tasks.wolf.root=photos/wolves     photos/wolves/<class>/*.jpg: wolf, other
    data.tasks.wolf.per_class=10           so many training images of each class

`images` of each task is then `tlrun.data.sets.folder.folder`; all else is said in tasks.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tlrun.config.ranges import BelowOne, Interpolation, NotNegative, Number
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import Data
from tlrun.data.problems.tasks import TaskKeys, task_data
from tlrun.errors import ConfigError, did_you_mean

FOLDER = "tlrun.data.sets.folder.folder"
PLACES = ("root", "list", "test")  # keys of a task that are the folder's
KEYS = tuple(f.name for f in fields(TaskKeys))
EXAMPLE = "data.tasks.dog.root=FOLDER data.tasks.wolf.root=FOLDER, each with a folder per class"


def own_tasks(
    *,
    options: Options,
    tasks: Mapping[str, Any] | None = None,
    fit: str = "crop",
    grey_values: list[Number] | None = None,
    val_fraction: BelowOne = 0.1,
    test_fraction: BelowOne = 0.2,
    stratify: bool = False,
    skip_unreadable: bool = False,
    memory_gb: NotNegative = 2.0,
    interpolation: Interpolation = "auto",
    **keys: Any,
) -> Data:
    """tasks: name -> {root | list, test, and the keys of tasks.py}. keys: those of `task_data`.

    What a folder is asked for beside its place holds for all tasks. Raises ConfigError or
    DataError.
    """
    if not tasks:
        raise ConfigError(f"which tasks? Give each a name and its images: {EXAMPLE}")
    reading = {
        "fit": fit,
        "grey_values": grey_values,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "stratify": stratify,
        "skip_unreadable": skip_unreadable,
        "memory_gb": memory_gb,
        "channels": keys.get("channels", 3),
    }
    named = {name: _with_images(name, task, reading) for name, task in tasks.items()}
    return task_data(options=options, tasks=named, interpolation=interpolation, **keys)


def _with_images(name: str, task: Any, reading: Mapping[str, Any]) -> dict[str, Any]:
    """The task with the folder of its `root` or `list` as its `images`."""
    if not isinstance(task, Mapping):
        raise ConfigError(
            f"data.tasks.{name}={task}: a task is a group of keys: data.tasks.{name}.root=FOLDER"
        )
    if unknown := [key for key in task if key not in (*PLACES, *KEYS)]:
        raise ConfigError(
            f"unknown key 'data.tasks.{name}.{unknown[0]}': "
            f"{did_you_mean(unknown[0], (*PLACES, *KEYS))}"
        )
    place = {key: task[key] for key in PLACES if task.get(key) is not None}
    rest = {key: value for key, value in task.items() if key not in PLACES}
    if not place and not (rest.get("same_as") or rest.get("images")):
        raise ConfigError(
            f"where are the images of the task {name}? Give data.tasks.{name}.root=FOLDER with a "
            f"folder per class, data.tasks.{name}.list=FILE, or data.tasks.{name}.same_as=TASK"
        )
    if both := [key for key in ("same_as", "images") if place and rest.get(key)]:
        raise ConfigError(
            f"data.tasks.{name}: {next(iter(place))} and {both[0]} both say which images it has: "
            "give one of them"
        )
    if not place:
        return rest
    return {**rest, "images": {"_target_": FOLDER, "name": f"tasks.{name}", **place, **reading}}
