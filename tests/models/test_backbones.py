import pytest
import torch
from torch import nn

from helpers import small
from tlrun.errors import ConfigError
from tlrun.models.backbones import DTN, MLP, DannCNN, LeNet

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("make", "shape", "features"),
    [
        (DannCNN, (3, 28, 28), 768),
        (DannCNN, (1, 32, 32), 1200),
        (DannCNN, (3, 16, 16), 48),
        (LeNet, (1, 28, 28), 800),
        (DTN, (3, 32, 32), 4096),
        (DTN, (3, 8, 8), 256),
        (MLP, (800,), 256),
        (MLP, (1, 8, 8), 256),
    ],
)
def test_feature_size_follows_the_input(make, shape, features):
    net = make(shape)
    x = torch.randn(4, *shape)
    assert net.feature_dim == features
    assert net(x).shape == (4, features)
    assert all(isinstance(net.get_submodule(stage), nn.Module) for stage in net.stage_names)
    assert net.input_shape == shape


def test_dann_cnn_without_extras_is_the_papers_net():
    """Ganin et al. 2016, fig. 4a: conv5x5-32, ReLU, pool 2, conv5x5-48, ReLU, pool 2."""
    net = DannCNN((3, 28, 28), batch_norm=False, dropout=0)
    sizes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert sizes == {
        "conv1.conv.weight": (32, 3, 5, 5),
        "conv1.conv.bias": (32,),
        "conv2.conv.weight": (48, 32, 5, 5),
        "conv2.conv.bias": (48,),
    }
    paper = nn.Sequential(
        nn.Conv2d(3, 32, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 48, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    ).to(memory_format=torch.channels_last)  # fmt: skip
    for mine, theirs in zip(net.parameters(), paper.parameters(), strict=True):
        theirs.data.copy_(mine)
    x = torch.randn(5, 3, 28, 28)
    mine, theirs = net(x), paper(x.contiguous(memory_format=torch.channels_last))
    assert torch.equal(mine, theirs)
    weight = torch.randn_like(mine)
    (mine * weight).sum().backward()
    (theirs * weight).sum().backward()
    for a, b in zip(net.parameters(), paper.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_width_and_switches():
    net = DannCNN((3, 28, 28), width=2)
    assert net.feature_dim == 2 * 768
    assert isinstance(net.conv1.norm, nn.BatchNorm2d)
    assert net.conv2.dropout.p == 0.25
    assert not hasattr(net.conv1, "dropout")
    assert [DTN((3, 32, 32)).get_submodule(f"conv{i}.dropout").p for i in (1, 2, 3)] == [
        0.1,
        0.3,
        0.5,
    ]
    assert not any(isinstance(m, nn.Dropout2d) for m in DTN((3, 32, 32), dropout=0).modules())


def test_channels_last_and_bf16_give_the_same_features():
    net = DannCNN((3, 28, 28)).eval()
    x = torch.randn(4, 3, 28, 28)
    with torch.no_grad():
        plain = net(x)
        last = net.to(memory_format=torch.channels_last)(
            x.contiguous(memory_format=torch.channels_last)
        )
        with torch.autocast("cpu", torch.bfloat16):
            half = net(x)
    torch.testing.assert_close(plain, last)
    assert (plain - half).abs().max() < 0.05


def test_mlp_without_hidden_layers_passes_features_through():
    net = MLP((10,), hidden=[])
    x = torch.randn(3, 10)
    assert torch.equal(net(x), x)
    assert (net.feature_dim, net.stage_names) == (10, [])


def test_too_small_images_name_the_size_that_does():
    with pytest.raises(ConfigError, match=r"images of 8x8 do not fit.*data\.size=16"):
        DannCNN((3, 8, 8))


def test_vectors_need_the_mlp():
    with pytest.raises(ConfigError, match="vectors of 800 numbers: use backbone=mlp"):
        LeNet((800,))


@pytest.mark.parametrize(
    ("kind", "shape", "arguments", "message"),
    [
        (DTN, (3, 32, 32), {"width": 0}, r"backbone\.width=0: expected a number above 0"),
        (MLP, (10,), {"hidden": [-3]}, r"hidden=\[-3\]: .*each a whole number from 1"),
        (MLP, (10,), {"dropout": 1.5}, "dropout=1.5: expected a number from 0 to 1"),
        (DannCNN, (3, 28, 28), {"dropout": -0.1}, "dropout=-0.1: expected a number from 0"),
    ],
)
def test_impossible_sizes_and_rates(kind, shape, arguments, message):
    with pytest.raises(ConfigError, match=message):
        small.configured(kind, "backbone", input_shape=shape, **arguments)
