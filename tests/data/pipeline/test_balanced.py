import pytest
import torch

from helpers.toy_sets import PRE
from helpers.toy_sets import tiny_set as toy
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.balanced import BalancedStream
from tlrun.errors import DataError

COUNTS = (17, 4, 9)  # many dogs, few wolves


def unequal():
    """30 images, 17, 4 and 9 of the classes, and two without a label."""
    labels = torch.cat([*(torch.full((n,), c) for c, n in enumerate(COUNTS)), torch.full((2,), -1)])
    return ImageSet("toy", toy().read(torch.arange(len(labels)) % 23), labels)


def stream(examples=None, **settings):
    settings = {"batch_size": 12, "seed": 0, "preprocess": PRE, **settings}
    return BalancedStream("source", unequal() if examples is None else examples, **settings)


def test_every_class_has_its_share_of_every_batch():
    s = stream(batch_size=8)
    for k in range(6):
        assert torch.bincount(s.batch(k).y, minlength=3).tolist() in (
            [3, 3, 2],
            [2, 3, 3],
            [3, 2, 3],
        )


def test_a_class_is_seen_whole_before_any_of_its_images_comes_again():
    s = stream()
    index = torch.cat([s.batch(k).index for k in range(17)])  # 4 of each class in a batch
    labels = unequal().labels[index]
    for c, n in enumerate(COUNTS):
        seen = index[labels == c]
        assert len(seen) == 68
        for epoch in seen[: 68 - 68 % n].reshape(-1, n):
            assert len(set(epoch.tolist())) == n
    assert 30 not in index
    assert 31 not in index


def test_a_batch_is_a_pure_function_of_the_step_and_the_seed():
    forward, backward = stream(), stream()
    want = [forward.positions(k) for k in range(8)]
    for k in (7, 2, 5, 2, 0):
        assert all(torch.equal(a, b) for a, b in zip(backward.positions(k), want[k], strict=True))
    assert not torch.equal(stream(seed=1).positions(0)[1], want[0][1])


@pytest.mark.parametrize("world", [2, 3, 6])
def test_processes_share_a_batch_and_each_has_every_class(world):
    whole = stream().positions(3)[1]
    shares = [stream(rank=rank, world=world).positions(3)[1] for rank in range(world)]
    assert sorted(torch.cat(shares).tolist()) == sorted(whole.tolist())
    labels = unequal().labels
    for share in shares:
        counts = torch.bincount(labels[share], minlength=3)
        assert counts.max() - counts.min() <= 1


def test_without_labels_there_is_nothing_to_balance():
    with pytest.raises(DataError, match="no labels to balance"):
        stream(toy(labels=False))
