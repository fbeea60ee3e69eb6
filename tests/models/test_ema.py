"""The running average of a net: values by hand, whose statistics, and what never changes in it."""

import copy

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from helpers import small
from tlrun.models.batch_norm import BatchNorm, convert
from tlrun.models.ema import EmaTeacher


def pair(own_statistics=True, mode="per_domain"):
    net = small.net()
    net.add("classifier", net.new_head(small.CLASSES))
    net.add("teacher", EmaTeacher(net, own_statistics=own_statistics))
    convert(net, mode)
    net.train()
    return net, net["teacher"]


def shake(net):
    with torch.no_grad():
        for part in ("backbone", "classifier"):
            for parameter in net[part].parameters():
                parameter.add_(torch.randn_like(parameter))


def test_it_follows_by_the_decay():
    net, teacher = pair()
    before = copy.deepcopy(teacher.inner["classifier"].state_dict())
    shake(net)
    teacher.follow(net, 0.9)
    now, theirs = teacher.inner["classifier"].state_dict(), net["classifier"].state_dict()
    for key, old in before.items():
        assert torch.allclose(now[key], 0.9 * old + 0.1 * theirs[key], atol=1e-6)


def test_copy_and_give_are_inverse():
    net, teacher = pair()
    shake(net)
    teacher.copy(net)
    x = small.batch()["target"].x
    net.eval()
    assert torch.equal(teacher(x).logits, net(x).logits)
    kept = copy.deepcopy(teacher.inner["backbone"].state_dict())
    shake(net)
    teacher.give(net)
    assert all(torch.equal(kept[k], v) for k, v in net["backbone"].state_dict().items())


def test_it_has_no_gradient_and_never_trains():
    net, teacher = pair()
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in net["teacher"].parameters())
    assert {id(p) for p in net.parameters_of()}.isdisjoint(map(id, teacher.parameters()))


def test_with_own_statistics_it_gathers_those_of_the_target_and_averages_the_sources():
    net, teacher = pair()
    x = small.batch()["target"].x
    norms = [m for m in teacher.modules() if isinstance(m, BatchNorm)]
    teacher.teach(x, "target")
    gathered = [norm.target_running_mean.clone() for norm in norms]
    assert all(int(norm.target_num_batches_tracked) == 1 for norm in norms)
    assert all(int(norm.num_batches_tracked) == 0 for norm in norms)
    theirs = [m for m in net.backbone.modules() if isinstance(m, BatchNorm)]
    for norm in theirs:
        norm.running_mean.fill_(3.0)
        norm.target_running_mean.fill_(7.0)
    teacher.follow(net, 0.5)
    for norm, mean in zip(norms, gathered, strict=False):
        assert torch.equal(norm.target_running_mean, mean)
        assert torch.equal(norm.running_mean, torch.full_like(mean, 1.5))


def test_without_them_all_statistics_are_averaged():
    net, teacher = pair(own_statistics=False, mode="joint")
    x = small.batch()["target"].x
    teacher.teach(x)
    norm = next(m for m in teacher.modules() if isinstance(m, _BatchNorm))
    assert int(norm.num_batches_tracked) == 0
    theirs = next(m for m in net.backbone.modules() if isinstance(m, _BatchNorm))
    theirs.running_mean.fill_(2.0)
    teacher.follow(net, 0.5)
    assert torch.equal(norm.running_mean, torch.ones_like(norm.running_mean))
