import builtins
import importlib.util

import pytest
import torch

from tlrun.errors import ConfigError, DataError
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


@needs_timm
@pytest.mark.parametrize("name", ["resnet18", "vit_large_patch14_clip_224"])
def test_a_hub_that_is_silent_is_told_at_once_with_the_file(monkeypatch, tmp_path, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("tlrun.models.timm_backbones.why_unreachable", lambda url: "no network")
    with pytest.raises(DataError, match=rf"not in {tmp_path}.*no network.*checkpoint_path") as told:
        timm_backbone(name, (3, 224, 224), "DEFAULT")
    assert "https://huggingface.co/timm/" in str(told.value)


@needs_timm
def test_what_lies_in_the_cache_is_read_without_asking_the_hub(monkeypatch, tmp_path):
    import timm
    from safetensors.torch import save_file

    theirs = timm.create_model("test_resnet")
    state = {k: torch.full_like(v, 2).contiguous() for k, v in theirs.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    found = str(tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: found)
    monkeypatch.setattr("urllib.request.urlopen", None)  # nobody calls
    net = timm_backbone("test_resnet", (3, 32, 32), "DEFAULT")
    assert all(bool((p == 2).all()) for p in net.parameters())
