"""L2-SP: its gradient, its anchor, and weights that stay."""

import pytest
import torch

from helpers import sessions, small
from tlrun.errors import ConfigError

TERM = "terms=[l2_sp]"


@pytest.mark.parametrize("reinit", [[], ["classifier.out"]])
def test_the_gradient_is_that_of_the_penalty_by_autograd(reinit, tmp_path):
    """α/2 ‖w_S − w_S⁰‖² + β/2 ‖w_new‖², against autograd of it beside the loss."""
    options = (TERM, "terms.l2_sp.alpha=0.7", "terms.l2_sp.beta=0.3", f"transfer.reinit={reinit}")
    session, batch = sessions.paused(tmp_path / "run", *options)
    start = sessions.shaken(session)
    ours = sessions.gradients(session, batch)

    session.net.zero_grad()
    update = next(session.method.step(session.net, batch, session.phases[-1], None))
    named = dict(session.net.named_parameters())
    new = {n for n in named if any(n.startswith(f"parts.{stage}.") for stage in reinit)}
    assert len(new) == 2 * len(reinit)
    penalty = 0.35 * sum((p - start[n]).square().sum() for n, p in named.items() if n not in new)
    penalty = penalty + 0.15 * sum(named[n].square().sum() for n in new)
    (update.losses["classification"] + penalty).backward()
    for name, parameter in named.items():
        assert torch.allclose(ours[name], parameter.grad, atol=1e-5), name
    value = sessions.update_of(session, batch).metrics["l2_sp"]
    assert float(value) == pytest.approx(float(penalty.detach()), rel=1e-5)


def test_alpha_of_two_lambda_is_the_plain_form(tmp_path):
    """loss + λ Σ (w − w⁰)² over all weights: steps of SGD by hand against the engine's."""
    lam = 0.2
    sgd = ("optimizer=sgd", "optimizer.momentum=0", "optimizer.lr=0.1", "schedule=constant")
    options = (*sgd, TERM, f"terms.l2_sp.alpha={2 * lam}", "terms.l2_sp.beta=0", "trainer.steps=4")
    session = small.session(tmp_path / "run", *sessions.FEW, *options)
    session.trainer().fit()
    by_hand, _ = sessions.paused(tmp_path / "hand", *options)
    net = by_hand.net
    start = {n: p.detach().clone() for n, p in net.named_parameters()}
    stream = by_hand.trainer().open_streams(by_hand.phases[1])["target"]
    for step in range(4):
        batch = stream.batch(sessions.SOURCE_STEPS + step)
        loss = torch.nn.functional.cross_entropy(net(batch.x).logits, batch.y)
        loss = loss + lam * sum((p - start[n]).square().sum() for n, p in net.named_parameters())
        found = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(net.parameters(), found, strict=True):
                parameter -= 0.1 * gradient
    for key, value in net.state_dict().items():
        assert torch.allclose(value, session.net.state_dict()[key], atol=1e-5), key


def test_the_anchor_is_a_clone_that_does_not_move_and_survives_a_kill(tmp_path):
    session, _ = sessions.paused(tmp_path / "a")
    start = {name: p.detach().clone() for name, p in session.net.named_parameters()}
    trained, _ = sessions.paused(
        tmp_path / "b", TERM, "trainer.steps=9", at=sessions.SOURCE_STEPS + 8
    )
    anchor = trained.terms["l2_sp"].state_dict()["anchor"]
    assert anchor.keys() == start.keys()
    assert all(torch.equal(anchor[name], value) for name, value in start.items())
    assert any(not torch.equal(p, start[n]) for n, p in trained.net.named_parameters())
    sessions.resumed_equals_straight(tmp_path, TERM, "terms.l2_sp.alpha=5")


def distance(folder, *options):
    """From the weights at the start of the target phase to those at its end, without the term's."""
    session = small.session(folder, *sessions.FEW, TERM, "schedule=constant", *options)
    session.trainer().fit()
    anchor = session.terms["l2_sp"].anchor.values
    return max(
        float((p.detach() - anchor[n]).abs().max()) for n, p in session.net.named_parameters()
    )


def test_with_alpha_to_infinity_the_weights_stay_at_the_start(tmp_path):
    """SGD with lr = 1/α ends each step within ‖g‖/α of the start: 100 times nearer for 100 α.

    The source phase is the same, since it has its own optimizer.
    """
    source = "phases.source.optimizer={name: adam, lr: 0.001}"
    sgd = ("optimizer=sgd", "optimizer.momentum=0", source)
    found = [
        distance(
            tmp_path / f"{alpha}", *sgd, f"optimizer.lr={1 / alpha}", f"terms.l2_sp.alpha={alpha}"
        )
        for alpha in (1e2, 1e4, 1e6)
    ]
    assert found[0] > found[1] > found[2]
    assert found[1] < 1e-3
    assert found[2] < 1e-5


def test_adam_stays_within_a_few_learning_rates(tmp_path):
    near = distance(tmp_path / "near", "terms.l2_sp.alpha=1e6", "trainer.steps=40")
    far = distance(tmp_path / "far", "terms.l2_sp.alpha=0", "trainer.steps=40")
    assert near < 3e-3  # lr is 1e-3
    assert far > 3 * near


def test_weight_decay_beside_it_is_refused(tmp_path):
    decay = "phases.target.optimizer={weight_decay: 0.01}"
    with pytest.raises(ConfigError, match=r"phases\.target\.optimizer\.weight_decay=0"):
        small.session(tmp_path / "a", *sessions.FEW, TERM, decay)
    small.session(tmp_path / "b", *sessions.FEW, decay)
    source = ("optimizer.weight_decay=0.01", "phases.target.optimizer={weight_decay: 0}")
    small.session(tmp_path / "c", *sessions.FEW, TERM, *source)


def test_without_carried_weights_it_says_so(tmp_path):
    options = ("method=finetune", "target_labels=2", "init=scratch", TERM)
    session = small.session(tmp_path / "run", *options)
    with pytest.raises(ConfigError, match="carried over"):
        session.trainer().fit()


def test_accumulation_gives_the_same_weights_without_batch_norm(tmp_path):
    options = (TERM, "backbone.batch_norm=false", "terms.l2_sp.alpha=3", "optimizer=sgd")
    nets = []
    for count in (1, 2):
        session = small.session(
            tmp_path / str(count), *sessions.FEW, *options, f"trainer.accumulate={count}"
        )
        session.trainer().fit()
        nets.append(session.net.state_dict())
    assert all(torch.allclose(nets[0][k], nets[1][k], atol=1e-6) for k in nets[0])
