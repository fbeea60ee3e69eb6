"""`data.size=auto` and `data.normalize=auto` follow what a net's weights were trained on."""

import logging
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf, open_dict
from torch import nn

from helpers.data_files import write_image
from tlrun.config.compose import compose
from tlrun.config.packaged import conf_dir
from tlrun.config.saved import load_config
from tlrun.data.pipeline.preprocess import STATISTICS, Preprocess, name_of
from tlrun.data.problems.domain_words import data_sets, uses_words
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data, interpolation_of
from tlrun.experiment.evaluate import prepare_as_trained
from tlrun.experiment.image_input import follow_weights
from tlrun.models.published import TrainedOn, published
from tlrun.run_folder.run_dir import RunDir

MINE = f"{__name__}.Mine"
ODD = TrainedOn(96, (0.43, 0.411, 0.296), (0.213, 0.156, 0.143))  # of no name


@published(lambda name, weights: ODD)
class Mine(nn.Module):
    pass


def config(size="auto", normalize="auto", weights="DEFAULT", backbone=None, **data):
    """`data` without the key interpolation, as older runs have it, unless it is given."""
    spec = backbone or {"_target_": "tlrun.models.efficientnet_lite.EfficientNetLite0"}
    return OmegaConf.create(
        {
            "backbone": {"name": "net", "weights": weights, **spec},
            "data": {"size": size, "normalize": normalize, "name": "d", **data},
        }
    )


def test_auto_follows_the_weights_and_says_so(caplog):
    cfg = config()
    with caplog.at_level(logging.INFO):
        follow_weights(cfg, "auto")
    assert (cfg.data.size, cfg.data.normalize) == (224, "half")
    assert caplog.messages == [
        "data.size=224 data.normalize=half, as the weights DEFAULT of net were trained"
    ]


@pytest.mark.parametrize("init", ["auto", "scratch", "source"])
def test_without_weights_it_is_64_and_half_and_nothing_is_said(init, caplog):
    cfg = config(weights="DEFAULT" if init == "scratch" else None)
    with caplog.at_level(logging.INFO):
        follow_weights(cfg, init)
    assert (cfg.data.size, cfg.data.normalize) == (64, "half")
    assert not caplog.messages


def test_torchvisions_and_timms_own_words_are_followed():
    backbone = {
        "_target_": "tlrun.models.torchvision_backbones.torchvision_backbone",
        "name": "resnet18",
    }
    cfg = config(weights=None, backbone=backbone)
    follow_weights(cfg, "pretrained")
    assert (cfg.data.size, cfg.data.normalize) == (224, "imagenet")
    pytest.importorskip("timm")
    backbone["_target_"] = "tlrun.models.timm_backbones.timm_backbone"
    backbone["name"] = "vit_base_patch32_clip_224"
    cfg = config(weights="openai", backbone=backbone)
    follow_weights(cfg, "auto")
    assert (cfg.data.size, cfg.data.normalize) == (224, "clip")


LITE = {"_target_": "tlrun.models.efficientnet_lite.EfficientNetLite0"}
TORCHVISION = {
    "_target_": "tlrun.models.torchvision_backbones.torchvision_backbone",
    "name": "resnet18",
}
TIMM = {"_target_": "tlrun.models.timm_backbones.timm_backbone", "name": "tf_efficientnet_lite0"}


@pytest.mark.parametrize(
    ("backbone", "init", "want"),
    [
        (LITE, "pretrained", "bicubic"),
        (TIMM, "pretrained", "bicubic"),
        (TORCHVISION, "pretrained", "bilinear"),
        (LITE, "scratch", "bilinear"),
        ({"_target_": MINE}, "pretrained", "bilinear"),  # nobody says it
    ],
    ids=["lite0", "timm", "torchvision", "scratch", "unsaid"],
)
def test_interpolation_is_that_of_the_published_weights(backbone, init, want):
    if backbone is TIMM:
        pytest.importorskip("timm")
    cfg = config(backbone=backbone, interpolation="auto")
    follow_weights(cfg, init)
    assert cfg.data.interpolation == want
    given = config(backbone=backbone, interpolation="bilinear")
    follow_weights(given, init)
    assert given.data.interpolation == "bilinear"
    old = config(backbone=backbone)
    follow_weights(old, init)
    assert "interpolation" not in old.data


def test_what_is_given_stays_and_a_contradiction_is_told_once(caplog):
    cfg = config(size=32, normalize="imagenet")
    follow_weights(cfg, "pretrained")
    assert (cfg.data.size, cfg.data.normalize) == (32, "imagenet")
    assert caplog.messages == [
        "data.normalize=imagenet, but the weights DEFAULT of net were trained with half, which "
        "data.normalize=auto would take"
    ]
    caplog.clear()
    follow_weights(config(normalize="standard", mean=[0.5] * 3, std=[0.5] * 3), "pretrained")
    follow_weights(config(size=32, normalize="half"), "pretrained")
    assert not caplog.messages


def test_statistics_without_a_name_become_numbers_where_the_data_take_them(caplog):
    cfg = config(backbone={"_target_": MINE})
    follow_weights(cfg, "pretrained")
    assert (cfg.data.size, cfg.data.normalize) == (96, "standard")
    assert list(cfg.data.mean) == list(ODD.mean)
    assert list(cfg.data.std) == list(ODD.std)
    cfg = config(backbone={"_target_": MINE}, _target_="tlrun.data.problems.own_tasks.own_tasks")
    follow_weights(cfg, "pretrained")
    assert list(cfg.data.mean) == list(ODD.mean)
    cfg = config(backbone={"_target_": MINE}, _target_="tlrun.data.problems.episodes.episodes")
    follow_weights(cfg, "pretrained")
    assert "mean" not in cfg.data
    assert "takes no mean and std" in caplog.text


def test_ready_features_are_left_alone():
    cfg = OmegaConf.create({"data": {"normalize": "none"}, "backbone": {"weights": "DEFAULT"}})
    follow_weights(cfg, "pretrained")
    assert cfg.data == {"normalize": "none"}


@pytest.mark.parametrize("shape", [[3, 48, 48], [800]])
def test_another_run_hands_on_its_images(monkeypatch, shape):
    spec = {"shape": shape, "normalize": "standard", "mean": [0.1] * 3, "std": [0.2] * 3}
    run = SimpleNamespace(
        path="there",
        label_space=SimpleNamespace(is_file=lambda: True),
        read_label_space=lambda: {"preprocess": spec},
    )
    monkeypatch.setattr("tlrun.experiment.image_input.RunDir.open", lambda _: run)
    cfg = config(interpolation="auto")
    follow_weights(cfg, "there")
    assert cfg.data.interpolation == "bilinear"  # of a run of before there was the key
    if len(shape) == 1:
        assert (cfg.data.size, cfg.data.normalize) == (64, "half")
        return
    assert (cfg.data.size, cfg.data.normalize) == (48, "standard")
    assert (list(cfg.data.mean), list(cfg.data.std)) == ([0.1] * 3, [0.2] * 3)
    spec["interpolation"] = "bicubic"
    cfg = config(interpolation="auto")
    follow_weights(cfg, "there")
    assert cfg.data.interpolation == "bicubic"


@pytest.mark.parametrize("group", sorted(p.stem for p in (conf_dir() / "data").glob("*.yaml")))
def test_a_group_has_the_key_where_a_set_of_it_takes_it(group):
    conf = OmegaConf.to_container(
        OmegaConf.load(conf_dir() / "data" / f"{group}.yaml"), resolve=True
    )
    words = data_sets(conf, Options()) if uses_words(conf) else conf
    takers = [b for b in blocks(words) if interpolation_of(b, "bicubic")]
    of_sets = [block for block in takers if ".sets." in block["_target_"]]
    assert ("interpolation" in conf) == bool(of_sets or group in ("tasks", "xlsa17_images"))
    assert conf.get("interpolation", "auto") == "auto"
    assert not any("interpolation" in block for block in of_sets)  # data.interpolation is for all


def blocks(node):
    """Every group with a builder, itself included."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from blocks(value)


@pytest.mark.parametrize("sources", [["a"], ["a", "b"], []], ids=["pair", "several", "alone"])
def test_it_reaches_the_sets_and_the_net_whatever_the_problem(tmp_path, sources, monkeypatch):
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "cache"))
    for d, domain in enumerate("abt"):
        for i in range(24):
            write_image(tmp_path / "root" / domain / f"class{i % 2}" / f"{i}.png", 100 * d + i)
    conf = OmegaConf.load(conf_dir() / "data" / "domains.yaml")
    conf.update(root=str(tmp_path / "root"), domains=["a", "b", "t"], target="t", size=9)
    conf.update(source=sources or None, interpolation="bicubic")
    data = build_data(conf, Options(target_labels="none" if sources else "all"))
    assert data.preprocess.interpolation == "bicubic"
    for name, domain in data.domains.items():
        files = domain.test.paths
        if files:  # not of several sources joined
            read = data.preprocess.read_files(files)
            assert torch.equal(domain.test.read(torch.arange(len(files))), read), name


def test_other_data_are_read_as_the_run_was(tmp_path):
    run = RunDir.create(tmp_path / "run")
    saved = compose(["data=cifar10", "method=finetune", "init=scratch"])
    for interpolation, want in (("bicubic", "bicubic"), (None, "bilinear")):
        with open_dict(saved):
            saved.data.pop("interpolation", None)  # older runs have no such key
            if interpolation:
                saved.data.interpolation = interpolation
        OmegaConf.save(saved, run.config)
        other = load_config(run.config, ["data=stl10"])
        prepare_as_trained(other, run, ["data=stl10"])
        assert other.data.interpolation == want
        typed = ["data=stl10", "data.interpolation=bilinear"]
        other = load_config(run.config, typed)
        prepare_as_trained(other, run, typed)
        assert other.data.interpolation == "bilinear"
        again = load_config(run.config, [])
        assert again.data.get("interpolation") == interpolation


def test_names_of_statistics():
    for name, statistics in STATISTICS.items():
        assert name_of(*statistics) == name
    assert name_of((0, 0, 0), (1, 1, 1)) == "none"
    assert name_of(ODD.mean, ODD.std) is None
    x = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in STATISTICS["clip"])
    seen = Preprocess((3, 4, 4), "clip")(x)
    torch.testing.assert_close(seen, (x / 255 - mean) / std)
    assert torch.equal(Preprocess.from_spec(Preprocess((3, 4, 4), "clip").spec())(x), seen)
    assert Preprocess((1, 4, 4), "half", channels=1).mean.item() == 0.5
