"""StochNorm: the mixture of both normalisations, in the training of the target phase alone."""

import conservative
import pytest
import small
import torch

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


def by_hand(norm, x, running):
    """γ (x − μ) / √(σ² + ε) + β by the batch's or the running statistics."""
    mean = norm.running_mean if running else x.mean((0, 2, 3))
    var = norm.running_var if running else x.var((0, 2, 3), unbiased=False)
    shape = (1, -1, 1, 1)
    unit = (x - mean.view(shape)) / (var.view(shape) + norm.eps).sqrt()
    return unit * norm.weight.view(shape) + norm.bias.view(shape)


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
        out = norm(x)  # the running statistics have taken this batch in
        batch, running = by_hand(norm, x, False), by_hand(norm, x, True)
        expected = torch.where(chosen.view(1, -1, 1, 1), running, batch)
        assert torch.allclose(out, expected, atol=1e-5)
        seen |= set(chosen.tolist())
    assert seen == {True, False}


def test_p_of_0_is_batch_norm_and_p_of_1_its_running_form():
    x = torch.randn(8, 5, 4, 4)
    for p, running in ((0.0, False), (1.0, True)):
        net, term = with_term(p)
        term.start(net, None)
        norm = net.backbone.conv2.norm.train()
        out = norm(x)
        assert norm.training
        assert torch.allclose(out, by_hand(norm, x, running), atol=1e-5)


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
    assert len(net.backbone.conv1.norm._forward_hooks) == 1


def test_the_source_phase_is_plain_and_the_target_phase_is_not(tmp_path):
    ours, _ = conservative.paused(tmp_path / "a", TERM, at=conservative.SOURCE_STEPS + 2)
    plain, _ = conservative.paused(tmp_path / "b", at=conservative.SOURCE_STEPS + 2)
    rows = [[r for r in conservative.rows(s) if r["phase"] == "source"] for s in (ours, plain)]
    assert rows[0] == rows[1]
    assert any(
        not torch.equal(v, plain.net.state_dict()[k]) for k, v in ours.net.state_dict().items()
    )


def test_kill_and_resume(tmp_path):
    conservative.resumed_equals_straight(tmp_path, TERM)


def test_a_net_without_batch_norm_or_a_wrong_share_is_refused():
    with pytest.raises(ConfigError, match="needs a net with batch norm"):
        StochNorm().attach(small.net(batch_norm=False))
    with pytest.raises(ConfigError, match="from 0 to 1"):
        small.configured(StochNorm, "terms.stoch_norm", p=1.5)
