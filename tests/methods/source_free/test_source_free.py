"""Adaptation without the source: what stays frozen, SHOT's labels, exact resume, other starts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from helpers import sessions, small
from helpers.hooks import Crash, crash_before
from helpers.sessions import before_adapting, moved
from tlrun.engine.checkpoint import load_last
from tlrun.errors import ConfigError
from tlrun.losses.centroids import centroid_labels
from tlrun.methods.base import Progress
from tlrun.methods.source_free.shot import Shot, pseudo_labels
from tlrun.methods.source_free.shot_im import ShotIM
from tlrun.models.batch_norm import statistics_of

METHODS = ("adabn", "tent", "shot_im", "shot")
HEAD = ("backbone.head.hidden=[8]", "backbone.head.batch_norm=true")
STEPS = ("phases.source.steps=3", "trainer.steps=6", "evaluate.target_test=false")


def options(method, *further):
    words = (f"method={method}", *STEPS, *HEAD, *further)
    return (*words, "method.adapt_steps=6") if method == "tent" else words


class Closed:
    """A set that must not be read."""

    def __getattr__(self, name):
        raise AssertionError(f"the source's training images were asked for: {name}")


@pytest.mark.parametrize("method", METHODS)
def test_the_last_phase_reads_no_image_of_the_source(method, tmp_path):
    session = small.session(tmp_path / "run", *options(method))
    assert [phase.streams for phase in session.phases] == [("source",), ("target",)]
    start = session.method.start

    def close(phase, net, data):
        if phase.streams == ("target",):
            data.domains["source"].train = Closed()
            data.domains["source"].val = None  # figures of an evaluation
        start(phase, net, data)

    session.method.start = close
    session.trainer().fit()
    assert session.run_dir.read_metrics()[-1]["phase"] == session.phases[-1].name


# ---- SHOT -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["shot_im", "shot"])
@pytest.mark.parametrize("hypothesis", ["classifier", "classifier.out"])
def test_the_hypothesis_stays_to_the_bit(method, hypothesis, tmp_path):
    words = options(method, f"method.hypothesis={hypothesis}", "optimizer.weight_decay=0.1")
    session = small.session(tmp_path / "run", *words)
    before = before_adapting(session)
    session.trainer().fit()
    held = "parts.classifier." if hypothesis == "classifier" else "parts.classifier.out."
    changed = moved(session, before)
    for key, value in before.items():
        if key.startswith(held) or ".running_" in key:  # those are the source's statistics
            assert key not in changed
        elif value.is_floating_point():
            assert key in changed


def test_information_maximisation_equals_numpy():
    logits = torch.randn(16, 5) * 2
    found = ShotIM(diversity=0.7).losses(logits, None)
    p = logits.double().softmax(1).numpy()
    sure, mean = -(p * np.log(p)).sum(1).mean(), p.mean(0)
    assert float(found["entropy"]) == pytest.approx(sure, rel=1e-5)
    assert float(found["diversity"]) == pytest.approx(0.7 * (mean * np.log(mean)).sum(), rel=1e-4)


def labels_by_numpy(features, p):
    """Equations 5 to 7 with loops and scipy's distance; an empty class has no centroid."""
    classes = p.shape[1]
    centroids = np.stack([(p[:, [k]] * features).sum(0) / p[:, k].sum() for k in range(classes)])
    labels = cdist(features, centroids, "cosine").argmin(1)
    present = np.unique(labels)
    centroids = np.stack([features[labels == k].mean(0) for k in present])
    return present[cdist(features, centroids, "cosine").argmin(1)]


@pytest.mark.parametrize("seed", range(5))
def test_pseudo_labels_equal_numpy(seed):
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(200, 6)) + draw.normal(size=6)
    p = draw.dirichlet(np.full(7, 0.3), size=200)
    p[:, 3] *= 1e-6  # a class that the first round may leave empty
    p /= p.sum(1, keepdims=True)
    ours = centroid_labels(torch.from_numpy(features), torch.from_numpy(p))
    assert ours.tolist() == labels_by_numpy(features, p).tolist()


def test_a_class_without_images_gets_none_in_the_second_round():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    p = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 1.0, 0.0]])
    assert centroid_labels(features, p).tolist() == [0, 0, 1]


@pytest.mark.parametrize("hypothesis", ["classifier", "classifier.out"])
def test_labels_come_from_what_the_hypothesis_is_given_in_eval_mode(hypothesis, tmp_path):
    session = small.session(tmp_path / "run", *options("shot", f"method.hypothesis={hypothesis}"))
    session.trainer().fit()
    net, data = session.net, session.data
    net.train().set_frozen_eval([hypothesis]) if hypothesis in net.stages() else net.train()
    modes = [module.training for module in net.modules()]
    state = {key: value.clone() for key, value in net.state_dict().items()}
    found = pseudo_labels(net, data, hypothesis)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    net.eval()
    examples = data.role("target_train")
    with torch.no_grad():
        out = net(data.preprocess(examples.read(torch.arange(len(examples)))), "target")
        given = out.features
        if hypothesis != "classifier":
            with statistics_of("target", net):
                given = net["classifier"].fc1(given)
    expected = labels_by_numpy(given.double().numpy(), out.logits.double().softmax(1).numpy())
    assert (found.numpy() == expected).mean() > 0.999  # ties of float32 aside


def test_labels_are_found_by_index_and_computed_anew_in_time(tmp_path):
    session = small.session(tmp_path / "run", *options("shot", "method.refresh_every=2"))
    steps, refresh, losses, seen = [], session.method.refresh, session.method.losses, []

    def counting(phase, net, data, progress):
        old = session.method.labels
        refresh(phase, net, data, progress)
        if session.method.labels is not old:
            steps.append(progress.step)

    def looking(logits, drawn):
        found = losses(logits, drawn)
        wanted = session.method.labels[drawn.index]
        expected = 0.1 * torch.nn.functional.cross_entropy(logits, wanted)
        assert torch.allclose(found["pseudo_label"], expected)
        seen.append(drawn.index)
        return found

    session.method.refresh, session.method.losses = counting, looking
    session.trainer().fit()
    assert steps == [0, 2, 4]
    assert len(torch.cat(seen).unique()) > 20
    kept = load_last(session.run_dir.checkpoints)["method"]["labels"]
    assert torch.equal(kept, session.method.labels)


def test_the_output_layer_can_be_weight_normalised(tmp_path):
    words = options("shot_im", "method.weight_norm=true", "method.hypothesis=classifier.out")
    session = small.session(tmp_path / "run", *words)
    session.trainer().fit()
    state = session.net["classifier"].out.state_dict()
    g, v = (state[f"parametrizations.weight.original{i}"] for i in (0, 1))
    weight = session.net["classifier"].out.weight
    assert torch.allclose(weight, g * v / v.norm(dim=1, keepdim=True), atol=1e-6)
    again = sessions.reopened(tmp_path / "run", *words)
    again.build_all()
    again.load(load_last(again.run_dir.checkpoints))
    assert torch.equal(again.net["classifier"].out.weight, weight)


# ---- resume ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "at"), [("shot", 2), ("shot", 6), ("shot", 7), ("shot_im", 6), ("tent", 6)]
)
def test_a_crash_and_a_resume_equal_a_straight_run(method, at, tmp_path):
    words = options(method, "trainer.checkpoint_every=1", "backbone.dropout=0.5")
    if method == "shot":
        words += ("method.refresh_every=2", "method.cls_par=1")
    straight = small.session(tmp_path / "straight", *words)
    straight.trainer().fit()
    broken = small.session(tmp_path / "broken", *words)
    with pytest.raises(Crash):
        broken.trainer(crash_before(at)).fit()
    torch.rand(3)  # another process has other random states
    resumed = sessions.reopened(tmp_path / "broken", *words)
    resumed.trainer().fit()
    ours, theirs = straight.net.state_dict(), resumed.net.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert sessions.rows(straight) == sessions.rows(resumed)
    if method == "shot":
        assert torch.equal(straight.method.labels, resumed.method.labels)


# ---- starts ---------------------------------------------------------------------------------


def source_run(folder, *further):
    session = small.session(folder, "method=source_only", "trainer.steps=3", *HEAD, *further)
    session.trainer().fit()
    session.run_dir.config.write_text("{}")  # makes it a run folder
    return session


@pytest.mark.parametrize("method", METHODS)
def test_the_model_of_another_run_is_adapted_without_a_source_phase(method, tmp_path):
    source = source_run(tmp_path / "source")
    words = [w for w in options(method, f"init={tmp_path / 'source'}") if "phases" not in w]
    session = small.session(tmp_path / "run", *words)
    assert [phase.streams for phase in session.phases] == [("target",)]
    before = before_adapting(session)
    session.trainer().fit()
    kept = source.net.state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in before.items())


def test_a_start_that_knows_no_classes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="init=scratch: this method adapts a model of the source"):
        small.session(tmp_path / "a", "method=shot", "init=scratch")
    source_run(tmp_path / "source")
    words = ("method=shot_im", f"init={tmp_path / 'source'}", "trainer.steps=2")
    session = small.session(tmp_path / "b", *words, "backbone.head.hidden=[9]")
    with pytest.raises(ConfigError, match=r"no weights of the source for classifier\.fc1"):
        session.trainer().fit()


def test_what_it_is_compared_with():
    method, data = ShotIM(), SimpleNamespace(sources=("source",))
    fresh = method.baselines(data)["baseline"]
    assert (fresh["method"], fresh["init"]) == ("source_only", "auto")
    method.init = "outputs/a_run"
    given = method.baselines(data)["baseline"]
    assert given["phases"] == {"train": {"steps": 0}}  # that run's model as it is
    assert "init" not in given


def test_bad_arguments_are_refused():
    for arguments, message in (
        ({"cls_par": -1}, "method.cls_par=-1"),
        ({"refresh_every": 0}, "method.refresh_every=0"),
        ({"diversity": -0.1}, r"method.diversity=-0\.1"),
        ({"hypothesis": "backbone"}, "must be classifier or a stage of it"),
        ({"label_smoothing": 1.0}, "method.label_smoothing"),
    ):
        with pytest.raises(ConfigError, match=message):
            small.configured(Shot, **arguments)


def test_the_default_is_fifteen_rounds(monkeypatch):
    method, found = Shot(), []
    monkeypatch.setattr("tlrun.methods.source_free.shot.pseudo_labels", lambda *_: found.append(1))
    for step in range(300):
        method.refresh(method.adapting, None, None, Progress(step, 300))
    assert len(found) == 15
