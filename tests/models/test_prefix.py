"""Where a pass may begin: the rest of the net makes of kept activations what it makes of images."""

import copy

import pytest
import torch
from torch import nn

from tlrun.models.backbones import MLP, DannCNN
from tlrun.models.batch_norm import convert
from tlrun.models.net import Net
from tlrun.models.prefix import WHOLE, find_entry, prefix
from tlrun.models.shapes import describe
from tlrun.models.torchvision_backbones import torchvision_backbone

SHAPE = (3, 28, 28)


def frozen(backbone: nn.Module, *stages: str, shape=SHAPE) -> Net:
    """The net in the mode in which it trains, these stages being held still."""
    net = Net(backbone, shape)
    net.add("classifier", net.new_head(4))
    for stage in net.select(stages):
        for parameter in net.parameters_in(stage):
            parameter.requires_grad_(False)
    net.train()
    net.set_frozen_eval(net.select(stages))
    return net


def images(shape=SHAPE, count: int = 5) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def assert_same_from(net: Net, entry, x: torch.Tensor) -> None:
    before = torch.get_rng_state()
    kept = prefix(net, entry, x)
    assert torch.equal(torch.get_rng_state(), before)
    assert kept.shape[1:] == entry.shape
    wanted = copy.deepcopy(net)(x)
    net.entry = entry
    for _ in range(2):
        out = copy.deepcopy(net)(kept)
        assert torch.equal(out.features, wanted.features)
        assert torch.equal(out.logits, wanted.logits)
    assert torch.equal(copy.deepcopy(net)(x).logits, wanted.logits)  # images are taken as well


def test_a_pass_begins_behind_the_frozen_stages_of_a_chain():
    net = frozen(DannCNN(SHAPE, dropout=0), "backbone.conv1")
    entry = find_entry(net)
    assert entry.stage == "backbone.conv1"
    assert entry.shape == (32, 12, 12)
    assert entry.bytes_each == 32 * 12 * 12 * 4
    assert_same_from(net, entry, images())


def test_a_frozen_backbone_is_left_out_as_a_whole():
    net = frozen(DannCNN(SHAPE), "backbone")
    entry = find_entry(net)
    assert (entry.stage, entry.shape) == (WHOLE, (net.feature_dim,))
    assert_same_from(net, entry, images())
    kept = prefix(net, entry, images())
    assert torch.equal(net.features(kept, "target"), kept)


@pytest.mark.parametrize("last", ["conv1", "layer1", "layer3"])
def test_a_residual_net_begins_behind_any_of_its_stages(last):
    torch.manual_seed(0)
    backbone = torchvision_backbone("resnet18", (3, 32, 32))
    names = [f"backbone.{name}" for name in backbone.stage_names]
    held = names[: names.index(f"backbone.{last}") + 1]
    net = frozen(backbone, *held, shape=(3, 32, 32))
    entry = find_entry(net)
    assert entry.stage == held[-1]
    assert_same_from(net, entry, images((3, 32, 32)))


def test_layers_between_the_stages_are_passed_over_too():
    shape = (3, 32, 32)
    backbone = torchvision_backbone("resnet18", shape)
    net = frozen(backbone, "backbone.[!l]*", "backbone.layer1", shape=shape)
    assert find_entry(net).skipped == ("conv1", "bn1", "relu", "maxpool", "layer1")


@pytest.mark.parametrize("stages", [(), ("classifier",), ("backbone.conv2",)])
def test_nothing_is_left_out_where_the_first_stage_trains(stages):
    assert find_entry(frozen(DannCNN(SHAPE), *stages)) is None


def test_what_is_frozen_but_draws_at_random_or_trains_its_statistics_is_run():
    net = frozen(DannCNN(SHAPE), "backbone")
    net.backbone.conv2.train()  # its dropout and its batch norm
    assert find_entry(net).stage == "backbone.conv1"
    net.backbone.conv1.train()
    counts = {k: v.clone() for k, v in net.state_dict().items()}
    assert find_entry(net) is None
    assert all(torch.equal(v, counts[k]) for k, v in net.state_dict().items())
    assert net.backbone.conv1.training


def test_no_pass_begins_behind_a_stage_that_is_looked_at():
    net = frozen(DannCNN(SHAPE), "backbone")
    net.entry = find_entry(net, ["backbone.conv1", "classifier"])
    assert net.entry.stage == "backbone.conv1"
    x = images()
    kept = prefix(net, net.entry, x)
    taps = net(kept, taps=("backbone.conv1",)).taps["backbone.conv1"]
    assert torch.equal(taps, net(x, taps=("backbone.conv1",)).taps["backbone.conv1"])


def test_activations_that_depend_on_the_domain_are_not_kept():
    net = convert(frozen(DannCNN(SHAPE), "backbone"), "per_domain")
    net.set_frozen_eval(net.select(["backbone"]))
    assert find_entry(net).stage == WHOLE  # the target has no statistics of its own yet
    net.backbone.conv1.norm.target_num_batches_tracked += 1
    assert find_entry(net) is None
    net.backbone.conv1.norm.target_num_batches_tracked -= 1
    net.backbone.conv2.norm.target_num_batches_tracked += 1
    assert find_entry(net).stage == "backbone.conv1"


def test_batch_norm_without_running_statistics_is_run():
    backbone = DannCNN(SHAPE, dropout=0)
    backbone.conv1.norm = nn.BatchNorm2d(32, track_running_stats=False)
    assert find_entry(frozen(backbone, "backbone")) is None


class Positions(nn.Module):
    """As in a transformer: positions are added to what the first layer makes."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.inner, self.last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 4)
        self.positions = nn.Parameter(torch.ones(5))
        self.stage_names = ["patches", "inner", "last"]
        describe(self, (6,), "positions")

    def forward(self, x):
        return self.last(self.inner(self.patches(x) + self.positions))


def test_no_pass_begins_behind_what_the_net_adds_on_its_way():
    net = frozen(Positions(), "backbone.patches", "backbone.inner", shape=(6,))
    assert find_entry(net).stage == "backbone.patches"
    assert_same_from(net, find_entry(net), images((6,)))
    assert find_entry(frozen(Positions(), "backbone", shape=(6,))).stage == WHOLE


class InPlace(Positions):
    def forward(self, x):
        return self.last(self.inner(self.patches(x).mul_(2)))


def test_a_net_that_changes_kept_activations_in_place_does_not_begin_there():
    assert find_entry(frozen(InPlace(), "backbone.patches", shape=(6,))) is None


def test_activations_shaped_like_the_input_could_be_taken_for_it():
    assert find_entry(frozen(MLP((8,), hidden=[8, 5]), "backbone.fc1", shape=(8,))) is None
    net = frozen(MLP((8,), hidden=[7, 5], dropout=0), "backbone.fc1", shape=(8,))
    assert_same_from(net, find_entry(net), images((8,)))
