"""The label firewall, the splits, and what a run is told about its data."""

import json

import pytest
import torch

from helpers.data_files import write_image
from helpers.toy_sets import SET, toy
from helpers.toy_sets import pair_conf as conf
from tlrun.data.examples.splits import (
    Card,
    Splits,
    carve,
    common_grey,
    cut,
    draw_per_class,
    with_val,
)
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.errors import ConfigError, DataError


def sets_of(data):
    return {
        r: data.role(r)
        for r in (f"{d}_{s}" for d in data.domains for s in ("train", "val", "test"))
    }


def test_none_means_objects_without_labels():
    data = build_data(conf(), Options(seed=0))
    for role in ("target_train", "target_val"):
        assert data.role(role).labels is None
        assert data.role(role).classes is None
        assert data.role(role).paths is None  # the path of a file may name its class
    assert data.role("target_test").labels is not None
    assert data.target_labels_seen == 0
    assert data.stream_set("target") is data.role("target_train")


def test_permuting_target_training_labels_changes_nothing():
    a = build_data(conf(), Options(seed=0))
    b = build_data(conf(permute="train"), Options(seed=0))
    assert json.dumps(a.info()) == json.dumps(b.info())
    for role, examples in sets_of(a).items():
        other = sets_of(b)[role]
        assert torch.equal(
            examples.read(torch.arange(len(examples))), other.read(torch.arange(len(other)))
        )


def test_permuting_target_test_labels_leaves_no_trace_in_info():
    a, b = build_data(conf(), Options(seed=0)), build_data(conf(permute="test"), Options(seed=0))
    assert json.dumps(a.info()) == json.dumps(b.info())
    assert not torch.equal(a.role("target_test").labels, b.role("target_test").labels)


def test_all_labels_are_counted():
    data = build_data(conf(), Options(seed=0, target_labels="all"))
    assert (
        data.target_labels_seen
        == len(data.role("target_train")) + len(data.role("target_val"))
        == 60
    )


def test_k_labels_per_class_are_nested_and_counted():
    chosen = {}
    for k in (2, 5, 9):
        data = build_data(conf(), Options(seed=4, target_labels=k))
        train = data.role("target_train")
        assert torch.bincount(train.labels).tolist() == [k, k, k]
        assert data.target_labels_seen == 3 * k
        assert data.role("target_val").labels is None
        chosen[k] = {bytes(row.numpy().tobytes()) for row in train.read(torch.arange(len(train)))}
    assert chosen[2] < chosen[5] < chosen[9]


def test_labels_beyond_the_last_drawn_are_never_read():
    examples = toy().train
    chosen = draw_per_class(examples, 3, seed=0)
    order = permutation(60, "labelled", 0)
    last = max(order.tolist().index(i) for i in chosen.tolist())
    later = order[last + 1 :]
    labels = examples.labels.clone()
    labels[later] = labels[later].flip(0)
    changed = examples.with_labels(labels, examples.classes)
    assert torch.equal(draw_per_class(changed, 3, seed=0), chosen)


def test_too_few_for_k():
    with pytest.raises(ConfigError, match="target_labels=30: class 'a'"):
        build_data(conf(), Options(seed=0, target_labels=30))


@pytest.mark.parametrize("bad", ["some", -1, True, 1.5])
def test_unknown_target_labels(bad):
    with pytest.raises(ConfigError, match="choose none, all or a number"):
        build_data(conf(), Options(seed=0, target_labels=bad))


def test_target_images_none():
    data = build_data(conf(), Options(seed=0, target_images="none"))
    assert data.role("target_train") is None
    assert data.role("target_val") is None
    assert data.role("target_test") is not None
    with pytest.raises(ConfigError, match="target_images=none"):
        data.stream_set("target")


def test_classes_are_matched_by_name():
    data = build_data(conf(classes="cba"), Options(seed=0))
    assert data.classes == ("a", "b", "c")
    assert data.role("target_test").labels[:3].tolist() == [2, 1, 0]


def test_different_label_spaces():
    with pytest.raises(DataError, match=r"only in toyabc: c; only in toyabd: d"):
        build_data(conf(classes="abd"), Options(seed=0))


def test_different_shapes():
    with pytest.raises(DataError, match="must agree"):
        build_data(conf(shape=[1, 9, 9]), Options(seed=0))


def test_splits_do_not_depend_on_labels_but_on_the_seed():
    examples = toy().train
    a = carve(examples, 20, 0, "val")
    b = carve(examples.without_labels(), 20, 0, "val")
    assert torch.equal(a[1].rows, b[1].rows)
    assert sorted([*a[0].rows.tolist(), *a[1].rows.tolist()]) == list(range(60))
    assert not torch.equal(a[1].rows, carve(examples, 20, 1, "val")[1].rows)


def test_size_of_val():
    assert len(with_val(toy(n=60), "target", 0).val) == 6
    big = toy(n=60_000, shape=(1, 1, 1))
    assert len(with_val(big, "source", 0).val) == 5000
    assert len(with_val(big, "target", 0).val) == 2000


def test_cut_and_transductive():
    examples, card = toy(n=50).train, Card("t", "", "")
    parts = cut(examples, card, 0, val=0.1, test=0.2)
    assert [len(parts.train), len(parts.val), len(parts.test)] == [35, 5, 10]
    whole = cut(examples, card, 0, transductive=True)
    assert whole.train is whole.test is examples
    with pytest.raises(ConfigError, match="sum below 1"):
        cut(examples, card, 0, val=0.5, test=0.5)


def uneven(n=100, seed=0):
    """`n` images: half of class a, 30 % of b, 19 % of c and one of d."""
    examples = toy(n=n).train
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 19 + [3])
    return examples.with_labels(labels, tuple("abcd"))


def test_a_stratified_cut_keeps_the_shares_of_the_classes():
    card = Card("t", "", "")
    for seed in range(5):
        parts = cut(uneven(), card, seed, val=0.1, test=0.2, stratify=True)
        counts = [list(s.class_counts().values()) for s in (parts.train, parts.val, parts.test)]
        assert counts == [[35, 21, 13, 1], [5, 3, 2, 0], [10, 6, 4, 0]]
    other = cut(uneven(), card, 0, val=0.1, test=0.2, stratify=True)
    assert not torch.equal(other.test.rows, parts.test.rows)  # the seed still draws
    plain = cut(uneven(), card, 0, val=0.1, test=0.2)
    assert list(plain.test.class_counts().values()) != [10, 6, 4, 0]


def test_a_stratified_cut_keeps_equal_content_together():
    examples = uneven()
    examples.paths = [str(i) for i in range(100)]
    content = {str(i): str(i // 2) for i in range(100)}  # 79 and 80 are of two classes
    rest, taken = carve(examples, 20, 0, "test", content, stratify=True)
    assert {i // 2 for i in rest.rows.tolist()}.isdisjoint(i // 2 for i in taken.rows.tolist())
    assert 17 <= len(taken) <= 20


def stratified(**data):
    rows = {"_target_": f"{__name__}.unevenly", "stratify": True}
    return {"name": "toy", "source": rows, "target": dict(rows), "normalize": "half", **data}


def unevenly(*, seed=0, size=None, download=True, stratify=False):
    return cut(uneven(), Card("toy", "", ""), seed, stratify=stratify)


@pytest.mark.parametrize("alone", [False, True])
def test_a_target_is_stratified_only_by_labels_that_are_used(alone):
    conf = stratified(**({"source": None} if alone else {}))
    data = build_data(conf, Options(target_labels="all"))
    assert data.role("target_test").class_counts() == {"a": 10, "b": 6, "c": 4, "d": 0}
    for hidden, words in (
        ({"target_labels": 1}, "target_labels=1 hides"),
        ({"target_labels": "none"}, "target_labels=none hides"),
        ({"target_labels": "all", "target_val_labels": "none"}, "target_val_labels=none hides"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_data(conf, Options(**hidden))
    again = build_data(conf, Options(target_images="none", classes=tuple("abcd")))
    assert again.role("target_test").checksum == data.role("target_test").checksum  # `evaluate`
    build_data(conf, Options(trains=False))  # `prepare`


def test_label_space_and_info_are_plain_json():
    data = build_data(conf(), Options(seed=0))
    space = json.loads(json.dumps(data.label_space.to_json()))
    assert space["classes"] == ["a", "b", "c"]
    assert space["input_shape"] == [3, 8, 8]
    info = json.loads(json.dumps(data.info()))
    train = info["domains"]["source"]["splits"]["train"]
    assert sum(train["count_by_class"].values()) == train["count"] == 72
    assert "count_by_class" not in info["domains"]["target"]["splits"]["train"]


def test_standard_statistics_are_those_of_the_source():
    data = build_data({**conf(), "normalize": "standard"}, Options(seed=0))
    train = data.role("source_train")
    x = train.read(torch.arange(len(train))).double() / 255
    torch.testing.assert_close(
        data.preprocess.mean.flatten().double(), x.mean().expand(3), rtol=1e-5, atol=1e-6
    )
    std = x.std(correction=0).expand(3)
    torch.testing.assert_close(data.preprocess.std.flatten().double(), std, rtol=1e-4, atol=1e-6)


def test_mistakes_in_the_config():
    with pytest.raises(ConfigError, match="did you mean 'target'"):
        build_data({**conf(), "augment": {"targt": {}}}, Options(seed=0))
    with pytest.raises(ConfigError, match="must name a data set"):
        build_data({"name": "x", "source": {"_target_": SET}}, Options(seed=0))
    with pytest.raises(ConfigError, match="did you mean 'target_val'"):
        build_data(conf(), Options(seed=0)).role("target_vla")
    with pytest.raises(ConfigError, match="must return"):
        build_data(
            {**conf(), "source": {"_target_": "tests.data.problems.test_pair.wrong"}},
            Options(seed=0),
        )


def wrong(**_):
    return 1


def test_a_target_without_any_label(tmp_path, image_folder):
    source = image_folder("source", {"cat": 12, "dog": 12})
    for i in range(20):
        write_image(tmp_path / "flat" / f"{i}.jpg", 50 + i)
    place = "tlrun.data.sets.folder.folder"
    data = build_data(
        {
            "source": {"_target_": place, "name": "source", "root": str(source)},
            "target": {"_target_": place, "name": "target", "root": str(tmp_path / "flat")},
            "size": 12,
        },
        Options(
            seed=0,
        ),
    )
    assert data.classes == ("cat", "dog")
    assert len(data.role("target_test")) == 20
    assert data.role("target_test").labels is None
    assert len(data.role("target_train")) == 18
    with pytest.raises(ConfigError, match="has no labels"):
        build_data(
            {
                "source": {"_target_": place, "root": str(source)},
                "target": {"_target_": place, "root": str(tmp_path / "flat")},
                "size": 12,
            },
            Options(
                seed=0,
                target_labels="all",
            ),
        )


def twice(**keys):
    """A set that is tested on its own training images."""
    made = toy(**keys)
    test = made.train.subset(torch.arange(len(made.train)))
    return Splits(made.train, None, test, made.card)


def test_a_test_set_that_is_the_training_set_is_named(caplog):
    build_data(conf(_target_="tests.data.problems.test_pair.twice"), Options(seed=0))
    assert "toyabc: the test images are the training images" in caplog.text


# ---- label spaces -----------------------------------------------------------------------------


def test_a_partial_target_lacks_classes():
    toy_conf = {**conf(classes="ac"), "label_spaces": "partial"}
    data = build_data(toy_conf, Options(seed=0))
    assert data.classes == ("a", "b", "c")
    assert set(data.role("target_test").labels.tolist()) == {0, 2}
    with pytest.raises(DataError, match="label_spaces=partial"):
        build_data(conf(classes="ac"), Options(seed=0))
    with pytest.raises(DataError, match="only in toyad: d"):
        build_data({**conf(classes="ad"), "label_spaces": "partial"}, Options(seed=0))


def test_what_an_open_target_has_beside_is_unknown():
    data = build_data({**conf(classes="bdea"), "label_spaces": "open"}, Options(seed=0))
    assert data.classes == ("a", "b", "c", "unknown")
    labels = data.role("target_test").labels  # of b, d, e, a in turn
    assert labels[:4].tolist() == [1, 3, 3, 0]
    assert data.role("source_train").labels.max() == 2


def test_classes_can_be_left_out():
    data = build_data(
        {**conf(), "target_classes": ["b", "a"], "label_spaces": "partial"}, Options(seed=0)
    )
    assert set(data.role("target_test").labels.tolist()) == {0, 1}
    assert len(data.role("target_test")) == 20
    with pytest.raises(ConfigError, match="target_classes: toyabc has no class 'x'"):
        build_data({**conf(), "target_classes": ["x"]}, Options(seed=0))
    with pytest.raises(ConfigError, match="did you mean 'partial'"):
        build_data({**conf(), "label_spaces": "partal"}, Options(seed=0))


def test_a_few_labels_leave_all_images_without():
    data = build_data(conf(), Options(seed=0, target_labels=2))
    assert len(data.stream_set("target")) == 6
    assert data.stream_set("target_unlabelled").labels is None
    assert len(data.stream_set("target_unlabelled")) > 40
    with pytest.raises(ConfigError, match="target_labels=3"):
        build_data(conf(), Options(seed=0)).stream_set("target_unlabelled")


def test_blending_needs_images_of_the_target():
    blended = {**conf(), "augment": {"source": {"blend": 0.5}}}
    data = build_data(blended, Options(seed=0))
    assert data.backdrops("source") is data.role("target_train")
    assert data.backdrops("target") is None
    with pytest.raises(ConfigError, match="target_images=none withholds them"):
        build_data(blended, Options(seed=0, target_images="none")).backdrops("source")
    strong = {**conf(), "augment": {"target_strong": {"blend": 0.5}}}
    with pytest.raises(ConfigError, match="only plain images are blended"):
        build_data(strong, Options(seed=0)).view("target", "strong")


def test_views_are_augmentations_of_a_stream():
    data = build_data(
        {**conf(), "augment": {"target": {"noise": 0.1}, "target_strong": {"noise": 0.9}}},
        Options(seed=0),
    )
    assert data.view("target", "clean") is None
    assert data.view("target", "weak").ops == {"noise": 0.1}
    assert data.view("target_unlabelled", "strong").ops == {"noise": 0.9}
    with pytest.raises(ConfigError, match=r"data\.augment\.source_strong"):
        data.view("source", "strong")
    with pytest.raises(ConfigError, match="target_strong"):
        build_data({**conf(), "augment": {"target_stronk": {}}}, Options(seed=0))


# ---- classes that cannot be learned or judged ---------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("a", "one class only"),
        (["a"], "one class only"),
        (1, "no class '1'"),
        ([], r"source_classes=\[\] keeps no class"),
        (["a", "a"], "names the class 'a' twice"),
        ({"a": 1}, "give a list of class names"),
    ],
)
def test_source_classes_that_make_no_sense(classes, message):
    with pytest.raises((ConfigError, DataError), match=message):
        build_data(
            {**conf(), "source_classes": classes, "label_spaces": "partial"}, Options(seed=0)
        )


def test_a_single_target_class_may_be_named_alone():
    chosen = {**conf(), "target_classes": "b", "label_spaces": "partial"}
    data = build_data(chosen, Options(seed=0))
    assert set(data.role("target_test").labels.tolist()) == {1}


def named(*, classes, rows=None, **keys):
    """The toy set under other class names; rows: training images that are kept."""
    made = toy(**keys, classes="abcdefgh"[: len(classes)])
    sets = [s.with_labels(s.labels, classes) for s in (made.train, made.test)]
    train = sets[0] if rows is None else sets[0].subset(torch.tensor(rows))
    return Splits(train, None, sets[1], made.card)


def under(source, target, **keys):
    place = "tests.data.problems.test_pair.named"
    return {
        "source": {"_target_": place, "classes": source},
        "target": {"_target_": place, "classes": target, "n": 90},
        **keys,
    }


def test_one_class_is_no_problem_to_learn():
    with pytest.raises(DataError, match=r"one class only \('cat'\)"):
        build_data(under(["cat"], ["cat"]), Options(seed=0))
    with pytest.raises(DataError, match=r"the target .* one class only \('dog'\)"):
        build_data(under(["cat", "fox"], ["dog"]), Options(seed=0, shared_classes=False))


def test_a_class_without_training_image_is_named():
    few = under(["cat", "dog", "fox"], ["cat", "dog", "fox"])
    few["source"]["rows"] = [0, 1, 3, 4, 6, 7, 9, 10]  # every third is a fox
    with pytest.raises(DataError, match="no image of the class 'fox' is left for training"):
        build_data(few, Options(seed=0))


def test_a_source_class_called_unknown():
    names = ["cat", "dog", "unknown"]
    assert build_data(under(names, names), Options(seed=0)).classes == tuple(names)
    with pytest.raises(DataError, match=r"has a class 'unknown'.*rename"):
        build_data(under(names, names, label_spaces="open"), Options(seed=0))
    data = build_data(under(["cat", "dog"], names, label_spaces="open"), Options(seed=0))
    assert data.classes == ("cat", "dog", "unknown")
    assert torch.bincount(data.role("target_test").labels).tolist() == [10, 10, 10]


def test_images_of_both_domains_are_counted(image_folder, tmp_path, caplog):
    place = "tlrun.data.sets.folder.folder"
    image_folder("s", {"a": 6, "b": 6})
    image_folder("t", {"a": 6, "b": 6}, 500)
    for i in range(3):
        write_image(tmp_path / "t" / "a" / f"again {i}.png", i)
    build_data(
        {
            "source": {"_target_": place, "name": "source", "root": str(tmp_path / "s")},
            "target": {"_target_": place, "name": "target", "root": str(tmp_path / "t")},
            "size": 12,
        },
        Options(
            seed=0,
        ),
    )
    assert "source and target share 3 images" in caplog.text


def test_domains_that_read_grey_by_other_rules_are_named(caplog):
    one = Splits(toy().train, None, None, Card("a", "", ""), grey={"I": (0.0, 4095.0)})
    other = Splits(toy().train, None, None, Card("b", "", ""), grey={"I": (0.0, 1023.0)})
    assert common_grey({"source": one, "target": one}) == {"I": (0.0, 4095.0)}
    assert not caplog.records
    assert common_grey({"source": one, "target": other}) == {"I": (0.0, 1023.0)}
    assert "target reads grey of more than 8 bits from 0 to 1023, others from 0 to 4095" in (
        caplog.text
    )
