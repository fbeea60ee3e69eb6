"""Extra passes in training: no trace in the net, no chance."""

import pytest
import torch
from torch import nn

from tlrun.losses.virtual_adversarial import vat_loss
from tlrun.models.batch_norm import convert
from tlrun.models.repeatable import judging, repeatable


@pytest.mark.parametrize("mode", ["joint", "per_domain"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_and_modes_stay_and_dropout_draws_nothing(mode, momentum):
    norm = nn.BatchNorm1d(6, momentum=momentum)
    net = nn.Sequential(nn.Linear(5, 6), norm, nn.Dropout(0.5), nn.Linear(6, 3))
    convert(net, mode)
    x = torch.randn(8, 5)
    net(x)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with repeatable(net):
        with torch.no_grad():
            clean = net(x)
        still = vat_loss(net, x, clean, radius=0.0, xi=1.0, iterations=2)
        assert float(still.detach()) == 0
        loss = vat_loss(net, x, clean, radius=1.0, xi=1.0, iterations=2)
    loss.backward()  # no tensor of the graph was changed in place
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert net[1].training
    assert net[1].momentum == momentum
    assert net[2].training
    net(x)
    assert int(net[1].num_batches_tracked) == 2


def test_modes_are_restored_after_an_error():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    net[1].eval()
    with pytest.raises(RuntimeError), repeatable(net):  # noqa: PT012
        net(torch.randn(4, 3))
        raise RuntimeError
    assert net[0].momentum == 0.1
    assert not net[1].training
    assert int(net[0].num_batches_tracked) == 0


def test_judging_wakes_only_what_trained():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))
    net.train()
    net[0].eval()
    with judging(net):
        assert not any(module.training for module in net.modules())
    assert [module.training for module in (net, *net)] == [True, False, True, True]
