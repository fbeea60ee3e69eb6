from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from tlrun.errors import ConfigError
from tlrun.models.batch_norm import BatchNorm
from tlrun.models.build import assemble, batch_norm_mode, build_backbone, build_net
from tlrun.models.heads import DomainHead

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


class TwoPhases:
    batch_norm = "per_domain"

    def build(self, phase, net, data):
        net.add("classifier", net.new_head(data.num_classes))
        if phase.name == "adapt":
            net.add("domain_head", DomainHead(net.feature_dim, batch_norm=True))


def phase(name, *streams):
    return SimpleNamespace(name=name, streams=streams)


def test_assemble_builds_all_phases_and_converts_batch_norm():
    cfg = {"backbone": config_of("dann_cnn"), "batch_norm": "auto"}
    phases = [phase("train", "source"), phase("adapt", "source", "target")]
    net = assemble(cfg, TwoPhases(), phases, SimpleNamespace(num_classes=3), (3, 28, 28))
    assert list(net.parts) == ["backbone", "classifier", "domain_head"]
    norms = [m for m in net.modules() if isinstance(m, BatchNorm | nn.BatchNorm2d)]
    assert [type(m) for m in norms] == [BatchNorm] * 3
    cfg["batch_norm"] = "joint"
    net = assemble(cfg, TwoPhases(), phases, SimpleNamespace(num_classes=3), (3, 28, 28))
    assert not any(isinstance(m, BatchNorm) for m in net.modules())


def test_one_domain_has_nothing_to_separate():
    assert batch_norm_mode(TwoPhases(), [phase("train", "source")]) == "joint"
    assert (
        batch_norm_mode(TwoPhases(), [phase("a", "source"), phase("b", "target")]) == "per_domain"
    )
