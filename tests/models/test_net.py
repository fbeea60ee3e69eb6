import pytest
import torch
from torch import nn

from tlrun.errors import ConfigError
from tlrun.models.backbones import DannCNN
from tlrun.models.heads import DomainHead
from tlrun.models.net import Net

torch.set_num_threads(1)


@pytest.fixture
def net() -> Net:
    net = Net(DannCNN((3, 28, 28)), (3, 28, 28), head={"hidden": [7]})
    net.add("classifier", net.new_head(4))
    return net


def test_stages_are_named_in_forward_order(net):
    expected = ["backbone.conv1", "backbone.conv2", "classifier.fc1", "classifier.out"]
    assert net.stages() == expected
    assert net.select(["classifier", "backbone.conv1"]) == [expected[0], *expected[2:]]
    assert net.select(["backbone.*"]) == expected[:2]
    with pytest.raises(ConfigError, match=r"did you mean 'backbone\.conv2'"):
        net.select(["backbone.conv3"])


def test_forward_gives_features_logits_and_taps(net):
    out = net(torch.randn(2, 3, 28, 28), taps=("backbone.conv1", "classifier.fc1"))
    assert (out.features.shape, out.logits.shape) == ((2, 768), (2, 4))
    assert out.taps["backbone.conv1"].shape == (2, 32, 12, 12)
    assert net.width_of("classifier.fc1") == out.taps["classifier.fc1"].shape[1] == 7
    assert net(torch.randn(2, 3, 28, 28), head=None).logits is None


def test_a_part_is_added_once(net):
    head = net.add("domain_head", DomainHead(768))
    assert net.add("domain_head", DomainHead(768)) is head
    with pytest.raises(ConfigError, match="did you mean 'domain_head'"):
        net["domain_haed"]


def test_parameters_outside_all_stages_belong_to_the_first():
    """A transformer's class token is no module, yet freezing the backbone must hold it still."""

    class Tokens(nn.Module):
        feature_dim, stage_names = 3, ["first", "second"]

        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 3))
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.second(self.first(x + self.token))

    net = Net(Tokens(), (3,))
    first, second = (net.parameters_in(stage) for stage in net.stages())
    assert any(p is net.backbone.token for p in first)
    assert (len(first), len(second)) == (3, 2)
    assert len(list(net.parameters_of(net.select(["backbone"])))) == 5
    net.backbone.token.requires_grad_(False)
    assert len(list(net.parameters_of())) == 4
