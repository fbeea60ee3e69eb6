"""A target without a source: what it holds, what names its classes, what is refused."""

import pytest
import torch

from helpers.toy_sets import SET, pair_conf
from tlrun.config.one_set import give_source, has_source
from tlrun.data.problems.label_space import LabelSpace
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.errors import ConfigError, DataError

FOLDER = "tlrun.data.sets.folder.folder"


def conf(**target):
    return {**pair_conf(**target), "source": None}


def test_the_target_alone_is_the_only_domain():
    data = build_data(conf(), Options(target_labels="all"))
    assert (*data.domains,) == ("target",)
    assert data.classes == data.source_classes == ("a", "b", "c")
    assert data.sources == ()
    assert data.role("source_val") is None
    assert data.target_labels_seen == 60  # 54 for training, 6 cut off for validation
    assert data.role("target_val").labels is not None
    assert data.unlabelled is None


def test_it_holds_what_the_target_of_a_pair_holds():
    alone, pair = (build_data(c, Options(target_labels=2)) for c in (conf(), pair_conf()))
    for split in ("train", "val", "test"):
        a, b = alone.role(f"target_{split}"), pair.role(f"target_{split}")
        assert a.checksum == b.checksum
        assert (a.labels is None) == (b.labels is None)
    assert alone.target_labels_seen == pair.target_labels_seen == 6
    assert len(alone.unlabelled) == 54
    assert alone.unlabelled.labels is None


def test_its_own_training_images_measure_the_statistics():
    alone = build_data({**conf(), "normalize": "standard"}, Options(target_labels=2))
    flat = alone.unlabelled.read(torch.arange(54)).double() / 255
    assert alone.preprocess.spec()["mean"] == pytest.approx([float(flat.mean())] * 3, abs=1e-6)
    assert alone.preprocess.spec()["std"] == pytest.approx(
        [float(flat.std(correction=0))] * 3, abs=1e-6
    )


def test_its_label_space_comes_back_from_a_file():
    space = build_data(conf(), Options(target_labels="all")).label_space
    again = LabelSpace.from_json(space.to_json())
    assert again.sources == ()
    assert again.classes == ("a", "b", "c")


def test_a_trained_net_gives_it_its_classes():
    data = build_data(conf(classes="ca"), Options(target_images="none", classes=("a", "b", "c")))
    assert data.classes == ("a", "b", "c")
    assert data.role("target_test").labels.unique().tolist() == [0, 2]
    assert data.role("target_train") is None


@pytest.mark.parametrize(
    ("source", "target", "there"),
    [
        ({"_target_": FOLDER, "root": "a"}, {"_target_": FOLDER, "root": "b"}, True),
        ({"_target_": FOLDER, "root": None}, {"_target_": FOLDER, "root": "b"}, False),
        ({"_target_": FOLDER, "root": None}, {"_target_": FOLDER, "list": "b"}, False),
        ({"_target_": FOLDER, "list": "a"}, {"_target_": FOLDER, "root": "b"}, True),
        ({"_target_": FOLDER}, {"_target_": FOLDER}, True),  # neither: where are the images?
        ({"_target_": SET}, {"_target_": FOLDER, "root": "b"}, True),
        (None, {"_target_": SET}, False),
    ],
)
def test_a_source_that_names_no_files_is_none(source, target, there):
    assert has_source({"source": source, "target": target}) is there


def test_a_builder_of_its_own_says_itself_what_it_has():
    assert has_source({"_target_": "somebody.data", "source": None})


def test_what_to_type_for_a_source():
    features = {"_target_": "tlrun.data.sets.features.features", "path": None}
    assert give_source({"source": {"_target_": FOLDER}}) == "set data.source.root=FOLDER"
    assert give_source({"source": features}) == "set data.source.path=FILE"
    assert "tlrun list data" in give_source({"source": None})


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({}, {"target_images": "none"}, "nothing to train on"),
        ({"label_spaces": "partial"}, {}, "label_spaces=partial is about a source"),
        ({"source_classes": ["a", "b"]}, {}, "about a source"),
    ],
)
def test_what_is_about_a_source_is_refused(changes, options, words):
    with pytest.raises(ConfigError, match=words):
        build_data({**conf(), **changes}, Options(**options))


def test_it_needs_two_classes():
    with pytest.raises(DataError, match="target 'toya' has one class only"):
        build_data(conf(classes="a"), Options(target_labels="all"))
    kept = build_data({**conf(), "target_classes": ["a", "c"]}, Options(target_labels="all"))
    assert kept.classes == ("a", "c")


def test_it_needs_labels(tmp_path):
    from helpers.data_files import write_image

    for i in range(12):
        write_image(tmp_path / f"{i}.png", i)
    flat = {"_target_": FOLDER, "name": "target", "root": str(tmp_path)}
    with pytest.raises(DataError, match="no labels, and there is no source to name the classes"):
        build_data({"source": None, "target": flat, "size": 8}, Options(target_labels="all"))
