"""Terms of adaptation: weight times the loss, of the right domain; the passes of VAT."""

import copy
from functools import partial

import pytest
import torch

from helpers import small
from tlrun.config.packaged import conf_dir
from tlrun.errors import ConfigError
from tlrun.losses.class_confusion import class_confusion_loss
from tlrun.losses.coral import coral_loss
from tlrun.losses.entropy import diversity_loss, entropy_loss
from tlrun.losses.mmd import mmd_loss
from tlrun.losses.nuclear_norm import nuclear_norm_loss
from tlrun.methods.adversarial.dann import DANN
from tlrun.methods.base import DomainOutput, Phase, Progress, Update
from tlrun.methods.fine_tuning.source_only import SourceOnly
from tlrun.methods.terms.afn import AFN
from tlrun.methods.terms.bnm import BNM
from tlrun.methods.terms.bsp import BSP
from tlrun.methods.terms.coral import Coral
from tlrun.methods.terms.entropy import Entropy
from tlrun.methods.terms.mcc import MCC
from tlrun.methods.terms.mmd import MMD
from tlrun.methods.terms.vat import VAT

TERMS = {
    "afn": AFN,
    "bnm": BNM,
    "bsp": BSP,
    "coral": Coral,
    "im": partial(Entropy, diversity=1.0),
    "mcc": MCC,
    "mmd": MMD,
    "vat": VAT,
}
BOTH = ("coral", "mmd")


def shown(*domains):
    generator = torch.Generator().manual_seed(0)
    return Update(
        {},
        outputs={
            name: DomainOutput(
                torch.zeros(6, 1),
                torch.randn(6, 5, generator=generator) + i,
                torch.randn(6, 4, generator=generator) + i,
            )
            for i, name in enumerate(domains)
        },
    )


def value_of(term, update, net=None):
    (value,) = term.loss(update, net).values()
    return float(value.detach())


def test_each_is_its_weight_times_the_loss_of_the_target():
    update = shown("source", "target")
    source, target = update.outputs["source"], update.outputs["target"]
    assert source.features is not None
    information = entropy_loss(target.logits) + 0.5 * diversity_loss(target.logits)
    norms = [s.features.norm(dim=1).mean() for s in (source, target)]
    spectra = [torch.linalg.svdvals(s.features)[:2].square().sum() for s in (source, target)]
    expected = {
        MCC(weight=0.3, temperature=2.0): 0.3 * class_confusion_loss(target.logits, 2.0),
        BNM(weight=0.3): 0.3 * nuclear_norm_loss(target.logits),
        Entropy(weight=0.3, diversity=0.5): 0.3 * information,
        AFN(weight=0.3, step=2.0): torch.tensor(0.3 * 2 * 4.0),
        AFN(weight=0.3, radius=7.0): 0.3 * sum((n - 7.0) ** 2 for n in norms),
        BSP(weight=0.3, k=2): 0.3 * sum(spectra),
        MMD(weight=0.3): 0.3 * mmd_loss(source.features, target.features),
        MMD(weight=0.3, layer="logits", kernels=1, bandwidth=2.0, estimator="biased"): 0.3
        * mmd_loss(source.logits, target.logits, kernels=1, bandwidth=2.0, estimator="biased"),
        Coral(weight=0.3): 0.3 * coral_loss(source.logits, target.logits),
        Coral(weight=0.3, layer="features"): 0.3 * coral_loss(source.features, target.features),
    }
    for term, wanted in expected.items():
        assert value_of(term, update) == pytest.approx(float(wanted), rel=1e-5), term


def test_features_terms_go_on_with_the_target_alone_where_no_source_is_shown():
    update = shown("target")
    features = update.outputs["target"].features
    assert value_of(AFN(weight=1.0, step=2.0), update) == pytest.approx(4.0)
    largest = float(torch.linalg.svdvals(features)[0] ** 2)
    assert value_of(BSP(weight=1.0), update) == pytest.approx(largest, rel=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_a_method_without_the_target_is_told_so(name):
    update = shown("source")
    with pytest.raises(ConfigError, match=rf"terms=\[{name}\] needs the \w+ of target images"):
        TERMS[name]().loss(update, None)


@pytest.mark.parametrize("name", BOTH)
def test_those_that_compare_domains_need_the_source(name):
    with pytest.raises(ConfigError, match=rf"terms=\[{name}\] needs the \w+ of source images"):
        TERMS[name]().loss(shown("target"), None)


@pytest.mark.parametrize("name", BOTH)
def test_one_image_of_a_domain_is_refused(name):
    update = shown("source", "target")
    target = update.outputs["target"]
    target.features, target.logits = target.features[:1], target.logits[:1]
    with pytest.raises(ConfigError, match=r"trainer\.batch_size"):
        TERMS[name]().loss(update, None)


@pytest.mark.parametrize("name", ["mcc", "bnm", "im", "vat", "coral"])
def test_a_method_that_hides_the_logits_is_told_so(name):
    update = shown("source", "target")
    update.outputs["target"].logits = None
    with pytest.raises(ConfigError, match=rf"terms=\[{name}\] needs the logits of target images"):
        TERMS[name]().loss(update, None)


@pytest.mark.parametrize(
    ("term", "key", "value"),
    [
        *((getattr(term, "func", term), "weight", -1.0) for term in TERMS.values()),
        (AFN, "step", -1.0),
        (AFN, "radius", -1.0),
        (BSP, "k", 0),
        (Entropy, "diversity", -1.0),
        (MCC, "temperature", 0.0),
        (MMD, "kernels", -1),
        (MMD, "bandwidth", 0.0),
        (MMD, "bandwidth", "meen"),
        (MMD, "estimator", "biassed"),
        (MMD, "layer", "feature"),
        (Coral, "layer", "logit"),
        (VAT, "radius", -1.0),
        (VAT, "xi", 0.0),
        (VAT, "xi", float("nan")),
        (VAT, "iterations", 0),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_their_key(term, key, value):
    with pytest.raises(ConfigError, match=rf"^terms\.\w+\.{key}="):
        small.configured(term, "terms.x", **{key: value})


@pytest.mark.parametrize("name", TERMS)
def test_it_joins_a_run_from_the_command_line(name, tmp_path):
    assert (conf_dir() / "terms" / f"{name}.yaml").exists()
    session = small.session(tmp_path / "run", f"terms=[{name}]", "trainer.steps=2")
    assert vars(session.terms[name]) == vars(TERMS[name]())  # the file's defaults are the class's
    session.trainer().fit()
    rows = [row for row in session.run_dir.read_metrics() if row["split"] == "train"]
    assert rows
    assert all(f"loss/{name}" in row for row in rows)


@pytest.mark.parametrize("name", ["mcc", "bnm", "im", "coral", "mmd", "bsp"])
def test_a_step_down_lowers_it(name):
    """Through the net, on one batch."""
    net, batch = small.built(DANN(), small.net(dropout=0.0)), small.batch()

    def loss():
        (update,) = DANN().step(net, batch, Phase(), Progress(5, 10))
        (value,) = TERMS[name](weight=1.0).loss(update, net).values()
        return value

    before = loss()
    parameters = [p for part in ("backbone", "classifier") for p in net[part].parameters()]
    gradients = torch.autograd.grad(before, parameters, allow_unused=True)
    size = sum(float(g.square().sum()) for g in gradients if g is not None) ** 0.5
    assert size > 0
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= 1e-2 * gradient / size
    assert float(loss().detach()) < float(before.detach())


class TestVAT:
    def update(self, mode, method=None):
        method = method or DANN()
        method.batch_norm = mode
        net = small.built(method, small.net({"hidden": [8], "batch_norm": True}, dropout=0.5))
        (update,) = method.step(net, small.batch(), Phase(), Progress(5, 10))
        return net, update

    @pytest.mark.parametrize("mode", ["joint", "separate_forward", "per_domain"])
    def test_it_leaves_domain_statistics_and_gradients_as_they_were(self, mode):
        net, update = self.update(mode)
        before = copy.deepcopy(net.state_dict())
        (loss,) = VAT(iterations=2).loss(update, net).values()
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
        assert all(parameter.grad is None for parameter in net.parameters())
        assert net.training
        (loss + sum(update.losses.values())).backward()  # in one graph, as the engine does it
        assert float(loss.detach()) > 0

    @pytest.mark.parametrize("mode", ["joint", "separate_forward", "per_domain"])
    def test_without_a_perturbation_nothing_changes_in_spite_of_dropout(self, mode):
        """Nor in joint mode, where the update's own logits are normalised over both domains."""
        net, update = self.update(mode)
        assert value_of(VAT(radius=0.0), update, net) == 0.0

    def test_it_looks_with_the_targets_eyes(self):
        """In eval mode only the target's running statistics can be at work."""
        net, update = self.update("per_domain")
        net.eval()
        torch.manual_seed(0)
        before = value_of(VAT(), update, net)
        for key, buffer in net.named_buffers():
            if "running" in key and "target" not in key:
                buffer.mul_(3.0)
        torch.manual_seed(0)
        assert value_of(VAT(), update, net) == before

    def test_descent_makes_predictions_hold(self):
        net, update = self.update("per_domain")
        term = VAT(weight=1.0, radius=2.0)

        def measured():
            return sum(value_of(term, update, net) for _ in range(5)) / 5

        before = measured()
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(20):
            optimizer.zero_grad()
            term.loss(update, net)["vat"].backward()
            optimizer.step()
        assert measured() < 0.5 * before

    def test_source_only_shows_no_target(self):
        net, update = self.update("joint", SourceOnly())
        with pytest.raises(ConfigError, match="needs the logits of target images"):
            VAT().loss(update, net)


def test_vat_refuses_a_net_of_which_nothing_is_trained():
    """ADDA's second phase: the encoder that is trained is not the one that VAT would judge by."""
    net = small.built(SourceOnly(), small.net(dropout=0.0)).requires_grad_(False)
    x = small.batch("target")["target"].x
    update = Update({}, outputs={"target": DomainOutput(x, net(x).features, net(x).logits)})
    with pytest.raises(ConfigError, match="nothing is trained"):
        VAT().loss(update, net)
    net["backbone"].requires_grad_(True)
    assert VAT().loss(update, net)["vat"].requires_grad
