"""`data=tasks`: tasks on folders of one's own, named on the command line alone."""

import csv
import logging
import shutil

import pytest

from helpers import small
from helpers.data_files import write_image
from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.errors import ConfigError, DataError
from tlrun.experiment.start import create_run_folder, run_experiment
from tlrun.inference.predict import main as predict

COUNTS = {"yes": 12, "no": 12}


@pytest.fixture
def folders(image_folder):
    """(the folder of many images, that of few)."""
    return image_folder("dogs", COUNTS), image_folder("wolves", COUNTS, seed=7000)


def words(dogs, wolves, *more):
    places = (f"data.tasks.dog.root={dogs}", f"data.tasks.wolf.root={wolves}")
    return ["data=tasks", "data.size=16", "backbone=dann_cnn", *places, *more]


def data(*overrides, target_labels="all"):
    cfg = compose([*overrides])
    return build_data(plain(cfg.data), Options(target_labels=target_labels))


def test_a_folder_for_each_task(folders):
    found = data(*words(*folders, "data.tasks.wolf.per_class=3"))
    assert list(found.tasks) == ["dog", "wolf"]
    assert found.facts.target_task == "wolf"
    parts = [found.role(f"dog_{split}") for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [17, 2, 5]
    assert found.role("wolf_train").class_counts() == {"no": 3, "yes": 3}
    assert len(found.role("wolf_test")) == 5  # only training images are few
    assert {path.split("/")[-3] for path in found.role("wolf_test").paths} == {"wolves"}


def test_a_list_of_labels_and_a_task_on_the_images_of_another(folders):
    dogs, wolves = folders
    lines = [f"{path} {path.parent.name}" for path in sorted(wolves.rglob("*.png"))]
    listed = wolves.parent / "wolves.txt"
    listed.write_text("\n".join(lines))
    other = "data.tasks.again={same_as: dog, classes: {a: [yes], b: [no]}}"
    found = data(
        *("data=tasks", "data.size=16", f"data.tasks.dog.root={dogs}"),
        *(f"data.tasks.wolf.list={listed}", other, "data.target=wolf"),
    )
    assert found.tasks["wolf"].classes == ("no", "yes")
    assert found.tasks["again"].domain == "dog"
    assert found.tasks["again"].classes == ("a", "b")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), r"which tasks\? Give each a name and its images: data.tasks.dog.root=FOLDER"),
        (("data.tasks.dog=DOGS",), r"a task is a group of keys: data.tasks.dog.root=FOLDER"),
        (("data.tasks.dog.per_class=3",), r"where are the images of the task dog\?"),
        (("data.tasks.dog.root=NOWHERE",), r"data.tasks.dog.root=.*NOWHERE: no such folder"),
        (
            ("data.tasks.dog.root=DOGS", "data.tasks.dog.path=DOGS"),
            "unknown key .data.tasks.dog.path.*root",
        ),
        (
            ("data.tasks.dog.root=DOGS", "data.tasks.wolf={root: WOLVES, same_as: dog}"),
            "root and same_as both say which images",
        ),
        (("data.tasks.dog.root=DOGS/yes",), "has no labels; give a folder per class"),
        (("data.tasks.dog.root=DOGS", "data.tasks.dog.classes=[yes,noo]"), "did you mean 'no'"),
        (("data.tasks.dog.root=ONE",), "one class only"),
        (("data.tasks.mean.root=DOGS",), "name it in other words"),
        (("data.tasks.dog.root=DOGS", "data.tasks.dog.per_class=99"), r"per_class=99: class"),
        (("data.tasks.dog.root=DOGS", "data.target=wolf"), "no task 'wolf'"),
    ],
)
def test_what_does_not_fit_is_named(overrides, message, folders, image_folder):
    names = {"DOGS": folders[0], "WOLVES": folders[1], "ONE": image_folder("one", {"yes": 9})}
    for name, place in names.items():
        overrides = [o.replace(name, str(place)) for o in overrides]
    with pytest.raises((ConfigError, DataError), match=message):
        data("data=tasks", "data.size=16", *overrides)


def test_an_image_that_one_task_learns_and_another_tests_is_told(folders, caplog):
    dogs, wolves = folders
    with caplog.at_level(logging.WARNING):
        data(*words(dogs, wolves))
        data(*words(dogs, dogs))  # the same folder is cut the same way
    assert not caplog.text
    for task, split in (("dog", "train"), ("wolf", "test")):
        for label in COUNTS:
            write_image(dogs.parent / task / split / label / "shared.png", 42 + len(label))
            for other, seed in (("train", 1), ("test", 2)):
                write_image(
                    dogs.parent / task / other / label / "o.png", seed + 9 * len(task + label)
                )
    with caplog.at_level(logging.WARNING):
        data(*words(dogs.parent / "dog", dogs.parent / "wolf"))
    assert "the task dog trains on 2 of the test images of wolf" in caplog.text


def test_from_the_command_line_to_the_use_of_one_task(folders, tmp_path):
    overrides = [*small.QUICK, *words(*folders, "data.tasks.wolf.per_class=3")]
    run_experiment(create_run_folder(compose(overrides), tmp_path / "run", overrides))
    fresh = tmp_path / "fresh"
    shutil.copytree(folders[0] / "yes", fresh)
    predict(tmp_path / "run", [fresh], task="dog", output=tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert {row["label"] for row in rows} <= set(COUNTS)
