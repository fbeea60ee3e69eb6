"""Texts as descriptions of classes: the formulas by numpy and scikit-learn, and runs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from helpers import half
from helpers.image_text import COMMON, accuracy, write_space
from tlrun.cli.main import main
from tlrun.errors import ConfigError, DataError
from tlrun.inference.predict import load
from tlrun.methods.query import Query
from tlrun.methods.vision_language import linear_probe, tip_adapter
from tlrun.methods.vision_language.clip_zero_shot import CLIPZeroShot
from tlrun.methods.vision_language.text_head import TextHead
from tlrun.methods.vision_language.tip_adapter import Cache, TipAdapter, TipAdapterF
from tlrun.models.backbones import MLP
from tlrun.models.net import Net

torch.set_num_threads(1)
CLASSES, D = ("cat", "dog", "elk"), 6
DRAWS = np.random.default_rng(0)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def net_of(method):
    """The net of all phases, with text vectors and, if it has a cache, nine images in it."""
    net = Net(MLP((D,), hidden=()), (D,))
    data = SimpleNamespace(num_classes=3, classes=CLASSES)
    for phase in method.phases(data):
        method.build(phase, net, data)
    return net.eval()


def check_scores(method, net, x, wanted):
    """The scores of features x (B, D), and the same ones under autocast."""
    with torch.no_grad():
        found = method.predict(net, torch.from_numpy(x).float(), Query()).scores
        with half.autocast():
            again = method.predict(net, torch.from_numpy(x).float(), Query()).scores
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-4)
    torch.testing.assert_close(again, found)


def test_the_zero_shot_classifier(tmp_path):
    rows, names = DRAWS.standard_normal((7, D)), list(CLASSES * 2) + ["cat"]
    np.savez(tmp_path / "text.npz", features=rows, classes=np.array(names))
    method = CLIPZeroShot(str(tmp_path / "text.npz"), 0.02)
    net = net_of(method)
    data = SimpleNamespace(classes=CLASSES)
    method.start(method.phases(data)[0], net, data)
    x = DRAWS.standard_normal((5, D))
    means = [unit(rows)[[n == c for n in names]].mean(0) for c in CLASSES]
    wanted = unit(x) @ unit(np.stack(means)).T / 0.02
    check_scores(method, net, x, wanted)
    np.savez(tmp_path / "text.npz", features=rows[:, :4], classes=np.array(names))
    with pytest.raises(DataError, match="have 4 numbers, the image features 6"):
        method.start(method.phases(data)[0], net, data)
    with pytest.raises(ConfigError, match=r"method\.text=FILE"):
        CLIPZeroShot().start(method.phases(data)[0], net, data)


def cached(alpha=1.7, beta=4.0):
    keys, y = unit(DRAWS.standard_normal((9, D))), np.arange(9) % 3
    method, text = TipAdapter(alpha=alpha, beta=beta), unit(DRAWS.standard_normal((3, D)))
    net = net_of(method)
    net["text"].vectors.copy_(torch.from_numpy(text))
    net["cache"].fill(torch.from_numpy(keys), torch.from_numpy(y), alpha, beta)
    return method, net, keys, y, text


def test_the_cache_by_numpy():
    method, net, keys, y, text = cached()
    x = DRAWS.standard_normal((5, D))
    wanted = unit(x) @ text.T / 0.01
    for n in range(9):
        wanted[:, y[n]] += 1.7 * np.exp(-4.0 * (1 - unit(x) @ keys[n]))
    check_scores(method, net, x, wanted)


def test_a_cache_takes_the_size_of_its_checkpoint():
    _, net, keys, *_ = cached()
    fresh = Cache(D, 3)
    parameter = fresh.keys
    fresh.load_state_dict(net["cache"].state_dict())
    assert fresh.keys is parameter
    np.testing.assert_allclose(fresh.keys.detach().numpy(), keys, atol=1e-6)
    torch.testing.assert_close(fresh.values, net["cache"].values)
    assert (float(fresh.alpha), float(fresh.beta)) == pytest.approx((1.7, 4.0))


def test_alpha_and_beta_by_leave_one_out():
    centres = DRAWS.standard_normal((3, D))
    y = np.arange(24) % 3
    x = unit(centres[y] + 0.6 * DRAWS.standard_normal((24, D)))
    text = 100 * x @ unit(centres + 1.5 * DRAWS.standard_normal((3, D))).T
    best, results = None, {}
    for alpha in tip_adapter.ALPHAS:
        for beta in tip_adapter.BETAS:
            scores = text.copy()
            for n in range(24):
                for m in range(24):
                    if m != n:
                        scores[n, y[m]] += alpha * np.exp(-beta * (1 - x[n] @ x[m]))
            loss = -log_softmax(scores, axis=1)[np.arange(24), y].mean()
            results[alpha, beta] = (np.mean(scores.argmax(1) == y), -loss)
    best = max(results, key=results.get)
    tensors = torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(text)
    assert tip_adapter.choose(*tensors, None, None) == best
    assert tip_adapter.choose(*tensors, 0.5, 3.0) == (0.5, 3.0)
    only = torch.tensor([0, 1, 2])
    assert tip_adapter.choose(*(t[only] for t in tensors), None, None) == tip_adapter.USUAL
    assert tip_adapter.choose(*(t[only] for t in tensors), 2.0, None) == (2.0, 5.5)


@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
def test_the_probe_is_scikit_learns_logistic_regression(penalty):
    y = np.arange(60) % 3
    x = unit(DRAWS.standard_normal((3, D))[y] + DRAWS.standard_normal((60, D)))
    weight, bias = linear_probe.fit(torch.from_numpy(x), torch.from_numpy(y), 3, penalty)
    theirs = LogisticRegression(C=1 / (penalty * 60), tol=1e-9, max_iter=10_000).fit(x, y)
    wanted = log_softmax(theirs.decision_function(x), axis=1)
    found = log_softmax(x @ weight.numpy().T + bias.numpy(), axis=1)
    np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_the_penalty_by_cross_validation():
    y = np.repeat(np.arange(3), 10)
    x = unit(DRAWS.standard_normal((3, D))[y] + DRAWS.standard_normal((30, D)))
    fold = np.tile(np.arange(10) % 5, 3)
    losses = {}
    for penalty in linear_probe.PENALTIES:
        total = 0.0
        for k in range(5):
            model = LogisticRegression(C=1 / (penalty * 24), tol=1e-8, max_iter=10_000)
            model.fit(x[fold != k], y[fold != k])
            log_p = log_softmax(model.decision_function(x[fold == k]), axis=1)
            total -= log_p[np.arange(6), y[fold == k]].sum()
        losses[penalty] = total
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    assert linear_probe.choose_penalty(x, y, 3) == min(losses, key=losses.get)
    assert linear_probe.choose_penalty(x[::10], y[::10], 3) == linear_probe.USUAL


# ---- runs ---------------------------------------------------------------------------------------


@pytest.fixture
def space(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_space(tmp_path)
    return tmp_path


def test_a_run_predicts_without_the_file_of_its_texts(space):
    words = ["method=tip_adapter_f", "method.text=texts.npz", "target_labels=2"]
    accuracy(space / "run", *words, "method.tune_steps=3", "trainer.batch_size=4")
    (space / "texts.npz").unlink()
    model = load(space / "run")
    x = torch.from_numpy(np.load(space / "images.npz")["features"][:8]).float()
    with torch.no_grad():
        scores = model(x)
    assert scores.shape == (8, 6)
    assert model.net["cache"].keys.shape == (12, 32)
    assert isinstance(model.net["text"], TextHead)


def test_only_the_keys_are_trained(space):
    method = TipAdapterF()
    _, net, *_ = cached()
    x, y = torch.randn(4, D), torch.tensor([0, 1, 2, 0])
    batch = {"target": SimpleNamespace(x=x, y=y)}
    (update,) = method.step(net, batch, None, None)
    assert update.parts == ("cache",)
    sum(update.losses.values()).backward()
    assert [n for n, p in net.named_parameters() if p.grad is not None] == ["parts.cache.keys"]


def test_no_labels(space, capsys):
    words = [*COMMON, "method=linear_probe", "target_labels=none", "hydra.run.dir=x"]
    assert main(words) != 0
    assert "target_labels" in capsys.readouterr().err


def test_images_for_a_net_of_texts_alone_are_refused(space, capsys):
    """The run took ready features, and its net has no weight that tells the device."""
    accuracy(space / "run", "method=clip_zero_shot", "method.text=texts.npz")
    (space / "x.png").write_bytes(b"")
    capsys.readouterr()
    assert main(["predict", "run", "x.png"]) == 2
    assert "trained on ready features" in capsys.readouterr().err
