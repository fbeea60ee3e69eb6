from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from tlrun.errors import ConfigError
from tlrun.models.build import build_backbone, build_net
from tlrun.models.shapes import trial_forward

torch.set_num_threads(1)
CONF = Path(__file__).parents[2] / "conf" / "backbone"


class Plain(nn.Module):
    """A backbone as a user writes it: no feature_dim, no stages."""

    def __init__(self, units: int = 6) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 7), nn.Linear(7, units)

    def forward(self, x):
        return self.second(self.first(x))


class Liar(Plain):
    feature_dim = 5


class Images(nn.Module):
    def forward(self, x):
        return x


def config_of(name: str) -> dict:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


@pytest.mark.parametrize(
    "name", ["dann_cnn", "lenet", "dtn", "mlp", "resnet18", "mobilenet_v3_small"]
)
def test_every_config_builds(name):
    net = build_net({"backbone": config_of(name)}, (3, 32, 32))
    net.add("classifier", net.new_head(4))
    out = net.eval()(torch.randn(2, 3, 32, 32))
    assert out.logits.shape == (2, 4)
    assert net.stages()[-1] == "classifier.out"


def test_config_files_hold_what_every_backbone_has():
    for path in CONF.glob("*.yaml"):
        cfg = config_of(path.stem)
        assert {"_target_", "name", "weights", "head"} <= set(cfg), path
        assert cfg["name"] in (path.stem, "???"), path
        assert path.read_text().startswith("# "), path


def test_a_users_module_gets_feature_dim_and_stages():
    net = build_backbone({"_target_": f"{__name__}.Plain", "units": 9, "weights": None}, (8,))
    assert (net.feature_dim, net.stage_names) == (9, ["first", "second"])


def test_mistakes_in_a_backbone():
    with pytest.raises(ConfigError, match="feature_dim=5 but returns 6"):
        build_backbone({"_target_": f"{__name__}.Liar"}, (8,))
    with pytest.raises(ConfigError, match=r"features of shape \(batch, D\), not \(2, 3, 8, 8\)"):
        build_backbone({"_target_": f"{__name__}.Images", "name": "images"}, (3, 8, 8))
    with pytest.raises(ConfigError, match=r"not an nn.Module"):
        build_backbone({"_target_": "builtins.dict"}, (8,))
    with pytest.raises(ConfigError, match=r"dann_cnn' has no pretrained weights"):
        build_backbone({**config_of("dann_cnn"), "weights": "DEFAULT"}, (3, 28, 28))
    with pytest.raises(ConfigError, match="did you mean 'width'"):
        build_backbone({**config_of("dann_cnn"), "witdh": 2}, (3, 28, 28))


def test_a_trial_draws_no_number_and_passes_small_nets_only():
    class Noisy(Plain):
        def forward(self, x):
            return super().forward(x + torch.rand_like(x))

    module = Noisy().train()
    torch.manual_seed(0)
    assert trial_forward(module, (8,)).shape == (2, 6)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), drawn)
    assert module.training
    large = trial_forward(nn.Conv2d(3, 4, 3), (3, 600, 600))
    assert large.is_meta
    assert large.shape == (2, 4, 598, 598)
    assert not trial_forward(nn.Conv2d(3, 4, 3), (3, 28, 28)).is_meta
