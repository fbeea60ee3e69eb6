"""Conv-4, the net of few-shot learning."""

import pytest
import torch

from helpers import small
from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.errors import ConfigError
from tlrun.models.backbones import Conv4
from tlrun.models.build import build_backbone


def test_sizes_and_stages_of_the_paper():
    net = Conv4((1, 28, 28))
    assert net.feature_dim == 64
    assert net.stage_names == ["conv1", "conv2", "conv3", "conv4"]
    assert sum(p.numel() for p in net.parameters()) == 111_936  # 640 + 3 x 36,928, norms 512
    assert Conv4((3, 84, 84)).feature_dim == 1600
    assert Conv4((1, 28, 28), pools=2).feature_dim == 64 * 7 * 7


def test_each_block_has_its_own_channels():
    net = Conv4((1, 28, 28), channels=[8, 16, 24, 32], width=0.5)
    assert [net.get_submodule(stage)[0].out_channels for stage in net.stage_names] == [4, 8, 12, 16]
    assert net.feature_dim == 16


def test_the_layout_in_memory_changes_no_output():
    torch.manual_seed(0)
    net = Conv4((1, 28, 28), width=0.1).eval()
    x = torch.randn(3, 1, 28, 28)
    plain_ = x
    for stage in net.stage_names:
        plain_ = net.get_submodule(stage)(plain_)
    assert torch.allclose(net(x), plain_.flatten(1), atol=1e-6)


def test_from_its_configuration_and_its_limits():
    cfg = plain(compose(["backbone=conv4"]).backbone)
    assert build_backbone(cfg, (1, 16, 16)).feature_dim == 64
    with pytest.raises(ConfigError, match="four blocks, not 2"):
        Conv4((1, 28, 28), channels=[32, 64])
    with pytest.raises(ConfigError, match=r"backbone\.pools=3"):
        Conv4((1, 8, 8))
    with pytest.raises(ConfigError, match=r"backbone\.pools=5"):
        small.configured(Conv4, "backbone", input_shape=(1, 28, 28), pools=5)
