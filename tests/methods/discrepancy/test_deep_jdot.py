"""DeepJDOT: its loss against numpy, the gradient through a plan that is held, its effect."""

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog
from torch.nn.functional import cross_entropy

from helpers import small
from tlrun.errors import ConfigError
from tlrun.methods.base import Phase, Progress
from tlrun.methods.discrepancy.deep_jdot import DeepJDOT

TRANSPORT = Phase("transport", ("source", "target"))


def update_of(method, net, batch, phase=TRANSPORT):
    (update,) = method.step(net, batch, phase, Progress(0, 10))
    return update


@pytest.mark.parametrize("mode", ["joint", "separate_forward", "per_domain"])
def test_the_loss_equals_numpy(mode):
    method = DeepJDOT(alpha=0.3, label_weight=0.7)
    method.batch_norm = mode
    net, batch = small.built(method, small.net(dropout=0.0)), small.batch()
    reference = copy.deepcopy(net)
    update = update_of(method, net, batch)
    source, target, y = batch["source"].x, batch["target"].x, batch["source"].y
    with torch.no_grad():
        if mode == "joint":
            out = reference(torch.cat([source, target]))
            f, logits = out.features, out.logits
        else:
            outs = [reference(batch[name].x, name) for name in ("source", "target")]
            f = torch.cat([out.features for out in outs])
            logits = torch.cat([out.logits for out in outs])
    f, log_p = f.double().numpy(), logits.double().log_softmax(1).numpy()
    apart = ((f[:8, None] - f[None, 8:]) ** 2).sum(2)
    unlike = -log_p[8:][:, y.numpy()].T
    i, j = linear_sum_assignment(0.3 * apart + 0.7 * unlike)
    losses = {name: float(loss.detach()) for name, loss in update.losses.items()}
    assert losses["features"] == pytest.approx(0.3 * apart[i, j].mean(), rel=1e-4)
    assert losses["labels"] == pytest.approx(0.7 * unlike[i, j].mean(), rel=1e-4)
    expected = cross_entropy(logits[:8], y)
    assert losses["classification"] == pytest.approx(float(expected), rel=1e-5)


def test_classes_that_the_target_has_more_of_get_more_of_the_source():
    """source_mass=predicted, against the linear programme with the marginals of the predictions."""
    method = DeepJDOT(alpha=0.3, label_weight=0.7, source_mass="predicted")
    net, batch = small.built(method, small.net(dropout=0.0)), small.batch()
    batch["source"].y = y = torch.arange(8) % 4
    reference = copy.deepcopy(net)
    with torch.no_grad():  # the first class in 5 of 8 images, on average
        for head in (net, reference):
            head["classifier"].out.weight.zero_()
            head["classifier"].out.bias.copy_(torch.tensor([5.0, 1.0, 1.0, 1.0]).log())
    update = update_of(method, net, batch)
    with torch.no_grad():
        source = reference(batch["source"].x).features.double()
        target = reference(batch["target"].x, "target").features.double()
    apart = torch.cdist(source, target).square().numpy()
    unlike = -np.log(np.array([5.0, 1.0, 1.0, 1.0]) / 8)[y][:, None].repeat(8, 1)
    rows, columns = np.kron(np.eye(8), np.ones(8)), np.kron(np.ones(8), np.eye(8))
    parts = np.array([3, 1, 1, 1, 2, 0, 0, 0])  # 5 of class 0, whose images stand at 0 and 4
    programme = linprog(
        (0.3 * apart + 0.7 * unlike).flatten(),
        A_eq=np.vstack([rows, columns]),
        b_eq=np.concatenate([parts / 8, np.full(8, 1 / 8)]),
    )
    losses = {name: float(loss.detach()) for name, loss in update.losses.items()}
    assert losses["features"] + losses["labels"] == pytest.approx(programme.fun, rel=1e-4)


def test_terms_are_given_both_domains_and_every_norm_sees_the_target():
    method = DeepJDOT()
    net = small.built(method, small.net({"hidden": [8], "batch_norm": True}))
    update = update_of(method, net, small.batch())
    assert update.main
    assert update.outputs.keys() == {"source", "target"}
    counts = {k: int(v) for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    assert set(counts.values()) == {1}
    assert any("classifier" in key and "target" in key for key in counts)


def test_a_source_phase_comes_first_unless_the_weights_do():
    method = DeepJDOT()
    assert [phase.streams for phase in method.phases(None)] == [("source",), ("source", "target")]
    net, batch = small.built(method, small.net()), small.batch()
    source = Phase("source", ("source",))
    update = update_of(method, net, {"source": batch["source"]}, source)
    assert update.losses.keys() == {"classification"}
    assert update.outputs.keys() == {"source"}
    method.init = "scratch"
    assert [phase.name for phase in method.phases(None)] == ["transport"]


def test_training_brings_the_coupled_features_together():
    def distance(weight):
        method = DeepJDOT(alpha=weight, label_weight=weight)
        net, batch = small.built(method, small.net(dropout=0.0)), small.batch(size=16)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        for _ in range(30):
            losses = update_of(method, net, batch).losses
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
        source = net(batch["source"].x).features.detach()
        target = net(batch["target"].x, "target").features.detach()
        cost = np.asarray(torch.cdist(source, target).square())
        i, j = linear_sum_assignment(cost)
        return cost[i, j].mean() / float(source.var(0).sum())

    assert distance(0.1) < 0.7 * distance(0.0)


def test_a_mass_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'predicted'"):
        small.configured(DeepJDOT, source_mass="predict")


def test_negative_weights_are_refused():
    with pytest.raises(ConfigError, match=r"method\.alpha=-1"):
        small.configured(DeepJDOT, alpha=-1)
    with pytest.raises(ConfigError, match=r"method\.label_weight=-1"):
        small.configured(DeepJDOT, label_weight=-1)
