import math

import pytest
import torch

from tlrun.data.pipeline.augment import OPS, PHOTO, STORED, Augment
from tlrun.data.pipeline.hashing import Draws
from tlrun.data.pipeline.mixing import MIXING
from tlrun.errors import ConfigError

X = torch.randn(16, 3, 20, 20, generator=torch.Generator().manual_seed(0))


def draws(n=16, seed=0, stream="source", epoch=0, start=0):
    return Draws(seed, stream, torch.full((n,), epoch), torch.arange(start, start + n))


def test_a_draw_depends_only_on_its_own_name():
    all_of_it = draws(64).uniform("a", 3)
    part = Draws(0, "source", torch.zeros(2, dtype=torch.int64), torch.tensor([40, 7]))
    assert torch.equal(part.uniform("a", 3), all_of_it[[40, 7]])
    for other in (draws(64, seed=1), draws(64, stream="target"), draws(64, epoch=1)):
        assert not torch.equal(other.uniform("a", 3), all_of_it)
    assert not torch.equal(draws(64).uniform("b", 3), all_of_it)
    assert torch.equal(draws(64).uniform("a", 2), all_of_it[:, :2])


def test_uniform_and_normal_have_their_moments():
    u = draws(2000).uniform("u", 50).double()
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 0.005
    assert abs(u.var() - 1 / 12) < 0.001
    z = draws(2000).normal("z", 5, 10).double()
    assert z.shape == (2000, 5, 10)
    assert abs(z.mean()) < 0.01
    assert abs(z.var() - 1) < 0.02
    assert abs((z**4).mean() - 3) < 0.15
    assert torch.isfinite(z).all()


def test_nothing_to_do_costs_nothing():
    assert Augment({"noise": 0.0, "rotate": 0})(X, draws()) is X
    assert not Augment({"noise": 0.0})


OTHERS = {*STORED, "rand_augment_ops", *PHOTO, *MIXING}  # test_streams, test_photo, test_mixing


@pytest.mark.parametrize("name", sorted(set(OPS) - OTHERS))
def test_every_operation_changes_images_and_is_independent_of_the_batch(name):
    strength = {"cutout": 8, "rotate": 15}.get(name, 0.5)
    augment = Augment({name: strength})
    out = augment(X, draws())
    assert out.shape == X.shape
    assert not torch.equal(out, X)
    alone = augment(
        X[5:7], Draws(0, "source", torch.zeros(2, dtype=torch.int64), torch.tensor([5, 6]))
    )
    torch.testing.assert_close(alone, out[5:7], rtol=0, atol=1e-6)


def test_invert_flips_signs_of_about_its_share():
    flipped = Augment({"invert": 0.25})(torch.ones(4000, 1, 2, 2), draws(4000))
    assert set(flipped.unique().tolist()) == {-1.0, 1.0}
    assert abs((flipped[:, 0, 0, 0] < 0).float().mean() - 0.25) < 0.04
    channels = Augment({"invert_channels": 0.5})(torch.ones(400, 3, 2, 2), draws(400))[:, :, 0, 0]
    assert (channels != channels[:, :1]).any()


def test_gain_and_offset_stay_in_range():
    x = torch.ones(1000, 3, 2, 2)
    gain = Augment({"gain": 0.5})(x, draws(1000))
    assert 0.5 <= gain.min() < 0.52
    assert 1.48 < gain.max() <= 1.5
    offset = Augment({"offset": 0.3})(x * 0, draws(1000))
    assert -0.3 <= offset.min() < -0.29
    assert 0.29 < offset.max() <= 0.3


def test_flip_of_every_image_is_the_mirror():
    torch.testing.assert_close(Augment({"flip": 1.0})(X, draws()), X.flip(3), rtol=0, atol=1e-5)


def test_shift_moves_a_dot_by_at_most_its_share():
    x = torch.zeros(200, 1, 21, 21)
    x[:, :, 10, 10] = 1
    out = Augment({"shift": 0.2})(x, draws(200))[:, 0]
    grid = torch.arange(21.0)
    rows, columns = (out.sum(2) * grid).sum(1) - 10, (out.sum(1) * grid).sum(1) - 10
    assert rows.abs().max() <= 0.2 * 21 + 1e-3
    assert columns.abs().max() > 3.5
    assert rows.std() > 1.5


def test_rotation_by_the_drawn_angle():
    """A dot right of the centre moves on a circle by the angle that the draw gives."""
    x = torch.zeros(64, 1, 41, 41)
    x[:, :, 19:22, 32:35] = 1
    d = draws(64)
    out = Augment({"rotate": 30.0})(x, d)[:, 0]
    grid = torch.arange(41.0) - 20
    mass = out.sum((1, 2))
    y, right = (out.sum(2) * grid).sum(1) / mass, (out.sum(1) * grid).sum(1) / mass
    angle = (d.uniform("affine", 5)[:, 0] * 2 - 1) * math.radians(30)
    torch.testing.assert_close(torch.atan2(y, right).abs(), angle.abs(), rtol=0, atol=0.02)
    torch.testing.assert_close(torch.hypot(y, right), torch.full((64,), 13.0), rtol=0, atol=0.1)


def test_cutout_is_one_square_hole():
    out = Augment({"cutout": 6})(torch.ones(100, 2, 20, 20), draws(100))
    holes = (out == 0).sum((2, 3))
    assert torch.equal(holes[:, 0], holes[:, 1])
    assert holes.max() == 36
    assert holes.min() >= 9  # cut by a corner


def test_features_take_noise_and_gain_only():
    x = torch.ones(8, 5)
    assert Augment({"noise": 0.1, "gain": 0.2})(x, draws(8)).shape == (8, 5)
    with pytest.raises(ConfigError, match="features know only"):
        Augment({"rotate": 5})(x, draws(8))
    with pytest.raises(ConfigError, match="features know only"):
        Augment({"binarize": 0.5}).of_stored(x, None, draws(8))


@pytest.mark.parametrize(
    ("ops", "word"),
    [
        ({"rotat": 5}, "did you mean 'rotate'"),
        ({"noise": -1}, "noise=-1: expected a number from 0"),
        ({"noise": "a lot"}, "number"),
        ({"invert": 2}, "invert=2: expected a number from 0 to 1"),
        ({"scale": 1.0}, "below 1"),
    ],
)
def test_mistakes(ops, word):
    with pytest.raises(ConfigError, match=word):
        Augment(ops)
