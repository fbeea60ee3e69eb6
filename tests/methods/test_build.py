from pathlib import Path
from types import SimpleNamespace

import yaml
from torch import nn

from tlrun.methods.base import Method, Phase
from tlrun.methods.build import batch_norm_mode, build_method, build_trained_net
from tlrun.models.batch_norm import BatchNorm
from tlrun.models.heads import DomainHead

BACKBONE = Path(__file__).parents[2] / "conf" / "backbone" / "dann_cnn.yaml"


class TwoPhases(Method):
    batch_norm = "per_domain"

    def build(self, phase, net, data):
        net.add("classifier", net.new_head(data.num_classes))
        if phase.name == "adapt":
            net.add("domain_head", DomainHead(net.feature_dim, batch_norm=True))


def config(**keys):
    spec = {"_target_": f"{__name__}.TwoPhases"}
    return {"method": spec, "batch_norm": "auto", "init": "auto", **keys}


def test_top_level_keys_replace_the_methods_own_choice():
    assert vars(build_method(config())) == {}
    replaced = build_method(config(batch_norm="joint", init="scratch"))
    assert (replaced.batch_norm, replaced.init) == ("joint", "scratch")
    assert TwoPhases.batch_norm == "per_domain"


def test_all_phases_are_built_and_batch_norm_is_converted():
    phases = [Phase("train"), Phase("adapt", ("source", "target"))]
    data, norms = SimpleNamespace(num_classes=3), []
    for mode in ("auto", "joint"):
        cfg = config(backbone=yaml.safe_load(BACKBONE.read_text()), batch_norm=mode)
        net = build_trained_net(cfg, build_method(cfg), phases, data, (3, 28, 28))
        assert list(net.parts) == ["backbone", "classifier", "domain_head"]
        modules = [m for m in net.modules() if isinstance(m, BatchNorm | nn.BatchNorm2d)]
        norms.append([isinstance(m, BatchNorm) for m in modules])
    assert norms[0] == [True] * 3
    assert not any(norms[1])


def test_one_domain_has_nothing_to_separate():
    assert batch_norm_mode(TwoPhases(), [Phase("train")]) == "joint"
    two = [Phase("a"), Phase("b", ("target",))]
    assert batch_norm_mode(TwoPhases(), two) == "per_domain"
