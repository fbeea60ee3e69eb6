import numpy as np
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers.data_files import write_image
from tlrun.data.examples.decode import read_image, to_mode
from tlrun.data.examples.fit import fit_arrays, fit_image
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.errors import ConfigError, DataError

RAW = torch.randint(
    0, 256, (4, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def numpy_reference(raw, mode):
    x = raw.numpy().astype(np.float64) / 255
    if mode == "half":
        return x * 2 - 1
    if mode == "imagenet":
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        return (x - mean[:, None, None]) / std[:, None, None]
    if mode == "instance":
        mean, std = x.mean((2, 3), keepdims=True), x.std((2, 3), keepdims=True)
        return (x - mean) / std
    return x


@pytest.mark.parametrize("mode", ["half", "imagenet", "instance", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_normalize_equals_numpy(mode, channels):
    raw = RAW[:, :channels]
    got = Preprocess((channels, 6, 6), mode)(raw)
    want = numpy_reference(raw.expand(-1, 3, -1, -1), mode)
    assert got.shape == (4, 3, 6, 6)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), want, atol=2e-5)


def test_both_halves_make_the_whole():
    pre = Preprocess((3, 6, 6), "half")
    torch.testing.assert_close(pre.normalize(pre.to_unit(RAW)), pre(RAW))
    torch.testing.assert_close(pre(RAW.float() / 255), pre(RAW))


def test_colour_to_grey_is_luma():
    got = Preprocess((3, 6, 6), "none", channels=1)(RAW)
    want = (RAW.double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, True) / 255
    torch.testing.assert_close(got, want.float())


def test_constant_image_under_instance_is_zero():
    assert (
        Preprocess((3, 6, 6), "instance")(torch.full((1, 3, 6, 6), 77, dtype=torch.uint8))
        .abs()
        .max()
        == 0
    )


def test_instance_does_not_depend_on_the_batch():
    pre = Preprocess((3, 6, 6), "instance")
    assert torch.equal(pre(RAW)[2:3], pre(RAW[2:3]))


@pytest.mark.parametrize("mode", ["half", "imagenet", "instance", "standard"])
def test_spec_round_trip(mode):
    mean = std = [0.2, 0.3, 0.4] if mode == "standard" else None
    pre = Preprocess((1, 6, 6), mode, mean=mean, std=std, fit="center")
    again = Preprocess.from_spec(pre.spec())
    assert torch.equal(pre(RAW), again(RAW))
    assert again.spec() == pre.spec()
    assert pre.state_dict() == {}  # it travels in label_space.json, not in the weights


def test_features():
    x = torch.randn(5, 4)
    assert torch.equal(Preprocess((4,), "none")(x), x)
    got = Preprocess((4,), "standard", mean=[1.0] * 4, std=[2.0] * 4)(x)
    torch.testing.assert_close(got, (x - 1) / 2)
    with pytest.raises(ConfigError, match="for images"):
        Preprocess((4,), "half")
    with pytest.raises(DataError, match="ready features"):
        Preprocess((4,), "none").read_files(["x.png"])


def test_mistakes():
    with pytest.raises(ConfigError, match="did you mean 'instance'"):
        Preprocess((3, 6, 6), "instanse")
    with pytest.raises(ConfigError, match="did you mean 'squash'"):
        Preprocess((3, 6, 6), fit="squosh")
    with pytest.raises(ConfigError, match="channels=2"):
        Preprocess((3, 6, 6), channels=2)
    with pytest.raises(DataError, match=r"expected images .*6, 6\), got"):
        Preprocess((3, 6, 6))(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def test_center_is_the_crop_of_mnistm_and_pads_back():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    cropped = fit_arrays(images, 28, "center")
    assert np.array_equal(cropped, images[:, :, 2:30, 2:30])
    padded = fit_arrays(cropped, 32, "center")
    assert np.array_equal(padded[:, :, 2:30, 2:30], cropped)
    assert padded[:, :, :2].sum() == 0


def test_shrink_is_20_padded_by_4():
    images = np.full((1, 1, 16, 16), 200, np.uint8)
    out = fit_arrays(images, 28, "shrink")[0, 0]
    assert (out[4:24, 4:24] == 200).all()
    assert out.sum() == 200 * 400


@pytest.mark.parametrize("fit", ["squash", "crop", "center", "shrink"])
def test_every_rule_makes_a_square_and_leaves_squares_alone(fit):
    image = Image.fromarray(np.zeros((30, 50, 3), np.uint8))
    assert fit_image(image, 28, fit).size == (28, 28)
    exact = Image.fromarray(np.zeros((28, 28, 3), np.uint8))
    assert fit_image(exact, 28, fit) is exact


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes(tmp_path, mode, channels):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    if mode == "I;16":
        Image.fromarray(np.full((9, 9), 128 * 257, np.uint16)).save(path)
    else:
        Image.new("RGB", (9, 9), (128, 128, 128)).convert(mode).save(path)
    got = read_image(path, 8, channels, "squash")
    assert got.shape == (channels, 8, 8)
    assert got.dtype == np.uint8
    if mode != "1":
        assert abs(got.astype(int) - 128).max() <= (16 if mode == "P" else 2)  # PIL dithers P


def test_transparent_pixels_become_white():
    assert np.asarray(to_mode(Image.new("RGBA", (2, 2), (0, 0, 0, 0)), 3)).min() == 255


def test_read_files_names_the_bad_file(tmp_path):
    good, bad = write_image(tmp_path / "a.jpg", 0), tmp_path / "b.png"
    bad.write_bytes(good.read_bytes()[:200])
    pre = Preprocess((3, 6, 6), fit="crop")
    assert pre.read_files([good, good]).shape == (2, 3, 6, 6)
    with pytest.raises(DataError, match=r"b\.png"):
        pre.read_files([good, bad])
    with pytest.raises(DataError, match="no image at"):
        pre.read_files([tmp_path / "c.png"])


def test_interpolation_is_kept_and_older_runs_were_bilinear(tmp_path):
    path = write_image(tmp_path / "a.png", 0)
    bicubic = Preprocess((3, 6, 6), interpolation="bicubic")
    want = read_image(path, 6, 3, "squash", interpolation="bicubic")
    assert np.array_equal(bicubic.read_files([path])[0].numpy(), want)
    spec = bicubic.spec()
    assert torch.equal(Preprocess.from_spec(spec).read_files([path])[0], torch.from_numpy(want))
    spec.pop("interpolation")
    old = Preprocess.from_spec(spec)
    assert old.interpolation == "bilinear"
    assert np.array_equal(old.read_files([path])[0].numpy(), read_image(path, 6, 3, "squash"))
    with pytest.raises(ConfigError, match=r"data\.interpolation=bicubik: did you mean 'bicubic'"):
        Preprocess((3, 6, 6), interpolation="bicubik")


@pytest.mark.parametrize("mode", ["half", "imagenet", "instance", "none"])
def test_it_works_where_the_images_are(mode):
    """On a GPU, which fake tensors stand for: training hands over images that lie there."""
    with FakeTensorMode():
        preprocess = Preprocess((1, 28, 28), normalize=mode)
        raw = torch.empty(4, 1, 28, 28, dtype=torch.uint8, device="cuda")
        assert preprocess(raw).device.type == "cuda"
