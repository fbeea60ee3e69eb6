import copy
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tlrun.errors import ConfigError
from tlrun.models.batch_norm import BatchNorm, convert, statistics_of
from tlrun.models.net import Net

torch.set_num_threads(1)
WORKER = Path(__file__).with_name("batch_norm_worker.py")


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=0.2), nn.ReLU())


def test_shared_statistics_stay_torchs_own_layer():
    for mode in ("joint", "separate_forward"):
        net = convert(two_layers(), mode)
        assert type(net[1]) is nn.BatchNorm2d


def test_per_domain_keeps_settings_parameters_and_keys():
    net = two_layers()
    before, weight = copy.deepcopy(net.state_dict()), net[1].weight
    net[1].eval()
    convert(net, "per_domain")
    layer = net[1]
    assert isinstance(layer, BatchNorm)
    assert (layer.eps, layer.momentum, layer.training) == (1e-3, 0.2, False)
    assert layer.weight is weight
    added = set(net.state_dict()) - set(before)
    names = ("running_mean", "running_var", "num_batches_tracked")
    assert added == {f"1.target_{name}" for name in names}
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in before.items())
    assert convert(net, "per_domain")[1] is layer


def test_each_domain_has_the_statistics_of_a_layer_of_its_own():
    net = convert(two_layers(), "per_domain")
    alone = {domain: two_layers() for domain in ("source", "target")}
    fresh = {k: v.clone() for k, v in net.state_dict().items() if "target" not in k}
    for domain, twin in alone.items():
        twin.load_state_dict(fresh)
        for step in range(3):
            x = torch.randn(6, 3, 8, 8) * (1 + step) + (5 if domain == "target" else 0)
            with statistics_of(domain, net):
                torch.testing.assert_close(net(x), twin(x), rtol=0, atol=0)
    net.eval()
    x = torch.randn(6, 3, 8, 8)
    for domain, twin in alone.items():
        with statistics_of(domain, net):
            assert torch.equal(net(x), twin.eval()(x))
        assert torch.equal(net[1].running_mean, alone["source"][1].running_mean)


def test_a_target_never_trained_on_is_evaluated_with_the_sources_statistics():
    net = convert(two_layers(), "per_domain")
    net(torch.randn(8, 3, 8, 8) + 3)
    net.eval()
    x = torch.randn(4, 3, 8, 8)
    source = net(x)
    with statistics_of("target", net):
        assert torch.equal(net(x), source)
        net.train()(torch.randn(8, 3, 8, 8))
        assert not torch.equal(net.eval()(x), source)
    assert torch.equal(net(x), source)  # outside it is the source's again


def test_checkpoints_without_target_statistics_load():
    plain, split = two_layers(), convert(two_layers(), "per_domain")
    plain(torch.randn(8, 3, 8, 8) + 2)
    split.load_state_dict(plain.state_dict())
    assert torch.equal(split[1].running_mean, plain[1].running_mean)
    assert int(split[1].target_num_batches_tracked) == 0
    again = convert(two_layers(), "per_domain")
    with statistics_of("target", split):
        split(torch.randn(8, 3, 8, 8))
    again.load_state_dict(split.state_dict())
    assert torch.equal(again[1].target_running_var, split[1].target_running_var)
    unfit = {k: v for k, v in split.state_dict().items() if k != "1.target_running_mean"}
    with pytest.raises(RuntimeError, match="target_running_mean"):
        again.load_state_dict(unfit)


def test_a_call_of_the_net_says_whose_statistics_move():
    class Features(nn.Sequential):
        feature_dim = 3

    net = convert(Net(Features(*two_layers(), nn.Flatten()), (3, 8, 8)), "per_domain")
    x = torch.randn(8, 3, 8, 8)
    for domain, counts in (("source", (1, 0)), ("target", (1, 1)), ("source", (2, 1))):
        net(x, domain)
        layer = net.backbone[1]
        assert (layer.num_batches_tracked, layer.target_num_batches_tracked) == counts
    net.run("backbone", x, "target")
    assert int(layer.target_num_batches_tracked) == 2
    with pytest.raises(ConfigError, match=r"no batch statistics for domain 'targets'.*'target'"):
        net(x, "targets")


def test_unknown_mode_and_unknown_layer():
    with pytest.raises(ConfigError, match="did you mean 'per_domain'"):
        convert(two_layers(), "perdomain")

    class Odd(nn.BatchNorm2d):
        pass

    with pytest.raises(ConfigError, match="Odd cannot be split by domain"):
        convert(nn.Sequential(Odd(3)), "per_domain")


def test_batch_norm_with_an_activation_inside_keeps_it():
    """timm's BatchNormAct2d."""

    class BatchNormAct2d(nn.BatchNorm2d):
        def __init__(self, channels):
            super().__init__(channels)
            self.drop, self.act = nn.Identity(), nn.ReLU()

        def forward(self, x):
            return self.act(self.drop(super().forward(x)))

    original = BatchNormAct2d(3)
    net = convert(nn.Sequential(copy.deepcopy(original)), "per_domain")
    x = torch.randn(4, 3, 5, 5)
    assert torch.equal(net(x), original(x))


def test_cumulative_momentum_and_no_running_statistics():
    layers = [nn.BatchNorm1d(3, momentum=None), nn.BatchNorm1d(3, track_running_stats=False)]
    net = nn.Sequential(*layers)
    split = convert(copy.deepcopy(net), "per_domain")
    for _ in range(3):
        x = torch.randn(5, 3)
        torch.testing.assert_close(split(x), net(x), rtol=0, atol=0)
    x = torch.randn(5, 3)
    assert torch.equal(split.eval()(x), net.eval()(x))


def test_a_layer_used_in_two_places_stays_one():
    norm = nn.BatchNorm1d(3)
    net = convert(nn.Sequential(norm, nn.ReLU(), norm), "per_domain")
    assert net[0] is net[2]


def test_synchronised_statistics_equal_one_process_on_the_global_batch(tmp_path):
    """Two gloo processes: outputs' gradients, parameters' gradients and running statistics."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    processes = [
        subprocess.Popen([sys.executable, WORKER, str(rank), "2", tmp_path], env=env)
        for rank in range(2)
    ]
    assert [p.wait(timeout=60) for p in processes] == [0, 0]
    found = torch.load(tmp_path / "result.pt")

    worker = runpy.run_path(str(WORKER))
    net = worker["make_net"]()
    x, weight = worker["global_batch"]()
    x.requires_grad_()
    worker["loss_of"](net, x, weight).backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(found["grads"][name], parameter.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["x_grad"], x.grad[0::2], rtol=1e-5, atol=1e-5)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(found["state"][key], value, rtol=1e-5, atol=1e-5)


def test_synchronised_layer_computes_in_fp32_under_autocast(monkeypatch):
    """With one process in the group it must equal torch's layer, in bf16 too."""
    monkeypatch.setattr("tlrun.models.batch_norm._world", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: None)
    plain, split = two_layers(), two_layers()
    split.load_state_dict(plain.state_dict())
    convert(split, "joint", synchronize=True)
    x = torch.randn(8, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(split(x), plain(x), rtol=1e-2, atol=1e-2)
        assert split(x).dtype == torch.bfloat16
    assert split[1].running_mean.dtype == torch.float32
    plain(x)
    torch.testing.assert_close(split[1].running_var, plain[1].running_var, rtol=1e-2, atol=1e-2)
