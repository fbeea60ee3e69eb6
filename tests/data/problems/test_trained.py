"""Other data under the classes, tasks and attributes of a trained run, by name."""

import copy

import pytest
import torch

from helpers import zero_shot
from helpers.toy_sets import SET, sources_conf, toy
from helpers.toy_sets import pair_conf as conf
from tlrun.config.compose import compose
from tlrun.data.examples.splits import Splits
from tlrun.data.problems.label_space import LabelSpace
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.data.problems.trained import as_trained, check_unchanged
from tlrun.errors import ConfigError, DataError


def names(examples):
    """The class of each example, by name."""
    return [examples.classes[i] for i in examples.labels.tolist()]


def under(space, **keys):
    """The target of a pair as a run with this label space is tested on it."""
    data = build_data(
        {**conf(**keys), "source": {"_target_": SET, **keys}},
        Options(
            seed=0,
            target_images="none",
            classes=space.source_classes,
        ),
    )
    return as_trained(data, space)


def test_a_pair_by_name():
    space = build_data(conf(), Options(seed=0)).label_space
    for classes in ("ca", "bac", "b"):
        data = under(space, classes=classes)
        assert data.classes == ("a", "b", "c")
        for role in ("source_test", "target_test"):
            assert names(data.role(role))[:6] == [classes[i % len(classes)] for i in range(6)]
    with pytest.raises(DataError, match=r"evaluated on must have the same classes \(only in toyad"):
        under(space, classes="ad")


def test_an_open_run_keeps_its_unknown_class():
    opened = {**conf(classes="bd"), "label_spaces": "open"}
    space = build_data(opened, Options(seed=0)).label_space
    data = build_data(
        conf(classes="cexa"),
        Options(
            seed=0,
            target_images="none",
            classes=space.source_classes,
        ),
    )
    data = as_trained(data, space)
    assert names(data.role("target_test"))[:4] == ["c", "unknown", "unknown", "a"]


def test_two_label_spaces():
    """A target with classes of its own: evaluated on some of them."""
    space = build_data(conf(classes="xyz"), Options(seed=0, shared_classes=False)).label_space
    data = build_data(
        conf(classes="zx"),
        Options(
            seed=0,
            target_images="none",
            shared_classes=False,
            classes=space.source_classes,
        ),
    )
    data = as_trained(data, space)
    assert data.classes == ("x", "y", "z")
    assert data.source_classes == ("a", "b", "c")
    assert names(data.role("target_test"))[:2] == ["z", "x"]


def test_several_sources():
    space = build_data(sources_conf(), Options(seed=0)).label_space
    data = build_data(sources_conf({"classes": "ca"}), Options(seed=0, target_images="none"))
    assert names(as_trained(data, space).role("target_test"))[:2] == ["c", "a"]
    turned = build_data(
        sources_conf(a={"classes": "cba"}, b={}), Options(seed=0, target_images="none")
    )
    assert turned.classes == ("c", "b", "a")
    data = as_trained(turned, space)
    assert data.classes == ("a", "b", "c")
    assert names(data.role("source_test"))[:2] == ["c", "b"]
    assert names(data.role("b_test"))[:2] == ["a", "b"]


# ---- sets of one domain --------------------------------------------------------------------------


def unlike(*, test="ca", train="abc", **keys):
    """A data set whose test set has other classes than its training set."""
    made, other = toy(classes=train, **keys), toy(classes=test, **keys)
    return Splits(made.train, None, other.test, made.card)


UNLIKE = f"{__name__}.unlike"


def test_a_test_set_by_name():
    data = build_data({**conf(), "source": {"_target_": UNLIKE, "test": "ca"}}, Options(seed=0))
    assert names(data.role("source_test"))[:2] == ["c", "a"]
    assert data.role("source_test").classes == data.classes == ("a", "b", "c")
    data = build_data(conf(_target_=UNLIKE, test="cb"), Options(seed=0))
    assert names(data.role("target_test"))[:2] == ["c", "b"]
    for place in ({"source": {"_target_": UNLIKE, "test": "acd"}}, conf(_target_=UNLIKE, test="d")):
        with pytest.raises(DataError, match=r"the test or validation set of toya?c?d has classes"):
            build_data({**conf(), **place}, Options(seed=0))


def test_classes_can_be_chosen_that_the_test_set_lacks():
    chosen = {"source_classes": ["c", "b"], "target_classes": ["c", "b"]}
    data = build_data({**conf(_target_=UNLIKE, test="ca"), **chosen}, Options(seed=0))
    assert set(names(data.role("target_test"))) == {"c"}


def test_tasks_and_sources_by_name():
    several = sources_conf(a={"_target_": UNLIKE, "test": "cb"}, b={"n": 40})
    assert names(build_data(several, Options(seed=0)).role("a_test"))[:2] == ["c", "b"]
    task = {
        "_target_": "tlrun.data.problems.tasks.task_data",
        "tasks": {"one": {"images": {"_target_": UNLIKE, "test": "cb"}}},
    }
    data = build_data(task, Options(seed=0, target_labels="all"))
    assert names(data.role("one_test"))[:2] == ["c", "b"]
    task["tasks"]["one"]["images"]["test"] = "ce"
    with pytest.raises(DataError, match="was not given to train on: e"):
        build_data(task, Options(seed=0, target_labels="all"))


# ---- other kinds ---------------------------------------------------------------------------------


def curriculum(*classes):
    place = "tlrun.data.problems.tasks.task_data"
    one = {"images": {"_target_": SET, "classes": classes[0]}}
    two = {"same_as": "one", "classes": {"first": [classes[0][0]], "rest": list(classes[0][1:])}}
    return build_data(
        {"_target_": place, "tasks": {"one": one, "two": two}}, Options(seed=0, target_labels="all")
    )


def test_every_task_by_name():
    space = curriculum("abc").label_space
    data = as_trained(curriculum("cab"), space)
    assert data.tasks["one"].classes == ("a", "b", "c")
    assert names(data.role("one_test"))[:3] == ["c", "a", "b"]
    column = data.role("one_test").columns["two"][:3].tolist()
    assert [data.tasks["two"].classes[i] for i in column] == ["first", "rest", "rest"]
    other = copy.deepcopy(space.to_json())
    other["tasks"]["two"]["classes"].reverse()
    column = (
        as_trained(curriculum("abc"), LabelSpace.from_json(other))
        .role("one_test")
        .columns["two"][:3]
        .tolist()
    )
    assert column == [1, 0, 0]
    del other["tasks"]["two"]
    with pytest.raises(DataError, match=r"has other tasks .*only in tasks: two"):
        as_trained(curriculum("abc"), LabelSpace.from_json(other))
    with pytest.raises(DataError, match="classes that the run was not trained on: d"):
        as_trained(curriculum("abd"), space)


def test_attributes_by_name():
    data = zero_shot.data()
    space = copy.deepcopy(data.label_space.to_json())
    order = torch.randperm(len(data.classes), generator=torch.Generator().manual_seed(0)).tolist()
    space["classes"] = space["tasks"]["class"]["classes"] = [data.classes[i] for i in order]
    columns = [2, 0, 1, 5, 4, 3]
    facts = space["facts"]
    facts["attribute_names"] = [facts["attribute_names"][j] for j in columns]
    found = as_trained(data, LabelSpace.from_json(space))
    assert names(found.role("target_test")) == names(data.role("target_test"))
    assert found.classes == tuple(space["classes"])
    for c in data.classes:
        before = data.facts.attributes[data.classes.index(c)]
        assert found.facts.attributes[found.classes.index(c)] == [before[j] for j in columns]
    facts["attribute_names"][0] = "wings"
    with pytest.raises(DataError, match="only in the run: wings; only in zoo: a2"):
        as_trained(data, LabelSpace.from_json(space))
    facts["unseen"] = ["dog"]
    with pytest.raises(DataError, match=r"other unseen classes .*only in zoo: fox"):
        as_trained(data, LabelSpace.from_json(space))


def test_episodes_bring_their_own_classes():
    data = build_data(compose(["data=digits_episodes", "method=protonet"]).data, Options(seed=0))
    space = copy.deepcopy(data.label_space.to_json())
    space["tasks"]["source"]["classes"] = [f"letter{k}" for k in range(9)]
    space["facts"]["train"]["way"] = 3
    found = as_trained(data, LabelSpace.from_json(space))
    assert found.classes == data.classes
    assert len(found.source_classes) == 9
    assert found.facts.train.way == 3


# ---- resume --------------------------------------------------------------------------------------


def test_what_a_run_began_with_stays():
    data = build_data(conf(), Options(seed=0))
    check_unchanged(data, data.label_space)
    began = copy.deepcopy(data.label_space.to_json())
    began["tasks"]["class"]["classes"] = ["a", "c", "b"]
    with pytest.raises(ConfigError, match=r"now a, b, c; then a, c, b"):
        check_unchanged(data, LabelSpace.from_json(began))
