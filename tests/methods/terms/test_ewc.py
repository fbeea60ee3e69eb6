"""EWC: a Fisher information of single images, its gradient, and what it holds."""

import pytest
import torch

from helpers import sessions
from tlrun.methods.terms.ewc import fisher, of_mean_one

TERM = "terms=[ewc]"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A net after its source phase, and ten of its images."""
    session, batch = sessions.paused(tmp_path_factory.mktemp("run") / "run")
    return sessions.copy_of(session), torch.cat([batch["target"].x] * 2)[:10]


def by_hand(net, x, weight_of):
    """Σ_x Σ_y weight · (∂ log p(y|x) / ∂θ)² / N, one backward pass for each image and class."""
    total = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for image in x:
        log_p = net(image[None]).logits[0].log_softmax(0)
        for y in range(len(log_p)):
            found = torch.autograd.grad(log_p[y], list(net.parameters()), retain_graph=True)
            for name, g in zip(total, found, strict=True):
                total[name] += weight_of(log_p[y].exp().detach()) * g.square() / len(x)
    return total


def test_the_exact_fisher_is_the_sum_over_images_and_classes(trained):
    net, x = trained
    ours = fisher(net, "classifier", x, [n for n, _ in net.named_parameters()])
    for name, value in by_hand(net, x, lambda p: p).items():
        assert torch.allclose(ours[name], value, rtol=1e-3, atol=1e-7), name


def test_it_is_not_the_square_of_the_batchs_mean_gradient(trained):
    """In expectation over y ~ p(y|x) the mean gradient is 0, and so would be its square."""
    net, x = trained
    ours = fisher(net, "classifier", x, [n for n, _ in net.named_parameters()])
    log_p = net(x).logits.log_softmax(1)
    expected_score = (log_p.exp().detach() * log_p).sum(1).mean()
    wrong = torch.autograd.grad(expected_score, list(net.parameters()))
    assert sum(float(g.square().sum()) for g in wrong) < 1e-8
    assert sum(f.sum().item() for f in ours.values()) > 1e-3


def test_draws_of_y_approach_the_expectation(trained):
    net, x = trained
    names = [n for n, _ in net.named_parameters()]
    torch.manual_seed(0)
    exact, drawn = fisher(net, "classifier", x, names), fisher(net, "classifier", x, names, 200)
    a, b = (torch.cat([f[n].flatten() for n in names]) for f in (exact, drawn))
    assert float((a - b).norm() / a.norm()) < 0.1


def test_the_gradient_is_that_of_the_penalty(tmp_path):
    options = (TERM, "terms.ewc.weight=50", "terms.ewc.images=20")
    session, batch = sessions.paused(tmp_path / "run", *options)
    start = sessions.shaken(session)
    ours = sessions.gradients(session, batch)
    session.net.zero_grad()
    loss = next(session.method.step(session.net, batch, session.phases[-1], None)).losses[
        "classification"
    ]
    found, named = session.terms["ewc"].fisher, dict(session.net.named_parameters())
    penalty = 25 * sum((found[n] * (p - start[n]).square()).sum() for n, p in named.items())
    (loss + penalty).backward()
    for name, parameter in named.items():
        assert torch.allclose(ours[name], parameter.grad, atol=1e-5), name
    value = sessions.update_of(session, batch).metrics["ewc"]
    assert float(value) == pytest.approx(float(penalty.detach()), rel=1e-4)


def test_a_heavy_weight_holds_what_the_source_needs(tmp_path):
    """Weighted by F, the weights move less; frozen ones need no gradient."""

    def moved(weight):
        options = ("terms.ewc.images=20", f"terms.ewc.weight={weight}", "trainer.steps=30")
        session, batch = sessions.paused(tmp_path / f"{weight}", TERM, *options, at=32)
        update = sessions.update_of(session, batch)
        return float(update.metrics["ewc"]) / weight

    assert moved(1e4) < 0.5 * moved(1e-4)


def test_kill_and_resume(tmp_path):
    sessions.resumed_equals_straight(tmp_path, TERM, "terms.ewc.images=10")


def test_its_mean_is_one_whatever_the_scale():
    values = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([[8.0]])}
    found = of_mean_one(values)
    assert torch.allclose(found["a"], torch.tensor([0.25, 0.75]))
    assert float(found["b"]) == 2
    small = of_mean_one({name: value * 1e-6 for name, value in values.items()})
    assert all(torch.allclose(small[name], found[name]) for name in values)
    nothing = {"a": torch.zeros(2)}
    assert of_mean_one(nothing) == nothing
