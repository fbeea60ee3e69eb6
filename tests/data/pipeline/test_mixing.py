"""mixup and CutMix against torchvision's for given λ and boxes, and how these are drawn."""

import pytest
import torch
from torchvision.transforms import v2

from helpers.toy_sets import PRE
from helpers.toy_sets import tiny_set as toy
from tlrun.data.pipeline.augment import Augment
from tlrun.data.pipeline.hashing import Draws
from tlrun.data.pipeline.mixing import beta, cut_boxes, cutmix, kept_share, mixed, mixup
from tlrun.data.pipeline.streams import Stream
from tlrun.errors import ConfigError

N, CLASSES = 8, 3
GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(N, 3, 12, 16, generator=GENERATOR)
Y = torch.arange(N) % CLASSES


def draws(count: int = N, epoch: int = 0) -> Draws:
    index = torch.arange(count)
    return Draws(0, "source", torch.full_like(index, epoch), index)


def torchvisions(transform, **params):
    params["batch_size"] = N
    both = (transform.transform(value, {**params, "labels": Y}) for value in (X, Y))
    return tuple(both)


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_mixup_is_torchvisions(lam):
    want_x, want_y = torchvisions(v2.MixUp(num_classes=CLASSES), lam=lam)
    weight = torch.full((N,), lam)
    torch.testing.assert_close(mixup(X, weight), want_x)
    torch.testing.assert_close(mixup(torch.eye(CLASSES)[Y], weight), want_y)


@pytest.mark.parametrize("box", [(2, 1, 9, 7), (0, 0, 16, 12), (3, 3, 3, 3)])
def test_cutmix_is_torchvisions(box):
    left, top, right, bottom = box
    lam = 1 - (right - left) * (bottom - top) / (12 * 16)
    transform = v2.CutMix(num_classes=CLASSES)
    want_x, want_y = torchvisions(transform, box=box, lam_adjusted=lam)
    boxes = torch.tensor([[top, left, bottom, right]] * N)
    assert torch.equal(cutmix(X, boxes), want_x)
    torch.testing.assert_close(mixup(torch.eye(CLASSES)[Y], kept_share(boxes, 12, 16)), want_y)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_have_the_moments_of_the_beta_distribution(alpha):
    drawn = beta(draws(20_000), "mixup", alpha)
    want = torch.distributions.Beta(alpha, alpha)
    assert drawn.dtype == torch.float32
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert drawn.mean() == pytest.approx(0.5, abs=0.01)
    assert drawn.var() == pytest.approx(float(want.variance), rel=0.03)


def test_boxes_have_the_area_but_for_what_lies_outside():
    weight = beta(draws(20_000), "cutmix", 1.0)
    boxes = cut_boxes(weight, draws(20_000), 64, 48)
    top, left, bottom, right = boxes.unbind(1)
    assert ((top >= 0) & (top <= bottom) & (bottom <= 64)).all()
    assert ((left >= 0) & (left <= right) & (right <= 48)).all()
    assert (kept_share(boxes, 64, 48) >= weight - 1e-6).all()
    inside = (top > 0) & (left > 0) & (bottom < 64) & (right < 48)
    assert inside.sum() > 1000
    assert (kept_share(boxes, 64, 48) - weight)[inside].abs().max() < 0.1


@pytest.mark.parametrize("ops", [{"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 1.0}])
def test_labels_tell_what_an_image_is_made_of(ops):
    count = 400
    y = torch.arange(count) % 2
    x = y.float().view(-1, 1, 1, 1).expand(-1, 3, 8, 8)  # an image of class 1 is white
    out, shares = mixed(x, y, 2, draws(count), ops)
    assert shares.shape == (count, 2)
    torch.testing.assert_close(shares.sum(1), torch.ones(count))
    torch.testing.assert_close(out.mean((1, 2, 3)), shares[:, 1], atol=1e-5, rtol=0)
    pasted = (out.amin((1, 2, 3)) == 0) & (out.amax((1, 2, 3)) == 1)
    blended = ((out > 0) & (out < 1)).flatten(1).any(1)
    assert not (pasted & blended).any()
    assert bool(pasted.any()) == ("cutmix" in ops)
    assert bool(blended.any()) == ("mixup" in ops)


def test_a_stream_of_mixed_images_is_a_pure_function_of_the_step():
    def stream(ops):
        return Stream("source", toy(), batch_size=8, seed=0, preprocess=PRE, augment=Augment(ops))

    plain, ours, again = stream({}), stream({"mixup": 1.0}), stream({"mixup": 1.0})
    want = [ours.batch(step) for step in range(5)]
    for step in (4, 1, 3):
        got = again.batch(step)
        assert torch.equal(got.x, want[step].x)
        assert torch.equal(got.y, want[step].y)
    bare = plain.batch(2)
    classes = len(toy().classes)
    expected = mixed(bare.x, bare.y, classes, draws_of(plain, 2), {"mixup": 1.0})
    assert torch.equal(want[2].x, expected[0])
    assert torch.equal(want[2].y, expected[1])
    assert bare.y.dtype == torch.int64


def draws_of(stream, step):
    return Draws(stream.seed, stream.name, *stream.positions(step))


def test_features_are_mixed_but_not_cut():
    x, shares = mixed(torch.rand(N, 5), Y, CLASSES, draws(), {"mixup": 1.0})
    assert x.shape == (N, 5)
    assert shares.shape == (N, CLASSES)
    with pytest.raises(ConfigError, match="features know mixup"):
        mixed(torch.rand(N, 5), Y, CLASSES, draws(), {"cutmix": 1.0})
