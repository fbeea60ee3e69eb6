"""Episodes: which classes and images make one up, and data of disjoint classes."""

import os
import shutil

import pytest
import torch
from PIL import Image

from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.data.problems.episodes import (
    ClassTable,
    EpisodeStream,
    Shape,
    rotated,
    split,
    split_classes,
)
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.errors import ConfigError, DataError

SHAPE = Shape(way=3, shot=2, query=4, episodes=2)


def examples(classes=5, each=7):
    labels = torch.arange(classes).repeat(each)
    pixels = torch.arange(classes * each, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return ImageSet("toy", pixels.expand(-1, 1, 4, 4).clone(), labels, list("abcde")[:classes])


def stream(**options):
    defaults = {"batch_size": 1, "seed": 0, "preprocess": Preprocess((1, 4, 4), "none", channels=1)}
    return EpisodeStream("source", examples(), shape=SHAPE, **{**defaults, **options})


def test_a_batch_holds_whole_episodes_class_after_class():
    batch = stream().batch(3)
    y = batch.y.reshape(2, 3, 6)
    assert (y == y[:, :, :1]).all()
    assert all(len(set(episode[:, 0].tolist())) == 3 for episode in y)
    for episode in batch.index.reshape(2, 18):  # no image twice: no query among the support
        assert len(set(episode.tolist())) == 18


def test_batches_are_a_function_of_the_step_alone():
    first, other = stream(), stream()
    other.batch(9)
    assert torch.equal(first.batch(4).index, other.batch(4).index)
    assert not torch.equal(first.batch(4).index, first.batch(5).index)
    assert not torch.equal(first.batch(4).index, stream(seed=1).batch(4).index)


def test_processes_share_out_whole_episodes():
    whole = stream().batch(2).index.reshape(2, -1)
    shares = [stream(rank=r, world=2).batch(2).index for r in (0, 1)]
    assert torch.equal(whole, torch.stack(shares))
    with pytest.raises(ConfigError, match=r"data\.train\.episodes=2 must divide"):
        stream(world=3)


def test_split_gives_support_then_query():
    support, query = split(torch.arange(36), SHAPE)
    assert support.tolist()[0] == [0, 1, 6, 7, 12, 13]
    assert query.tolist()[1][:4] == [20, 21, 22, 23]
    with pytest.raises(ConfigError, match=r"trainer\.accumulate"):
        split(torch.arange(9), SHAPE)


def test_all_images_of_a_class_are_drawn_in_time():
    table = ClassTable(examples(), SHAPE, "base classes")
    drawn = torch.cat([table.draw("x", i).flatten() for i in range(50)])
    counts = torch.bincount(drawn, minlength=35)
    assert counts.min() > 0.5 * counts.float().mean()


def test_too_few_classes_or_images_are_named():
    with pytest.raises(ConfigError, match="6-way episodes need 6 classes"):
        ClassTable(examples(), Shape(6, 1, 1), "base classes")
    with pytest.raises(ConfigError, match="class 'a' of the novel classes has 7 images"):
        ClassTable(examples(), Shape(2, 3, 5), "novel classes")
    with pytest.raises(ConfigError, match=r"data\.train\.way=1"):
        Shape.of({"way": 1, "shot": 1, "query": 1}, "data.train")


def test_turns_are_classes_of_their_own():
    image = torch.zeros(1, 1, 3, 3, dtype=torch.uint8)
    image[0, 0, 0, 1] = 9  # the top; turned by 90 degrees (to the left) it is the left
    turned = rotated(ImageSet("toy", image, torch.tensor([0]), ["a"]), 4)
    assert turned.classes == ("a", "a@90", "a@180", "a@270")
    assert turned.labels.tolist() == [0, 1, 2, 3]
    assert turned.read(torch.tensor([1]))[0, 0, 1, 0] == 9


def test_split_classes_labels_anew():
    base, val, novel = split_classes(examples(), [[1, 3], [0], [2, 4]])
    assert base.classes == ("b", "d")
    assert sorted(set(novel.labels.tolist())) == [0, 1]
    assert len(base) == 14
    assert len(val) == 7
    assert set(base.read(torch.tensor([0])).flatten().tolist()) == {1}


def data_of(*overrides):
    return build_data(plain(compose(list(overrides)).data), Options(seed=0))


def test_bundled_digits_keep_their_groups_apart():
    data = data_of("data=digits_episodes")
    names = [{c[0] for c in data.role(r).classes} for r in ("source_train", "source_val")]
    names.append({c[0] for c in data.classes})
    assert names == [set("0158"), set("269"), set("347")]
    assert data.role("target_train") is None
    assert data.input_shape == (1, 28, 28)
    assert data.facts.tests == [(5, 1), (5, 5)]


def test_target_labels_are_refused():
    cfg = plain(compose(["data=digits_episodes"]).data)
    with pytest.raises(ConfigError, match="support of each episode"):
        build_data(cfg, Options(seed=0, target_labels=5))


@pytest.mark.parametrize("key", ["val_episodes", "test_episodes"])
def test_no_episode_is_an_error_before_the_training(key):
    cfg = plain(compose(["data=digits_episodes", f"data.{key}=0"]).data)
    with pytest.raises(ConfigError, match=rf"data\.{key}=0: expected a whole number from 1"):
        build_data(cfg, Options(seed=0, target_labels="none"))


def test_groups_of_digits_must_be_disjoint():
    with pytest.raises(ConfigError, match="none of them twice"):
        data_of("data=digits_episodes", "data.classes.val=[0,6,9]")


def folder_of(root, classes, each=4):
    for c in classes:
        (root / c).mkdir(parents=True)
        for i in range(each):
            Image.new("L", (8, 8), (37 * i + 11 * ord(c)) % 256).save(root / c / f"{i}.png")


SMALL = (
    "data=folder_episodes",
    "data.size=16",
    "data.train={way:2,shot:1,query:2,episodes:1}",
    "data.tests=[[2,1]]",
    "data.query=2",
)


def test_a_folder_is_divided_by_classes(tmp_path):
    folder_of(tmp_path, "abcdefghij")
    data = data_of(*SMALL, f"data.classes.root={tmp_path}")
    groups = [data.source_classes, data.role("source_val").classes, data.classes]
    assert [len(g) for g in groups] == [6, 2, 2]
    assert set().union(*groups) == set("abcdefghij")


def test_divided_folders_must_hold_other_classes(tmp_path):
    for part, classes in (("train", "abc"), ("val", "de"), ("test", "fc")):
        folder_of(tmp_path / part, classes)
    with pytest.raises(DataError, match="class 'c' is in two"):
        data_of(*SMALL, f"data.classes.root={tmp_path}")


def test_folders_of_episodes_in_any_case_and_wrapped(tmp_path):
    for part, classes in (("Training", "abc"), ("valid", "de"), ("TEST", "fg")):
        folder_of(tmp_path / "wrapped" / part, classes)
    data = data_of(*SMALL, f"data.classes.root={tmp_path}")
    assert [data.source_classes, data.classes] == [("a", "b", "c"), ("f", "g")]


def test_mistakes_in_folders_of_episodes(tmp_path):
    for part, classes in (("train", "abc"), ("test", "fg")):
        folder_of(tmp_path / "half" / part, classes)
    with pytest.raises(DataError, match="has no val/"):
        data_of(*SMALL, f"data.classes.root={tmp_path / 'half'}")
    folder_of(tmp_path / "copies", "abcdefghij")
    shutil.copy(tmp_path / "copies/a/0.png", tmp_path / "copies/b/x.png")
    with pytest.raises(DataError, match="two labels"):
        data_of(*SMALL, f"data.classes.root={tmp_path / 'copies'}")
    (tmp_path / "copies/b/x.png").unlink()
    for c in "abcdefghij":  # support and query must not be one image
        for i in (1, 2):
            shutil.copy(tmp_path / f"copies/{c}/0.png", tmp_path / f"copies/{c}/{i}.png")
    with pytest.raises(ConfigError, match="has 2 images, fewer than"):
        data_of(*SMALL, f"data.classes.root={tmp_path / 'copies'}")


def test_novel_classes_with_too_few_images_end_it_before_the_training(tmp_path):
    for part, classes, each in (("train", "abc", 4), ("val", "de", 4), ("test", "fg", 2)):
        folder_of(tmp_path / part, classes, each)
    with pytest.raises(ConfigError, match="class 'f' of the novel classes has 2 images"):
        data_of(*SMALL, f"data.classes.root={tmp_path}")


@pytest.mark.slow
@pytest.mark.skipif("TLRUN_DATA" not in os.environ, reason="needs Omniglot")
@pytest.mark.parametrize(
    ("split", "counts"), [("vinyals", (1028, 172, 423)), ("lake", (864, 100, 659))]
)
def test_omniglot(split, counts):
    data = data_of("data=omniglot", f"data.classes.split={split}", "data.classes.rotations=1")
    roles = [data.role(r) for r in ("source_train", "source_val", "target_test")]
    assert tuple(len(r.classes) for r in roles) == counts
    assert len(set().union(*(r.classes for r in roles))) == 1623
    assert all((torch.bincount(r.labels) == 20).all() for r in roles)
    if split == "lake":
        (runs,) = data.fixed
        assert runs.query_labels.shape == (20, 20)
        assert all(sorted(row) == list(range(20)) for row in runs.query_labels.tolist())
    else:
        assert data.fixed == ()
