"""Each operation against torchvision's for the same parameters, and the distribution of these."""

import math

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from tlrun.data.pipeline import photo
from tlrun.data.pipeline.augment import Augment
from tlrun.data.pipeline.hashing import Draws
from tlrun.data.pipeline.photo import POLICY, Policy
from tlrun.data.pipeline.preprocess import Preprocess, centre
from tlrun.errors import ConfigError

N = 6
SIDE = 32


def images(count: int = N) -> torch.Tensor:
    """Smooth colour images in [0, 1], so that one resampling is as good as another."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)


def draws(count: int = N) -> Draws:
    return Draws(0, "source", torch.zeros(count, dtype=torch.int64), torch.arange(count))


@pytest.mark.parametrize(
    ("ours", "theirs", "values"),
    [
        (photo.brightness, F.adjust_brightness, (0.2, 1.0, 1.7)),
        (photo.contrast, F.adjust_contrast, (0.2, 1.0, 1.7)),
        (photo.saturation, F.adjust_saturation, (0.2, 1.0, 1.7)),
        (photo.sharpness, F.adjust_sharpness, (0.2, 1.0, 1.7)),
        (photo.hue, F.adjust_hue, (-0.3, 0.0, 0.2)),
        (lambda x, v: photo.solarize(x, 1 - v), F.solarize, (0.3, 0.9)),
        (photo.autocontrast, lambda x, _: F.autocontrast(x), (0.0,)),
    ],
)
def test_colours_equal_torchvisions(ours, theirs, values):
    x = images()
    value = torch.tensor([values[i % len(values)] for i in range(N)])
    want = torch.stack([theirs(x[i], float(value[i])) for i in range(N)])
    torch.testing.assert_close(ours(x, value), want, atol=2e-5, rtol=0)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_operations_on_eight_bits_equal_torchvisions(bits):
    eight = (images() * 255).to(torch.uint8)
    got = photo.posterize(eight / 255, torch.full((N,), 8 - bits))
    assert torch.equal((got * 255).round().to(torch.uint8), F.posterize(eight, bits))
    got = photo.equalize(eight / 255, torch.zeros(N))
    assert torch.equal((got * 255).round().to(torch.uint8), F.equalize(eight))


def resampled(x, matrix, side=SIDE):
    return Augment._resample(x, matrix[:, :2], [*x.shape[:2], side, side])


@pytest.mark.parametrize(
    ("name", "value", "arguments"),
    [
        ("rotate", 20.0, {"angle": -20.0}),
        ("translate_x", 4 / SIDE, {"translate": [4, 0]}),
        ("translate_y", -4 / SIDE, {"translate": [0, -4]}),
        ("shear_x", 0.2, {"shear": [math.degrees(math.atan(0.2)), 0.0]}),
        ("shear_y", 0.2, {"shear": [0.0, math.degrees(math.atan(0.2))]}),
    ],
)
def test_moves_equal_torchvisions(name, value, arguments):
    x = images()
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    want = F.affine(x, **{**still, **arguments}, interpolation=F.InterpolationMode.BILINEAR)
    got = resampled(x, photo.move(name, torch.full((N,), value)))
    inner = slice(9, -9)  # theirs is black where ours repeats the border
    torch.testing.assert_close(got[..., inner, inner], want[..., inner, inner], atol=2e-3, rtol=0)


def test_a_crop_equals_torchvisions():
    x, box = images(), torch.tensor([3.0, 5.0, 20.0, 24.0])
    got = resampled(x, photo.box_matrix(box.expand(N, 4), SIDE), 16)
    want = F.resized_crop(x, 3, 5, 20, 24, [16, 16], antialias=False)
    torch.testing.assert_close(got, want, atol=2e-3, rtol=0)


@pytest.mark.parametrize("size", [9, 16, 40])  # below, within and above the sides of the boxes
def test_crops_of_bytes_equal_torchvisions(size):
    raw = torch.randint(0, 256, (N, 3, SIDE, SIDE), dtype=torch.uint8)
    boxes = photo.crop_boxes(draws(), 0.08, SIDE)
    mirror = torch.arange(N) % 2 == 0
    got = photo.resized_crops(raw, boxes, size, mirror)
    for image, box, flip, ours in zip(raw, boxes.long().tolist(), mirror, got, strict=True):
        want = F.resized_crop(image, *box, [size, size], antialias=True)
        want = F.horizontal_flip(want) if flip else want
        torch.testing.assert_close(ours, want / 255, atol=1.01 / 255, rtol=0)  # AVX2: equal
    unrounded = photo.resized_crops(raw / 255, boxes, size, mirror)  # as on a GPU
    torch.testing.assert_close(got, unrounded, atol=1.01 / 255, rtol=0)


def test_a_crop_and_a_mirror_take_nothing_else():
    raw = torch.randint(0, 256, (64, 3, SIDE, SIDE), dtype=torch.uint8)
    preprocess = Preprocess((3, SIDE, SIDE), "half", size=28, resize=SIDE)
    seen = Augment({"random_resized_crop": 0.3, "flip": 0.5}).of_raw(raw, preprocess, draws(64))
    boxes = photo.crop_boxes(draws(64), 0.3, SIDE).long().tolist()
    flips = (draws(64).uniform("flip", 1)[:, 0] < 0.5).tolist()
    assert 16 < sum(flips) < 48
    for image, box, flip, x in zip(raw, boxes, flips, seen, strict=True):
        crop = F.resized_crop(image, *box, [28, 28], antialias=True)
        crop = F.horizontal_flip(crop) if flip else crop
        torch.testing.assert_close(x, crop / 127.5 - 1, atol=1.01 / 127.5, rtol=0)
    whole = Augment({"flip": 0.5}).of_raw(raw, preprocess, draws(64))
    assert torch.equal(whole[flips], preprocess(raw)[flips].flip(3))
    jittered = Augment({"flip": 1.0, "color_jitter": 1e-6}).of_raw(raw, preprocess, draws(64))
    torch.testing.assert_close(jittered, preprocess(raw).flip(3), atol=1e-4, rtol=0)


def test_boxes_are_distributed_as_torchvisions():
    boxes = photo.crop_boxes(draws(4000), 0.08, 64)
    top, left, height, width = boxes.unbind(1)
    assert bool(((top >= 0) & (left >= 0)).all())
    assert bool(((top + height <= 64) & (left + width <= 64)).all())
    torch.manual_seed(0)
    image = torch.zeros(3, 64, 64)
    crop = v2.RandomResizedCrop(8)
    theirs = torch.tensor([float(crop.make_params([image])["height"]) for _ in range(4000)])
    assert abs(height.mean() - theirs.mean()) < 1
    assert abs(height.std() - theirs.std()) < 1
    assert abs(height.mean() - width.mean()) < 1


def test_policies_draw_all_operations_with_equal_chances():
    for policy in (
        Policy.rand_augment(draws(4200), 15, 2),
        Policy.trivial_augment(draws(4200), 1.0),
    ):
        counts = torch.bincount(policy.kinds.flatten(), minlength=len(POLICY)).float()
        assert bool(((counts / counts.mean() - 1).abs() < 0.25).all())
        rotations = policy.strength[policy.kinds == POLICY.index("rotate")]
        assert abs((rotations > 0).float().mean() - 0.5) < 0.15
    few = Policy.trivial_augment(draws(4200), 0.25)
    assert abs((few.kinds > 0).float().mean() - 0.25 * 13 / 14) < 0.03
    strong = Policy.rand_augment(draws(200), 30, 1)
    assert float(strong.strength[strong.kinds == POLICY.index("rotate")].abs().max()) == 30


OPS = {"random_resized_crop": 0.3, "flip": 0.5, "color_jitter": 0.4, "rand_augment": 9}


@pytest.mark.parametrize("ops", [OPS, {"trivial_augment": 1.0}, {"rotate": 20.0}])
def test_an_image_does_not_depend_on_its_batch(ops):
    raw = (images() * 255).to(torch.uint8)
    preprocess = Preprocess((3, SIDE, SIDE), "half", size=28, resize=SIDE)
    whole = Augment(ops).of_raw(raw, preprocess, draws())
    assert whole.shape == (N, 3, 28, 28)
    alone = Draws(0, "source", torch.zeros(1, dtype=torch.int64), torch.tensor([4]))
    torch.testing.assert_close(
        Augment(ops).of_raw(raw[4:5], preprocess, alone), whole[4:5], atol=1e-5, rtol=0
    )
    assert not torch.allclose(whole, preprocess(raw), atol=0.01)


def test_without_augmentation_the_centre_is_seen():
    raw = (images() * 255).to(torch.uint8)
    preprocess = Preprocess((3, SIDE, SIDE), "half", size=28, resize=SIDE)
    cut = F.center_crop(raw, [28, 28])
    assert torch.equal(preprocess(raw), Preprocess((3, 28, 28), "half")(cut))
    assert torch.equal(centre(raw, 27), F.center_crop(raw, [27, 27]))
    again = Preprocess.from_spec(preprocess.spec())
    assert torch.equal(again(raw), preprocess(raw))
    assert again.raw_shape == (3, SIDE, SIDE)
    moved = Augment({"rotate": 1e-4}).of_raw(raw, preprocess, draws())
    torch.testing.assert_close(moved, preprocess(raw), atol=1e-3, rtol=0)


def test_mistakes():
    with pytest.raises(ConfigError, match=r"at least data\.size=28"):
        Preprocess((3, 28, 28), "half", resize=20)
    with pytest.raises(ConfigError, match="rand_augment_ops needs rand_augment"):
        Augment({"rand_augment_ops": 3})
    with pytest.raises(ConfigError, match="features know only"):
        Augment({"color_jitter": 0.1})(torch.zeros(2, 5), draws(2))
