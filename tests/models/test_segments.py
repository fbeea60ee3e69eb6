"""A backbone in pieces is the whole one, also in a copy and while it trains."""

import copy

import pytest
import torch
from torch import nn

from tlrun.errors import ConfigError
from tlrun.models.backbones import Conv4, DannCNN
from tlrun.models.efficientnet_lite import EfficientNetLite0
from tlrun.models.segments import Segments
from tlrun.models.torchvision_backbones import torchvision_backbone


def whole_way(segments, backbone, x):
    h = x
    for i in range(len(segments)):
        h = segments.run(backbone, i, h)
        assert tuple(h.shape[1:]) == segments.shapes[i]
    return segments.tail(backbone, h)


@pytest.mark.parametrize("name", ["dann_cnn", "conv4", "resnet18", "efficientnet_lite0"])
def test_the_pieces_are_the_whole(name):
    torch.manual_seed(0)
    made = {
        "dann_cnn": lambda: DannCNN((3, 32, 32), width=0.1),
        "conv4": lambda: Conv4((3, 32, 32), width=0.1),
        "resnet18": lambda: torchvision_backbone("resnet18", (3, 32, 32)),
        "efficientnet_lite0": lambda: EfficientNetLite0((3, 32, 32)),
    }[name]()
    segments, x = Segments(made, (3, 32, 32), "x"), torch.randn(3, 3, 32, 32)
    other = copy.deepcopy(made).eval()
    assert made.training
    assert torch.equal(whole_way(segments, other, x), other(x))
    features = whole_way(segments, made, x)
    features.sum().backward()  # gradients reach the first stage
    assert all(p.grad is not None for p in made.parameters())


def test_a_net_that_is_no_chain_is_refused():
    class Positions(nn.Module):
        stage_names = ("a", "b")
        feature_dim = 4

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.b(self.a(x + 1))  # an addition before the first stage, done again

    with pytest.raises(ConfigError, match=r"method\.x acts between the stages.*such as conv4"):
        Segments(Positions(), (4,), "method.x")
