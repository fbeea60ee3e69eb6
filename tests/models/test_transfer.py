"""Layer transfer on a net: what is carried over, starts anew, is held still, and from where."""

import pytest
import torch
from torch import nn

from tlrun.errors import ConfigError
from tlrun.models.backbones import DannCNN
from tlrun.models.net import CARRIED, Net
from tlrun.models.transfer import load_parts, print_table, transfer

STAGES = ["backbone.conv1", "backbone.conv2", "classifier.fc1", "classifier.out"]


def make(seed=0, classes=4, hidden=7):
    torch.manual_seed(seed)
    net = Net(DannCNN((3, 16, 16), width=0.1), (3, 16, 16), head={"hidden": [hidden]})
    net.add("classifier", net.new_head(classes))
    net["backbone"](torch.randn(8, 3, 16, 16))  # batch statistics of its own
    return net


def state_of(net, stage):
    prefix = f"parts.{stage}."
    return {k: v.clone() for k, v in net.state_dict().items() if k.startswith(prefix)}


def same(a, b, stage):
    a, b = state_of(a, stage), state_of(b, stage)
    assert a
    return all(torch.equal(a[key], b[key]) for key in a)


def parts_of(net):
    return {name: part.state_dict() for name, part in net.parts.items()}


def move(**keys):
    """(before, after, the new net, fate by stage) of a transfer in which all is known."""
    before, net, new = make(0), make(0), make(1)
    table = transfer(net, known=dict.fromkeys(net.stages(), ""), fresh=lambda: new, **keys)
    assert [fate.stage for fate in table] == STAGES
    return before, net, new, {fate.stage: fate for fate in table}


# ---- transfer.* ---------------------------------------------------------------------------------


def test_by_default_all_is_carried_and_nothing_frozen():
    def never():
        raise AssertionError("no new net is needed")

    before, net = make(0), make(0)
    table = transfer(net, known=dict.fromkeys(net.stages(), ""), fresh=never)
    assert {(fate.origin, fate.frozen, fate.why) for fate in table} == {("carried", False, "")}
    assert net.carried == tuple(STAGES)
    assert all(same(before, net, stage) for stage in STAGES)


@pytest.mark.parametrize(
    ("carry", "kept"),
    [
        (["backbone.conv1"], STAGES[:1]),
        (["backbone"], STAGES[:2]),
        (["*.conv*", "classifier.fc1"], STAGES[:3]),
        (["backbone[1:]"], STAGES[1:2]),
        (["[:3]"], STAGES[:3]),
        (["[:0]"], []),
        ([], []),
    ],
)
def test_carry_keeps_what_it_names_and_renews_the_rest(carry, kept):
    before, net, new, fates = move(carry=carry)
    assert net.carried == tuple(kept)
    for stage in STAGES:
        assert same(net, before if stage in kept else new, stage)
        assert fates[stage].origin == ("carried" if stage in kept else "new")
        assert bool(fates[stage].why) != (stage in kept)


def test_reinit_renews_parameters_and_batch_statistics():
    before, net, new, fates = move(reinit=["backbone.conv2"])
    assert fates["backbone.conv2"].why == "transfer.reinit"
    assert same(net, new, "backbone.conv2")
    assert not same(net, before, "backbone.conv2")
    assert any("running_mean" in key for key in state_of(net, "backbone.conv2"))
    assert all(same(net, before, stage) for stage in STAGES if stage != "backbone.conv2")


def test_freeze_is_noted_and_may_follow_what_was_carried():
    *_, fates = move(freeze=["backbone.conv1", "classifier.out"])
    assert [fates[stage].frozen for stage in STAGES] == [True, False, False, True]
    *_, fates = move(carry=["[:2]"], freeze=[CARRIED])
    assert [fates[stage].frozen for stage in STAGES] == [True, True, False, False]


def test_a_stage_without_known_weights_is_left_alone():
    """Its weights are new already: an untrained head."""
    before, net = make(0), make(0)
    known = {"backbone.conv1": "", "backbone.conv2": "", "classifier.out": "of other classes"}
    table = transfer(net, known=known, fresh=lambda: make(1), reinit=["classifier"])
    assert [fate.why for fate in table] == ["", "", "nothing to carry", "of other classes"]
    assert same(before, net, "classifier.fc1")
    assert net.carried == ("backbone.conv1", "backbone.conv2")


def test_a_stage_both_carried_and_renewed_is_refused():
    with pytest.raises(ConfigError, match=r"transfer\.carry and transfer\.reinit both name backb"):
        move(carry=["backbone"], reinit=["backbone.conv2"])


@pytest.mark.parametrize("key", ["carry", "reinit", "freeze"])
def test_a_pattern_that_matches_nothing_names_the_nearest(key):
    with pytest.raises(ConfigError, match=r"'backbone\.conv9': did you mean 'backbone\.conv"):
        move(**{key: ["backbone.conv9"]})


def test_a_slice_of_a_part_that_is_not_there_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'backbone'"):
        move(freeze=["bakbone[:1]"])


def test_the_table_has_a_line_per_stage():
    *_, fates = move(carry=["backbone"], freeze=["backbone.conv1"])
    first, *lines = print_table(fates.values()).splitlines()
    assert "what became of each layer" in first
    assert lines[0].split()[2:] == ["carried", "frozen"]
    assert lines[3].split()[0] == "classifier.out"
    assert lines[3].split()[2:4] == ["new", "trained"]
    assert fates["classifier.out"].row()["parameters"] == 7 * 4 + 4


# ---- weights of another run ----------------------------------------------------------------------


def test_parts_of_another_run_are_loaded_with_their_buffers():
    net, other = make(0), make(1)
    assert load_parts(net, parts_of(other)) == dict.fromkeys(STAGES, "")
    assert all(same(net, other, stage) for stage in STAGES)


def test_a_head_of_other_classes_stays_as_it_is():
    net, other, before = make(0), make(1, classes=6), make(0)
    known = load_parts(net, parts_of(other))
    assert known == {**dict.fromkeys(STAGES[:3], ""), STAGES[3]: "of another shape there"}
    assert same(net, before, STAGES[3])


def test_missing_parts_and_stages_say_so():
    net, other = make(0), make(1)
    parts = {"backbone": {k: v for k, v in parts_of(other)["backbone"].items() if "conv2" not in k}}
    known = load_parts(net, parts)
    assert known["backbone.conv1"] == ""
    assert known["backbone.conv2"] == "no 'conv2.conv.weight' there"
    assert known["classifier.fc1"] == known["classifier.out"] == "no 'classifier' there"


def test_what_does_not_fit_is_not_loaded_though_it_could_be():
    net, other, before = make(0), make(1), make(0)
    known = load_parts(net, parts_of(other), {STAGES[3]: "of other classes there"})
    assert known[STAGES[3]] == "of other classes there"
    assert same(net, before, STAGES[3])
    assert same(net, other, STAGES[2])


# ---- what lies in no stage ----------------------------------------------------------------------


class Tokens(nn.Module):
    """A class token, a loose norm and a loose dropout beside two stages."""

    feature_dim, stage_names = 3, ["first", "second"]

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 3))
        self.first, self.norm, self.second = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.second(self.drop(self.norm(self.first(x + self.token))))


def tokens(seed):
    torch.manual_seed(seed)
    return Net(Tokens(), (3,))


def test_a_class_token_follows_the_first_stage():
    net, other = tokens(0), tokens(1)
    load_parts(net, parts_of(other))
    assert torch.equal(net.backbone.token, other.backbone.token)
    new = tokens(2)
    transfer(
        net, known=dict.fromkeys(net.stages(), ""), fresh=lambda: new, reinit=["backbone.first"]
    )
    assert torch.equal(net.backbone.token, new.backbone.token)
    assert torch.equal(net.backbone.second.weight, other.backbone.second.weight)


def test_a_class_token_that_is_missing_there_is_not_half_loaded():
    net, other = tokens(0), tokens(1)
    parts = {"backbone": {k: v for k, v in parts_of(other)["backbone"].items() if k != "token"}}
    assert load_parts(net, parts)["backbone.first"] == "no 'token' there"
    assert not torch.equal(net.backbone.first.weight, other.backbone.first.weight)


def test_holding_the_first_stage_holds_the_loose_norm_and_all_of_it_the_dropout():
    net = tokens(0).train()
    net.set_frozen_eval(["backbone.first"])
    assert not net.backbone.norm.training
    assert net.backbone.drop.training
    assert net.backbone.second.training
    net.train()
    net.set_frozen_eval(["backbone.second"])
    assert net.backbone.norm.training
    net.set_frozen_eval(net.stages())
    assert not any(module.training for module in net.backbone.modules())


def test_a_resnet_gets_the_weights_that_torchvision_draws():
    """`Conv2d.reset_parameters` would draw them much narrower than torchvision's resnets do."""
    from tlrun.models.torchvision_backbones import torchvision_backbone

    torch.manual_seed(0)
    net = Net(torchvision_backbone("resnet18", (3, 32, 32)), (3, 32, 32))
    with torch.no_grad():
        net.backbone.layer4[0].conv1.weight.zero_()
    torch.manual_seed(1)
    new = Net(torchvision_backbone("resnet18", (3, 32, 32)), (3, 32, 32))
    known = dict.fromkeys(net.stages(), "")
    transfer(net, known=known, fresh=lambda: new, carry=["backbone[:-1]"])
    weight = net.backbone.layer4[0].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    assert not torch.equal(net.backbone.layer1[0].conv1.weight, new.backbone.layer1[0].conv1.weight)
