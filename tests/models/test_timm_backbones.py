import builtins
import importlib.util

import pytest
import torch

from tlrun.errors import ConfigError
from tlrun.models.batch_norm import convert
from tlrun.models.timm_backbones import timm_backbone

torch.set_num_threads(1)
needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="the extra tlrun[timm] is not installed"
)


def test_without_timm_the_error_says_what_to_install(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "timm":
            raise ImportError("No module named 'timm'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install timm"):
        timm_backbone("resnet18", (3, 32, 32))


@needs_timm
@pytest.mark.parametrize(
    ("name", "features", "stages"),
    [
        ("resnet18", 512, ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]),
        ("convnext_atto", 320, ["stem.0", "stem.1", *[f"stages.{i}" for i in range(4)], "norm"]),
        ("vit_tiny_patch16_224", 192, None),
        ("efficientnet_b0", 1280, None),
    ],
)
def test_features_and_stages(name, features, stages):
    net = timm_backbone(name, (1, 32, 32))
    assert net(torch.randn(2, 1, 32, 32)).shape == (2, features)
    assert net.feature_dim == features
    assert len(net.stage_names) > 5
    assert stages is None or [s.replace("head.", "") for s in net.stage_names] == stages


@needs_timm
def test_batch_norm_with_an_activation_can_be_split_by_domain():
    net = convert(timm_backbone("efficientnet_b0", (3, 32, 32)), "per_domain")
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 1280)


@needs_timm
def test_typos():
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):
        timm_backbone("resnet19", (3, 32, 32))
    with pytest.raises(ConfigError, match="did you mean 'a1_in1k'"):
        timm_backbone("resnet18", (3, 32, 32), "a1_in2k")
    with pytest.raises(ConfigError, match="backbone=mlp"):
        timm_backbone("resnet18", (32,))
