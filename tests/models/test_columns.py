"""Progressive columns against calculations by hand."""

import pytest
import torch
import torch.nn.functional as F

from tlrun.errors import ConfigError
from tlrun.models.backbones import MLP, DannCNN
from tlrun.models.columns import Adapter, Column, fresh_copy, run, through
from tlrun.models.torchvision_backbones import torchvision_backbone

SHAPE = (3, 16, 16)


def images(count=4, shape=SHAPE):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def columns(lateral="adapters", count=3, backbone=None, shape=SHAPE, **options):
    torch.manual_seed(0)
    first = backbone or DannCNN(shape, width=0.2)
    found = [first.eval()]
    with torch.no_grad():
        flow = run(first, images(2, shape))
    for earlier in range(1, count):
        found.append(Column(fresh_copy(first), flow, earlier, lateral, **options).eval())
    return found


def test_wide_features_get_an_adapter_of_few_units():
    second = columns(count=2, max_hidden=4)[1]
    hidden = {name: adapter.v.weight.shape[0] for name, adapter in second.adapters.items()}
    assert hidden == {"conv2": 3, "features": 4}  # half of the 6 channels; of the features at most


def test_an_adapter_is_u_relu_v_of_the_scaled_maps():
    torch.manual_seed(0)
    adapter = Adapter(6, 2, 3, 0.1, dims=4)
    with torch.no_grad():
        adapter.alpha.copy_(torch.tensor([0.5, -2.0]))
    a, b = images(2, (6, 5, 5)), images(2, (6, 5, 5)) + 1
    v, u = adapter.v.weight[:, :, 0, 0], adapter.u.weight[:, :, 0, 0]
    both = torch.cat([0.5 * a, -2.0 * b], 1)
    by_hand = torch.einsum("oc,bchw->bohw", u, torch.einsum("oc,bchw->bohw", v, both).clamp_min(0))
    torch.testing.assert_close(adapter([a, b]), by_hand)


def test_a_column_with_adapters_by_hand():
    """Two stages: what comes out of conv1 and the features of the earlier column are fed."""
    first, second = columns(count=2, alpha=0.7)
    x, net = images(), second.backbone
    with torch.no_grad():
        theirs, mine = first.conv1(x), net.conv1(x)

        def fed(adapter, h):
            inner = F.relu(F.conv2d(0.7 * h, adapter.v.weight))
            return F.conv2d(inner, adapter.u.weight)

        features = net.conv2(mine + fed(second.adapters["conv2"], theirs)).flatten(1)
        last = second.adapters["features"]
        earlier = 0.7 * first(x) @ last.v.weight.T
        by_hand = features + F.relu(earlier) @ last.u.weight.T
        torch.testing.assert_close(through([first, second], x), by_hand)


def test_added_and_concatenated_features():
    x = images()
    for lateral in ("add", "concat"):
        found = columns(lateral)
        with torch.no_grad():
            own = [found[0](x), *(column.backbone(x) for column in found[1:])]
            if lateral == "add":
                torch.testing.assert_close(through(found, x), own[2] + own[0] + own[1])
                assert found[2].feature_dim == own[0].shape[1]
            else:
                assert torch.equal(through(found, x), torch.cat([own[2], own[0], own[1]], 1))
                assert found[2].feature_dim == 3 * own[0].shape[1]


def test_alpha_0_is_an_independent_column_to_the_bit():
    found = columns(alpha=0.0)
    x = images()
    with torch.no_grad():
        assert torch.equal(through(found, x), found[2].backbone(x))
        assert not torch.equal(through(columns(alpha=0.1), x), found[2].backbone(x))


@pytest.mark.parametrize("kind", ["resnet18", "mlp"])
def test_other_staged_nets_can_be_columns(kind):
    shape = (3, 32, 32) if kind == "resnet18" else (20,)
    net = torchvision_backbone(kind, shape) if kind == "resnet18" else MLP(shape)
    found = columns(backbone=net, shape=shape, count=2)
    out = through(found, images(2, shape))
    assert out.shape == (2, found[1].feature_dim)
    out.sum().backward()
    assert all(p.grad is not None for p in found[1].parameters())
    assert all(p.grad is None for p in found[0].parameters())  # the last column alone learns


def test_fresh_copies_are_new_and_refused_where_they_cannot_be_drawn():
    net = DannCNN(SHAPE, width=0.2)
    copied = fresh_copy(net)
    assert not torch.equal(net.conv1[0].weight, copied.conv1[0].weight)

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(3))

    with pytest.raises(ConfigError, match="Own cannot be drawn anew"):
        fresh_copy(Own())
