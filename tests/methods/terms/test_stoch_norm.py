"""StochNorm: the mixture of both normalisations, in the training of the target phase alone."""

import numpy as np
import pytest
import torch

from helpers import sessions, small
from tlrun.errors import ConfigError
from tlrun.methods.terms.stoch_norm import StochNorm
from tlrun.models.batch_norm import convert

TERM = "terms=[stoch_norm]"


def with_term(p, **options):
    net = small.net(dropout=0.0, **options)
    for name, buffer in net.named_buffers():  # statistics that are not those of any batch
        if name.endswith("running_mean"):
            buffer.normal_()
    term = StochNorm(p)
    term.attach(net)
    return net, term


def by_hand(norm, x, mean, var):
    """γ (x − μ) / √(σ² + ε) + β."""
    mean, var, gamma, beta = (v.view(1, -1, 1, 1) for v in (mean, var, norm.weight, norm.bias))
    return gamma * (x - mean) / (var + norm.eps).sqrt() + beta


def branches(norm, x):
    """By the statistics of the batch, and by the running ones as they are now."""
    own = by_hand(norm, x, x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False))
    return own, by_hand(norm, x, norm.running_mean.clone(), norm.running_var.clone())


@pytest.mark.parametrize("own", [False, True], ids=["torch's", "ours"])
def test_each_channel_is_normalised_one_way_or_the_other(own):
    net, term = with_term(0.5)
    if own:  # as with several processes
        convert(net, "per_domain")
        term.attach(net)
    norm, x = (
        net.backbone.conv2.norm.train(),
        torch.randn(8, net.backbone.conv2.norm.num_features, 4, 4),
    )
    term.start(net, None)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        chosen = torch.rand(x.shape[1]) < 0.5
        torch.manual_seed(seed)
        batch, running = branches(norm, x)  # before this batch moves the running ones
        out = norm(x)
        expected = torch.where(chosen.view(1, -1, 1, 1), running, batch)
        assert torch.allclose(out, expected, atol=1e-5)
        seen |= set(chosen.tolist())
    assert seen == {True, False}


def test_two_batches_against_numpy():
    """The running branch of a batch does not know the batch: the second one's knows the first."""
    net, term = with_term(1.0)
    term.start(net, None)
    norm = net.backbone.conv2.norm.train()
    shape = (1, -1, 1, 1)
    mean, var = (b.double().numpy().copy() for b in (norm.running_mean, norm.running_var))
    gamma, beta = (p.detach().double().numpy() for p in (norm.weight, norm.bias))
    for k in range(2):
        x = 3 * torch.randn(8, norm.num_features, 4, 4) + k
        wanted = (x.double().numpy() - mean.reshape(shape)) / np.sqrt(var + norm.eps).reshape(shape)
        wanted = gamma.reshape(shape) * wanted + beta.reshape(shape)
        out = norm(x)
        np.testing.assert_allclose(out.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
        rows = x.double().numpy().transpose(1, 0, 2, 3).reshape(norm.num_features, -1)
        mean = 0.9 * mean + 0.1 * rows.mean(1)
        var = 0.9 * var + 0.1 * rows.var(1, ddof=1)
        np.testing.assert_allclose(norm.running_mean.numpy(), mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(norm.running_var.numpy(), var, rtol=1e-4)
        out.sum().backward()  # although the statistics have moved since


def test_p_of_0_is_batch_norm_and_p_of_1_its_running_form():
    x = torch.randn(8, 5, 4, 4)
    for p in (0.0, 1.0):
        net, term = with_term(p)
        term.start(net, None)
        norm = net.backbone.conv2.norm.train()
        wanted = branches(norm, x)[int(p)]
        out = norm(x)
        assert norm.training
        assert torch.allclose(out, wanted, atol=1e-5)


def test_evaluation_and_keys_are_batch_norms_own():
    torch.manual_seed(1)
    net, term = with_term(0.5)
    term.start(net, None)
    assert net.state_dict().keys() == small.net().state_dict().keys()
    x = small.batch("target")["target"].x
    plain = small.net(dropout=0.0)
    plain.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(x).features, plain.eval()(x).features)


def test_attaching_again_does_not_mix_twice():
    net, term = with_term(0.5)
    for _ in range(3):
        term.attach(net)
    norm = net.backbone.conv1.norm
    assert len(norm._forward_hooks) == len(norm._forward_pre_hooks) == 1


def test_the_source_phase_is_plain_and_the_target_phase_is_not(tmp_path):
    ours, _ = sessions.paused(tmp_path / "a", TERM, at=sessions.SOURCE_STEPS + 2)
    plain, _ = sessions.paused(tmp_path / "b", at=sessions.SOURCE_STEPS + 2)
    rows = [[r for r in sessions.rows(s) if r["phase"] == "source"] for s in (ours, plain)]
    assert rows[0] == rows[1]
    assert any(
        not torch.equal(v, plain.net.state_dict()[k]) for k, v in ours.net.state_dict().items()
    )


def test_kill_and_resume(tmp_path):
    sessions.resumed_equals_straight(tmp_path, TERM)


def test_a_net_without_batch_norm_or_a_wrong_share_is_refused():
    with pytest.raises(ConfigError, match="needs a net with batch norm"):
        StochNorm().attach(small.net(batch_norm=False))
    with pytest.raises(ConfigError, match="from 0 to 1"):
        small.configured(StochNorm, "terms.stoch_norm", p=1.5)
