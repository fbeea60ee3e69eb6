"""What the page shows of images: the right ones, as the net is given them, and few enough."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.toy_sets import pair_conf, sources_conf
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import Data, build_data
from tlrun.evaluate.images.by_class import CLASSES, WITHOUT, by_class
from tlrun.evaluate.images.predicted import EACH, MISTAKES, predictions
from tlrun.evaluate.images.sections import Section, Thumbnail, spread
from tlrun.evaluate.images.thumbnails import LIMIT, SIDE, boxed, thumbnails, to_images

GREY = Preprocess((1, 8, 8), "half", channels=1)


def pixels(thumbnail: Thumbnail | str) -> np.ndarray:
    data = thumbnail if isinstance(thumbnail, str) else thumbnail.data
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def data(**conf: object) -> Data:
    return build_data({**pair_conf(), **conf}, Options(seed=0))


def groups(section: Section, row: str) -> dict[str, list[np.ndarray]]:
    (found,) = (r for r in section.rows if r.title == row)
    return {group.title: [pixels(image) for image in group.images] for group in found.groups}


@pytest.mark.parametrize("mode", ["none", "half", "imagenet", "standard"])
def test_what_was_normalised_is_brought_back(mode: str) -> None:
    raw = torch.randint(0, 256, (5, 3, 9, 9), dtype=torch.uint8)
    numbers = {"mean": [0.2, 0.3, 0.4], "std": [0.1, 0.2, 0.3]} if mode == "standard" else {}
    preprocess = Preprocess((3, 9, 9), mode, **numbers)
    shown = [np.asarray(image) for image in to_images(preprocess(raw), preprocess)]
    assert np.array_equal(np.stack(shown), raw.permute(0, 2, 3, 1).numpy())


def test_brightness_that_instance_takes_away_is_not_shown() -> None:
    dark = torch.randint(0, 100, (1, 3, 9, 9), dtype=torch.uint8)
    preprocess = Preprocess((3, 9, 9), "instance")
    first, second = to_images(preprocess(torch.cat([dark, dark + 120])), preprocess)
    assert np.array_equal(np.asarray(first), np.asarray(second))
    assert abs(np.asarray(first).mean() - 127.5) < 1
    assert abs(np.asarray(first).std() - 255 / 5) < 2


def test_thumbnails_are_small() -> None:
    noise = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    preprocess = Preprocess((3, 224, 224), "imagenet")
    for data in thumbnails(preprocess(noise), preprocess):
        assert pixels(data).shape == (SIDE, SIDE, 3)
        assert len(base64.b64decode(data)) <= LIMIT


def test_boxes_are_drawn_where_they_are() -> None:
    x = GREY(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    sides = torch.tensor([[0.25, 0.5, 0.75, 1.0], [float("nan")] * 4])
    drawn, without = (pixels(d) for d in boxed(x, GREY, [(sides, "#ffffff")]))
    bright = drawn.reshape(SIDE, SIDE, -1).min(2) > 128
    rows, columns = bright.any(1).nonzero()[0], bright.any(0).nonzero()[0]
    assert (rows.min(), rows.max()) == (48, 95)
    assert (columns.min(), columns.max()) == (24, 71)
    assert without.max() < 10


def test_each_class_from_both_domains() -> None:
    pair = data()
    section = by_class(pair, seed=3, target_test=True)
    assert section is not None
    assert [row.title for row in section.rows] == ["a", "b", "c"]
    assert section.text.startswith("All 3 classes.")
    shown = groups(section, "b")
    assert list(shown) == ["source, training images", "target, test images"]
    for images, role in zip(shown.values(), ("source_train", "target_test"), strict=True):
        examples = pair.role(role)
        assert examples is not None
        assert examples.labels is not None
        own = examples.read((examples.labels == 1).nonzero().flatten())[:, 0].numpy()
        assert len(images) == 3
        assert all((own == image).all((1, 2)).any() for image in images)
    again = by_class(pair, seed=3, target_test=True)
    assert again == section
    assert by_class(pair, seed=4, target_test=True) != section


def test_statistics_tell_a_domain_that_was_read_otherwise() -> None:
    pair = data()
    target = pair.domains["target"].test
    assert target is not None
    pair.domains["target"].test = target.with_pixels(target.data // 4)
    section = by_class(pair, seed=0, target_test=True)
    assert section is not None
    said = section.text.rpartition("gets: ")[2]
    values = [float(part.split()[3].replace("−", "-")) for part in said.split(";")]
    assert abs(values[0]) < 0.1  # "source, training images: 0.01 and 0.58"
    assert -0.8 < values[1] < -0.7  # of values up to 63 of 255, as (x - 0.5) / 0.5


@pytest.mark.parametrize(
    "options", [{"target_test": False}, {"target_test": True, "withhold": True}]
)
def test_without_the_labels_of_the_target_no_class_is_told(options: dict) -> None:
    pair = data()
    if options.pop("withhold", False):
        test = pair.domains["target"].test
        assert test is not None
        pair.domains["target"].test = test.without_labels()
    section = by_class(pair, seed=0, **options)
    assert section is not None
    assert [group.title for row in section.rows[:3] for group in row.groups] == [
        "source, training images"
    ] * 3
    (last,) = section.rows[3:]
    assert last.title == "classes not shown"
    assert len(last.groups[0].images) == WITHOUT
    assert not {"a", "b", "c"} & {image.alt.rpartition(": ")[2] for image in last.groups[0].images}


def test_no_target_image_where_the_run_may_see_none() -> None:
    pair = build_data(pair_conf(), Options(seed=0, target_images="none"))
    section = by_class(pair, seed=0, target_test=False)
    assert section is not None
    assert "target" not in {g.title.split(",")[0] for row in section.rows for g in row.groups}


def test_many_classes_are_bounded_and_counted() -> None:
    classes = [f"class {k}" for k in range(1000)]
    images = torch.zeros(3000, 1, 8, 8, dtype=torch.uint8)
    pair = data()
    for domain in pair.domains.values():
        labelled = ImageSet("many", images, torch.arange(3000) % 1000, classes)
        domain.train = domain.test = labelled
    section = by_class(pair, seed=0, target_test=True)
    assert section is not None
    assert section.text.startswith(f"{CLASSES} of 1,000 classes.")
    assert len(section.rows) == CLASSES
    assert spread(range(1000), 10) == list(range(0, 1000, 100))


def test_every_source_has_its_place() -> None:
    pair = build_data(sources_conf(), Options(seed=0))
    section = by_class(pair, seed=0, target_test=True)
    assert section is not None
    titles = [group.title.split(",")[0] for group in section.rows[0].groups]
    assert titles == ["a", "b", "target"]
    assert {len(g.images) for row in section.rows for g in row.groups} == {2}


def test_of_one_set_what_is_learned_from_and_the_test() -> None:
    pair = data()
    train = pair.domains.pop("source").train
    pair.domains["target"].train = train
    section = by_class(pair, seed=0, target_test=True)
    assert section is not None
    titles = [group.title for group in section.rows[0].groups]
    assert titles == ["target, training images", "target, test images"]


def numbered(count: int) -> ImageSet:
    """Image i is all i."""
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8)
    return ImageSet("numbered", images.contiguous(), None, None)


def test_the_most_confident_mistakes_in_order() -> None:
    count = 40
    labels = torch.arange(count) % 2
    labels[5] = -1  # nobody knows it
    scores = torch.zeros(count, 2)
    scores[torch.arange(count), torch.arange(count) % 2] = 1.0
    wrong = torch.arange(0, 40, 2)
    scores[wrong] = torch.stack([torch.zeros(20), torch.arange(20) / 10], 1)  # surest: the last
    scores[0, 0] = 1.0
    section = predictions(numbered(count), scores, labels, ["cat", "dog"], GREY)
    assert section is not None
    (row,) = section.rows
    (group,) = row.groups
    shown = [int(pixels(image)[0, 0]) for image in group.images]
    assert shown == list(range(38, 38 - 2 * MISTAKES, -2))
    confidence = float(scores[38].softmax(0)[1])
    assert group.images[0].text == f"cat, taken for dog, {100 * confidence:.1f} %"
    assert "19 of 39 target test images" in section.text


def test_nothing_wrong_nothing_shown() -> None:
    scores = torch.eye(3)
    assert predictions(numbered(3), scores, torch.arange(3), "abc", GREY) is None


def test_surest_and_least_sure_where_nobody_knows() -> None:
    scores = torch.zeros(30, 4)
    scores[:20, 1] = torch.arange(20) / 10 + 1.0
    scores[20:24, 3] = torch.arange(4) + 1.0
    scores[24:, 0] = 1.0
    section = predictions(numbered(30), scores, None, "abcd", GREY)
    assert section is not None
    assert [row.title for row in section.rows] == ["a: 6", "b: 20", "d: 4"]
    ends = [[int(pixels(i)[0, 0]) for i in group.images] for group in section.rows[1].groups]
    assert ends == [[19, 18, 17], [0, 1, 2]]
    few = [[int(pixels(i)[0, 0]) for i in group.images] for group in section.rows[2].groups]
    assert few == [[23, 22, 21], [20]]  # none is among both
    assert EACH == 3
    assert "all 3 predicted classes (of 4)" in section.text
