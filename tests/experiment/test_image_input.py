"""`data.size=auto` and `data.normalize=auto` follow what a net's weights were trained on."""

import logging
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from tlrun.data.pipeline.preprocess import STATISTICS, Preprocess, name_of
from tlrun.experiment.image_input import follow_weights
from tlrun.models.published import TrainedOn, published

MINE = f"{__name__}.Mine"
ODD = TrainedOn(96, (0.43, 0.411, 0.296), (0.213, 0.156, 0.143))  # of no name


@published(lambda name, weights: ODD)
class Mine(nn.Module):
    pass


def config(size="auto", normalize="auto", weights="DEFAULT", backbone=None, **data):
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
    cfg = config(backbone={"_target_": MINE}, _target_="tlrun.data.problems.tasks.task_data")
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
    cfg = config()
    follow_weights(cfg, "there")
    if len(shape) == 1:
        assert (cfg.data.size, cfg.data.normalize) == (64, "half")
        return
    assert (cfg.data.size, cfg.data.normalize) == (48, "standard")
    assert (list(cfg.data.mean), list(cfg.data.std)) == ([0.1] * 3, [0.2] * 3)


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
