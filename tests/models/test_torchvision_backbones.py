import builtins
import sys
from urllib.error import HTTPError, URLError

import pytest
import torch

from tlrun.errors import ConfigError, DataError
from tlrun.models.hub import why_unreachable
from tlrun.models.torchvision_backbones import torchvision_backbone

torch.set_num_threads(1)


def numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(count)]


# name, size, feature_dim, stages
NETS = [
    ("resnet18", 32, 512, ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]),
    ("densenet121", 32, 1024, None),
    ("efficientnet_b0", 32, 1280, numbered("features.", 9)),
    ("mobilenet_v3_small", 32, 1024, [*numbered("features.", 13), "classifier.0"]),
    ("convnext_tiny", 32, 768, [*numbered("features.", 8), "classifier.0"]),
    ("squeezenet1_1", 64, 512, None),
    (
        "vit_b_32", 64, 768,
        ["conv_proj", *numbered("encoder.layers.encoder_layer_", 12), "encoder.ln"],
    ),
    ("swin_t", 64, 768, [*numbered("features.", 8), "norm"]),
    ("googlenet", 64, 1024, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "size", "features", "stages"), NETS, ids=[n[0] for n in NETS])
def test_features_and_stages(name, size, features, stages):
    net = torchvision_backbone(name, (3, size, size)).eval()
    with torch.no_grad():
        assert net(torch.randn(2, 3, size, size)).shape == (2, features)
    assert net.feature_dim == features
    assert net.stage_names == (stages or net.stage_names)
    assert len(net.stage_names) >= 6
    owned = {id(p) for stage in net.stage_names for p in net.get_submodule(stage).parameters()}
    loose = {name for name, p in net.named_parameters() if id(p) not in owned}
    assert loose <= {"class_token", "encoder.pos_embedding"}


def test_vgg_keeps_its_first_two_dense_layers():
    net = torchvision_backbone("vgg11", (3, 32, 32))
    assert net.feature_dim == 4096
    assert net.stage_names[0] == "features.0"
    assert net.stage_names[-2:] == ["classifier.0", "classifier.3"]


def test_training_mode_is_left_as_it_was():
    net = torchvision_backbone("resnet18", (3, 32, 32))
    assert all(module.training for module in net.modules())


def test_a_typo_names_the_nearest_model_and_weights():
    with pytest.raises(ConfigError, match="did you mean 'resnet50'"):
        torchvision_backbone("resnet5O", (3, 32, 32))
    with pytest.raises(ConfigError, match="did you mean 'DEFAULT'"):
        torchvision_backbone("resnet18", (3, 32, 32), weights="DEFALT")


@pytest.mark.parametrize(
    ("name", "shape", "fix"),
    [
        ("vgg11", (3, 28, 28), r"data\.size=32"),
        ("vit_b_16", (3, 28, 28), r"data\.size=32"),
        ("resnet18", (1, 32, 32), r"data\.channels=3"),
        ("resnet18", (800,), "backbone=mlp"),
    ],
)
def test_unsuitable_data_name_the_fix(name, shape, fix):
    with pytest.raises(ConfigError, match=fix):
        torchvision_backbone(name, shape)


def offline(*args, **kwargs):
    raise URLError("no network")


NAMED = r"resnet18-\w+\.pth.*cannot be downloaded.*no network.*put the file resnet18-\w+\.pth into "


def test_weights_that_cannot_be_downloaded_name_the_file_and_the_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(DataError, match=rf"{NAMED}{tmp_path}/checkpoints.*backbone\.weights=null"):
        torchvision_backbone("resnet18", (3, 32, 32), weights="DEFAULT")
    monkeypatch.setattr("tlrun.models.torchvision_backbones.why_unreachable", lambda url: None)
    monkeypatch.setattr("torchvision.models.get_model", offline)
    with pytest.raises(DataError, match=NAMED):  # the connection broke later
        torchvision_backbone("resnet18", (3, 32, 32), weights="DEFAULT")


def test_a_host_that_answers_by_a_refusal_is_there(monkeypatch):
    def refuse(request, timeout):
        raise HTTPError(request.full_url, 403, "Forbidden", None, None)

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    assert why_unreachable("https://example.org/x.pth") is None


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            RuntimeError("operator torchvision::nms does not exist"),
            "does not fit the installed torch",
        ),
        (ImportError("No module named 'torchvision'"), "pip install 'torchvision"),
    ],
)
def test_a_broken_torchvision_says_what_to_install(monkeypatch, error, advice):
    original = builtins.__import__

    def broken(name, *args, **kwargs):
        if name == "torchvision":
            raise error
        return original(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(ConfigError, match=advice):
        torchvision_backbone("resnet18", (3, 32, 32))
