"""How many images an evaluation takes at once."""

import pytest

from tlrun.data.pipeline.streams import images_per_pass


@pytest.mark.parametrize(
    ("shape", "images"),
    [
        ((3, 28, 28), 1000),
        ((3, 64, 64), 1000),
        ((3, 128, 128), 250),
        ((3, 224, 224), 81),
        ((3, 1024, 1024), 32),
        ((512,), 1000),
        ((1280, 4, 4), 600),
        ((112, 8, 8), 1000),
    ],
)
def test_larger_images_come_in_smaller_batches(shape, images):
    assert images_per_pass(1000, shape) == images


def test_fewer_than_32_stay_as_asked():
    assert images_per_pass(8, (3, 1024, 1024)) == 8
