import pytest
import torch

from helpers.data_files import write_image
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.pixels import FilePixels
from tlrun.errors import DataError


def make(n=6):
    data = torch.arange(n * 3 * 4, dtype=torch.uint8).view(n, 3, 2, 2)
    names = [f"{i}.png" for i in range(n)]
    return ImageSet("toy", data, torch.arange(n) % 3, ("a", "b", "c"), names)


def test_read_and_subset_of_subset():
    toy = make()
    view = toy.subset(torch.tensor([5, 3, 1])).subset(torch.tensor([2, 0]))
    assert len(view) == 2
    assert torch.equal(view.read(torch.tensor([0, 1])), toy.data[[1, 5]])
    assert view.labels.tolist() == [1, 2]
    assert view.paths == ["1.png", "5.png"]
    assert view.data is toy.data  # a view, not a copy


def test_without_labels_holds_neither_labels_nor_classes():
    bare = make().without_labels()
    assert bare.labels is None
    assert bare.classes is None
    assert bare.class_counts() is None


def test_checksum_sees_pixels_and_order_but_no_labels():
    toy = make()
    assert toy.checksum == toy.without_labels().checksum
    assert toy.checksum == toy.subset(torch.arange(6)).checksum == toy.to("cpu").checksum
    assert toy.checksum != toy.subset(torch.tensor([1, 0, 2, 3, 4, 5])).checksum
    assert toy.label_checksum != toy.with_labels(1 - toy.labels % 2, ("a", "b")).label_checksum


@pytest.mark.parametrize(
    ("labels", "word"), [([0, 1, 2, 3, 0, 0], "run from 0 to 3"), ([0, 1], "2 labels for 6")]
)
def test_labels_that_do_not_fit(labels, word):
    with pytest.raises(DataError, match=word):
        ImageSet("toy", make().data, torch.tensor(labels), ("a", "b", "c"))


def test_files_read_like_memory(tmp_path):
    files = [write_image(tmp_path / f"{i}.png", i, size=(8, 8)) for i in range(3)]
    pixels = FilePixels(files, ["x", "y", "z"], (3, 8, 8), "squash")
    lazy = ImageSet("lazy", pixels, torch.arange(3), "abc", pixels.paths)
    one = lazy.subset(torch.tensor([2]))
    assert torch.equal(one.read(torch.tensor([0]))[0], lazy.read(torch.tensor([0, 1, 2]))[2])
    assert one.labels.tolist() == [2]
    assert not lazy.in_memory
    bare = lazy.without_labels().subset(torch.tensor([1]))
    assert bare.labels is None
    assert bare.paths is None
    assert one.paths == [str(files[2])]
    assert lazy.without_labels().checksum == lazy.checksum
