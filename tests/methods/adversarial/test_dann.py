"""DANN and its alternating form: the formula, and what must not move."""

import copy

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from helpers import small
from tlrun.errors import ConfigError
from tlrun.methods.adversarial.dann import DANN
from tlrun.methods.adversarial.dann_alternating import DANNAlternating
from tlrun.methods.base import Phase, Progress

MIDDLE = Progress(step=50, total=100)
LAMBDA = 2 / (1 + torch.exp(torch.tensor(-5.0))) - 1


def update_of(method, net, batch, progress=MIDDLE):
    (update,) = method.step(net, batch, Phase(), progress)
    return update


@pytest.mark.parametrize("mode", ["joint", "separate_forward", "per_domain"])
def test_gradients_equal_those_of_the_saddle_point_problem(mode):
    """backbone: CE − λ·BCE; label head: CE; domain head: BCE, each by plain autograd."""
    method = DANN(domain_dropout=0.0)
    method.batch_norm = mode
    net = small.built(method, small.net(dropout=0.0))
    batch = small.batch()
    update = update_of(method, copy.deepcopy(net), batch)
    reference = copy.deepcopy(net)
    if mode == "joint":
        features = reference.features(torch.cat([batch["source"].x, batch["target"].x]))
        source, target = features.split([8, 8])
    else:
        source = reference.features(batch["source"].x)
        target = reference.features(batch["target"].x)
    label_loss = cross_entropy(reference["classifier"](source), batch["source"].y)
    domain_logits = reference["domain_head"](torch.cat([source, target]))
    domains = torch.cat([torch.ones(8), torch.zeros(8)])
    domain_loss = binary_cross_entropy_with_logits(domain_logits, domains)
    assert float(update.losses["classification"]) == pytest.approx(float(label_loss), rel=1e-5)
    assert float(update.losses["domain"]) == pytest.approx(float(domain_loss), rel=1e-5)

    trained = copy.deepcopy(net)
    sum(update_of(method, trained, batch).losses.values()).backward()
    expected = {
        "backbone": label_loss - LAMBDA * domain_loss,
        "classifier": label_loss,
        "domain_head": domain_loss,
    }
    for part, objective in expected.items():
        wanted = torch.autograd.grad(
            objective, list(reference[part].parameters()), retain_graph=True
        )
        for parameter, gradient in zip(trained[part].parameters(), wanted, strict=True):
            assert torch.allclose(parameter.grad, gradient, atol=1e-5), part


def test_the_domain_head_can_sit_on_a_stage_of_the_label_head():
    method = DANN(attach="classifier.fc1")
    net = small.built(method, small.net())
    assert net["domain_head"].get_submodule("fc1")[0].in_features == 8
    assert torch.isfinite(update_of(method, net, small.batch()).losses["domain"])


def test_an_unknown_schedule_is_a_clear_error():
    with pytest.raises(ConfigError, match="did you mean 'sigmoid'"):
        small.configured(DANN, lambda_schedule="sigmod")


class TestAlternating:
    def method(self, **arguments):
        return DANNAlternating(label_steps=2, domain_steps=1, **arguments)

    def test_updates_take_turns(self):
        method = self.method()
        net, batch = small.built(method, small.net()), small.batch()
        kinds = [next(iter(update_of(method, net, batch, Progress(i, 9)).losses)) for i in range(6)]
        assert kinds == ["classification", "classification", "domain"] * 2

    @pytest.mark.parametrize("mode", ["joint", "separate_forward", "per_domain"])
    def test_a_domain_update_leaves_the_label_head_bit_identical(self, mode):
        method = self.method()
        method.batch_norm = mode
        net = small.built(method, small.net({"hidden": [8], "batch_norm": True}))
        before = copy.deepcopy(net["classifier"].state_dict())
        update = update_of(method, net, small.batch(), Progress(2, 9))
        assert update.parts == ("backbone", "domain_head")
        assert not update.main
        parameters = list(net.parameters_of(update.parts))
        update.losses["domain"].backward(inputs=parameters)
        torch.optim.SGD(parameters, lr=0.1).step()
        assert all(
            torch.equal(value, before[key]) for key, value in net["classifier"].state_dict().items()
        )
        assert all(p.grad is None for p in net["classifier"].parameters())

    def test_a_label_update_collects_the_targets_statistics_but_no_gradient_of_it(self):
        method = self.method()
        net, batch = small.built(method, small.net(dropout=0.0)), small.batch()
        update = update_of(method, net, batch, Progress(0, 9))
        (gradient,) = torch.autograd.grad(
            update.losses["classification"], batch["target"].x.requires_grad_(), allow_unused=True
        )
        assert gradient is None
        counts = {
            k: int(v) for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")
        }
        assert set(counts.values()) == {1}
        assert any("target" in key for key in counts)

    def test_a_joint_label_update_normalises_over_both_domains(self):
        """Evaluation uses the statistics of the mixture; the loss is the source's alone."""
        method = self.method()
        method.batch_norm = "joint"
        net = small.built(method, small.net({"hidden": [8], "batch_norm": True}, dropout=0.0))
        batch, reference = small.batch(), copy.deepcopy(net)
        update = update_of(method, net, batch, Progress(0, 9))
        logits = reference(torch.cat([batch["source"].x, batch["target"].x])).logits
        loss = cross_entropy(logits[:8], batch["source"].y)
        assert float(update.losses["classification"]) == pytest.approx(float(loss), rel=1e-6)
        for key, value in reference.state_dict().items():
            assert torch.equal(net.state_dict()[key], value), key
        update.losses["classification"].backward()
        loss.backward()
        for part in ("backbone", "classifier"):
            for ours, wanted in zip(
                net[part].parameters(), reference[part].parameters(), strict=True
            ):
                assert torch.allclose(ours.grad, wanted.grad, atol=1e-6), part

    def test_the_label_head_cannot_carry_the_domain_head(self):
        with pytest.raises(ConfigError, match="must lie in the backbone"):
            self.method(attach="classifier.fc1")

    def test_turns_must_have_a_length(self):
        with pytest.raises(ConfigError, match="label_steps=0: expected a whole number from 1"):
            small.configured(DANNAlternating, label_steps=0)


@pytest.mark.parametrize(
    ("head", "skipped"),
    [
        ({"hidden": [8]}, True),
        ({"hidden": [8], "batch_norm": True}, False),
        ({"hidden": [8], "dropout": 0.5}, False),
    ],
)
def test_target_logits_that_only_terms_read_are_not_made_without_terms(head, skipped):
    found = []
    for terms in (True, False):
        method = DANN(domain_dropout=0.0)
        net = small.built(method, small.net(head))
        torch.manual_seed(0)
        (update,) = method.step(net, small.batch(), Phase(terms=terms), Progress(5, 10))
        assert (update.outputs["target"].logits is None) is (skipped and not terms)
        found.append((update.losses, net.state_dict(), torch.rand(1)))
    (losses, state, drawn), (others, other_state, other_drawn) = found
    assert all(torch.equal(losses[name], others[name]) for name in losses)
    assert all(torch.equal(state[name], other_state[name]) for name in state)
    assert torch.equal(drawn, other_drawn)


def test_a_subclass_that_reads_target_logits_gets_them():
    class Reads(DANN):
        def domain_losses(self, net, out, strength, source_weights=None):
            assert out["target"].logits is not None
            return super().domain_losses(net, out, strength, source_weights)

    method = Reads()
    net = small.built(method, small.net())
    (update,) = method.step(net, small.batch(), Phase(terms=False), Progress(5, 10))
    assert update.outputs["target"].logits is not None
