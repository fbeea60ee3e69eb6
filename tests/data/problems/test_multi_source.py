"""Several sources: a stream each and one of all of them; the target stays behind the firewall."""

import json

import pytest
import torch

from helpers.toy_sets import SET, toy
from helpers.toy_sets import sources_conf as conf
from tlrun.config.compose import compose
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.pixels import JoinedPixels, TensorPixels
from tlrun.data.examples.splits import Card, Splits
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.data.sets.digit_styles import STYLES, paint, styled
from tlrun.data.sets.digits import digits, digits_m
from tlrun.errors import ConfigError, DataError


def everything(examples):
    return examples.read(torch.arange(len(examples)))


# ---- what the data are ------------------------------------------------------------------------


def test_every_source_is_a_domain_and_source_is_all_of_them():
    data = build_data(conf(), Options(seed=0))
    assert list(data.domains) == ["a", "b", "source", "target"]
    assert data.sources == ("a", "b")
    assert data.kind == "class"
    for split in ("train", "val", "test"):
        parts = [data.role(f"{name}_{split}") for name in data.sources]
        whole = data.role(f"source_{split}")
        assert torch.equal(everything(whole), torch.cat([everything(p) for p in parts]))
        assert torch.equal(whole.labels, torch.cat([p.labels for p in parts]))
        assert whole.classes == data.classes
    assert data.stream_set("b") is data.role("b_train")


def test_a_plain_pair_has_one_source():
    pair = {"source": {"_target_": SET, "n": 80}, "target": {"_target_": SET}}
    assert build_data(pair, Options(seed=0)).sources == ("source",)


def test_classes_are_matched_by_name():
    """b numbers them c, a, b; of each set the labels are 0, 1, 2, 0, ..."""
    data = build_data(conf(), Options(seed=0))
    assert data.classes == ("a", "b", "c")
    drawn = data.role("b_test").labels
    assert drawn[:4].tolist() == [2, 0, 1, 2]


def test_other_classes_are_named():
    with pytest.raises(
        DataError, match=r"all sources must have the same classes.*only in toyabd: d"
    ):
        build_data(conf(a={"n": 80}, b={"classes": "abd"}), Options(seed=0))
    with pytest.raises(DataError, match="source and target must have the same classes"):
        build_data(conf({"classes": "abd"}), Options(seed=0))


def test_sources_without_labels_and_other_shapes_are_refused():
    unlabelled = {"_target_": f"{__name__}.unlabelled"}
    with pytest.raises(DataError, match="has no labels"):
        build_data(conf(a={"n": 80}, b=unlabelled), Options(seed=0))
    with pytest.raises(DataError, match="must agree"):
        build_data(conf(a={"n": 80}, b={"shape": (1, 9, 9)}), Options(seed=0))


def unlabelled(**settings):
    splits = toy(**settings)
    return Splits(splits.train.without_labels(), None, None, Card("toy", "none", "none"))


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({"a": {"n": 80}}, "at least two"),
        ({"a": {"n": 80}, "target": {}}, "data.sources.target: name it in other words"),
        ({"a": {"n": 80}, "b-c": {}}, "data.sources.b-c: name it in other words"),
    ],
)
def test_sources_are_checked(sources, said):
    made = {name: {"_target_": SET, **block} for name, block in sources.items()}
    with pytest.raises(ConfigError, match=said):
        build_data({**conf(), "sources": made}, Options(seed=0))


def test_augmentation_is_of_source_and_target():
    data = build_data({**conf(), "augment": {"source": {"noise": 0.1}}}, Options(seed=0))
    assert data.augment["a"]
    assert data.augment["source"]
    assert not data.augment["target"]
    with pytest.raises(ConfigError, match="all sources share that of `source`"):
        build_data({**conf(), "augment": {"a": {"noise": 0.1}}}, Options(seed=0))


def test_standard_statistics_are_of_all_sources():
    bright = {"_target_": f"{__name__}.bright"}
    data = build_data({**conf(a={"n": 80}, b=bright), "normalize": "standard"}, Options(seed=0))
    x = data.preprocess(everything(data.role("source_train")))
    assert float(x.mean()) == pytest.approx(0.0, abs=1e-4)
    assert float(x.std()) == pytest.approx(1.0, abs=1e-2)


def bright(**settings):
    splits = toy(**settings)
    sets = [
        ImageSet("bright", s.data // 2 + 127, s.labels, s.classes)
        for s in (splits.train, splits.test)
    ]
    return Splits(sets[0], None, sets[1], splits.card)


# ---- the firewall -----------------------------------------------------------------------------


def test_the_target_has_no_labels_unless_asked_for():
    data = build_data(conf(), Options(seed=0))
    for role in ("target_train", "target_val"):
        assert data.role(role).labels is None
    permuted = build_data(conf({"permute": "train"}), Options(seed=0))
    assert json.dumps(data.info()) == json.dumps(permuted.info())
    assert data.target_labels_seen == 0
    few = build_data(conf(), Options(seed=0, target_labels=2))
    assert few.target_labels_seen == len(few.role("target_train")) == 6


def test_without_target_images_only_its_test_exists():
    data = build_data(conf(), Options(seed=0, target_images="none"))
    assert data.role("target_train") is None
    assert data.role("target_val") is None
    assert data.role("target_test").labels is not None
    with pytest.raises(ConfigError, match="target_images=none"):
        data.stream_set("target")


# ---- joined sets ------------------------------------------------------------------------------


def parts():
    generator = torch.Generator().manual_seed(0)
    grey = torch.randint(0, 256, (4, 1, 2, 2), dtype=torch.uint8, generator=generator)
    colour = torch.randint(0, 256, (3, 3, 2, 2), dtype=torch.uint8, generator=generator)
    return ImageSet("grey", grey), ImageSet("colour", colour)


def test_a_joined_set_reads_in_any_order_and_repeats_grey():
    grey, colour = parts()
    joined = ImageSet("both", JoinedPixels([grey, colour]), torch.arange(7) % 2, ("x", "y"))
    assert joined.shape == (3, 2, 2)
    read = joined.read(torch.tensor([5, 0, 6, 5]))
    expected = [colour.data[1], grey.data[0].expand(3, 2, 2), colour.data[2], colour.data[1]]
    assert torch.equal(read, torch.stack(expected))


def test_views_of_a_joined_set():
    grey, colour = parts()
    joined = ImageSet("both", JoinedPixels([grey, colour]), torch.arange(7) % 2, ("x", "y"))
    joined = joined.with_column("number", torch.arange(7))
    view = joined.subset(torch.tensor([6, 1, 4])).subset(torch.tensor([2, 0]))
    assert torch.equal(everything(view), everything(joined)[[4, 6]])
    assert view.labels.tolist() == [0, 0]
    assert view.columns["number"].tolist() == [4, 6]
    assert view.without_labels().labels is None
    assert view.with_labels(torch.tensor([1, 1]), ("x", "y")).labels.tolist() == [1, 1]
    copied = view.to("cpu")
    assert isinstance(copied.pixels, TensorPixels)
    assert copied.checksum == view.checksum
    assert view.nbytes == 2 * 12  # of the larger shape


def test_sets_that_stay_in_files_are_joined_too(image_folder):
    roots = {
        name: image_folder(name, {"cat": 4, "dog": 4}, seed) for name, seed in (("p", 0), ("q", 9))
    }
    block = {"_target_": "tlrun.data.sets.folder.folder", "memory_gb": 0}
    made = {
        "_target_": "tlrun.data.problems.multi_source.multi_source",
        "sources": {name: {**block, "root": str(root)} for name, root in roots.items()},
        "target": {**block, "root": str(roots["p"])},
        "size": 16,
    }
    data = build_data(made, Options(seed=0))
    whole = data.role("source_train")
    assert not whole.in_memory
    each = [everything(data.role(f"{name}_train")) for name in data.sources]
    assert torch.equal(everything(whole), torch.cat(each))


# ---- the bundled digits in three styles -------------------------------------------------------


def test_styles_share_no_digit_with_each_other_or_the_target():
    """Undo the styles that can be undone: all is the source of `digits.py`, dealt out in turn."""
    whole = digits().train
    plain, inverted = (styled(style=style).train for style in STYLES[:2])
    assert torch.equal(plain.data, whole.data[0::3])
    assert torch.equal(255 - inverted.data, whole.data[1::3])
    assert torch.equal(styled(style="coloured").train.labels, whole.labels[2::3])
    assert len(digits_m().test) == 201


def test_the_recipe_is_recorded():
    found = {style: styled(style=style, seed=7).train.checksum[:16] for style in STYLES}
    assert found == {
        "plain": "9698033686841503",
        "inverted": "d77a00231c75d976",
        "coloured": "721a2448bc65964e",
    }
    with pytest.raises(ConfigError, match=r"style=inverse: .*inverted"):
        styled(style="inverse")


def test_coloured_paper_and_ink():
    """Black becomes the paper, white the ink: one colour each over the whole image."""
    flat = torch.tensor([0, 255], dtype=torch.uint8).repeat(1, 1, 2, 1).repeat(5, 1, 1, 1).numpy()
    painted = paint(flat, "coloured", "train")
    assert painted.shape == (5, 3, 2, 2)
    assert (painted[:, :, 0] == painted[:, :, 1]).all()
    assert (painted[:, :, 0, 0] != painted[:, :, 0, 1]).any()


def test_the_bundled_config_builds():
    data = build_data(compose(["data=digits_styles_digitsm"]).data, Options(seed=0))
    assert data.sources == STYLES
    assert [len(data.role(f"source_{s}")) for s in ("train", "val", "test")] == [600, 98, 200]
    assert data.input_shape == (3, 28, 28)
