import pytest
import torch

from helpers.data_files import write_image
from helpers.toy_sets import COUNT as N
from helpers.toy_sets import PRE
from helpers.toy_sets import tiny_set as toy
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.pixels import FilePixels
from tlrun.data.pipeline.augment import Augment, _margin
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.data.pipeline.streams import Stream, batches
from tlrun.errors import ConfigError, DataError


def stream(examples=None, **kw):
    kw = {"batch_size": 8, "seed": 0, "preprocess": PRE, "augment": Augment({"noise": 0.1}), **kw}
    return Stream(kw.pop("name", "source"), toy() if examples is None else examples, **kw)


def test_a_batch_is_a_pure_function_of_the_step():
    forward, backward = stream(), stream()
    want = [forward.batch(k) for k in range(8)]
    for k in (7, 2, 5, 2, 0):
        got = backward.batch(k)
        assert torch.equal(got.x, want[k].x)
        assert torch.equal(got.y, want[k].y)
        assert torch.equal(got.index, want[k].index)


def test_batches_join_into_epochs_without_loss():
    s = stream()
    seen = torch.cat([s.batch(k).index for k in range(N)])  # 8 epochs of 23
    for e in range(8):
        assert sorted(seen[e * N : (e + 1) * N].tolist()) == list(range(N))
    assert seen[:N].tolist() != seen[N : 2 * N].tolist()
    assert s.steps_per_epoch == 3


def test_a_batch_larger_than_the_set_spans_epochs():
    index = stream(batch_size=50).batch(0).index
    assert torch.bincount(index, minlength=N).min() == 2


def test_order_depends_on_seed_and_name():
    a = stream().batch(0).index
    assert not torch.equal(a, stream(seed=1).batch(0).index)
    assert not torch.equal(a, stream(name="target").batch(0).index)


def test_labels_and_pixels_belong_together():
    s, examples = stream(augment=None), toy()
    b = s.batch(3)
    assert torch.equal(b.y, examples.labels[b.index])
    assert torch.equal(b.x, PRE(examples.data[b.index]))
    assert stream(toy(labels=False)).batch(0).y is None


def test_ranks_share_the_global_batch():
    whole = stream().batch(4)
    parts = [stream(rank=r, world=2).batch(4) for r in (0, 1)]
    for r in (0, 1):
        assert torch.equal(parts[r].index, whole.index[r::2])
        assert torch.equal(parts[r].x, whole.x[r::2])  # the draws too


def test_mistakes():
    with pytest.raises(ConfigError, match="divide by 3"):
        stream(world=3)
    with pytest.raises(DataError, match="no examples"):
        stream(toy().subset(torch.tensor([], dtype=torch.int64)))


def test_one_pass_in_order():
    parts = list(batches(toy(), PRE, "cpu", batch_size=10))
    assert [len(x) for x, _, _ in parts] == [10, 10, 3]
    assert torch.cat([i for _, _, i in parts]).tolist() == list(range(N))
    assert torch.equal(torch.cat([x for x, _, _ in parts]), PRE(toy().data))


@pytest.fixture
def files(tmp_path):
    paths = [write_image(tmp_path / f"{i}.png", i, "L", (8, 8)) for i in range(10)]
    names = [str(i) for i in range(10)]
    pixels = FilePixels(paths, names, (1, 8, 8), "squash")
    return ImageSet("files", pixels, torch.arange(10) % 2, "ab", pixels.paths)


def test_workers_read_the_same_batches(files):
    plain, worked = stream(files, batch_size=4), stream(files, batch_size=4, workers=1)
    try:
        for k in (0, 1, 2, 7, 8, 0):  # a jump restarts the workers
            assert torch.equal(plain.batch(k).x, worked.batch(k).x)
    finally:
        worked.close()


def test_a_pass_over_files_with_workers(files):
    plain = torch.cat([x for x, _, _ in batches(files, PRE, batch_size=4)])
    worked = torch.cat([x for x, _, _ in batches(files, PRE, batch_size=4, workers=1)])
    assert torch.equal(plain, worked)


def test_views_show_the_same_images_with_draws_of_their_own():
    weak = Augment({"noise": 0.1})
    views = {"clean": None, "weak": weak, "strong": Augment({"noise": 2.0})}
    batch = stream(views=views).batch(3)
    plain = PRE(toy().read(batch.index))
    assert torch.equal(batch.views["clean"], plain)
    assert torch.equal(batch.x, stream().batch(3).x)  # the first view is as it was without others
    assert not torch.equal(batch.views["weak"], batch.x)
    assert (batch.views["strong"] - plain).std() > 10 * (batch.views["weak"] - plain).std()
    assert torch.equal(batch.views["strong"], stream(views=views).batch(3).views["strong"])


def test_blending_lays_a_rolled_image_behind():
    behind = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    behind[0, 0, 0, 0] = 40
    backdrops = ImageSet("photos", behind)
    blended = stream(backdrops=backdrops, augment=Augment({"blend": 1.0}))
    unit = Preprocess((1, 8, 8), "none", channels=1)
    blended.preprocess = unit
    batch = blended.batch(0)
    raw = unit(toy().read(batch.index))
    away = ((batch.x - raw).abs() * 255).round()
    assert (away.flatten(1) > 0).sum(1).tolist() == [1] * 8  # one pixel each, somewhere else
    assert len({int(row.argmax()) for row in away.flatten(1)}) > 3
    plain = stream(backdrops=backdrops, augment=Augment({"blend": 1.0}), views={"clean": None})
    assert torch.equal(plain.batch(0).views["clean"], PRE(toy().read(batch.index)))
    off = stream(backdrops=backdrops, augment=Augment({"blend": 1e-9})).batch(0).x
    assert torch.equal(off, PRE(toy().read(batch.index)))


def test_blending_with_a_margin_shows_the_edge_and_never_the_centre():
    framed = torch.full((1, 1, 8, 8), 40, dtype=torch.uint8)
    framed[0, 0, 2:6, 2:6] = 200  # the object, within a frame of two pixels
    backdrops = ImageSet("photos", framed)

    def drawn(ops):
        blended = stream(backdrops=backdrops, augment=Augment(ops))
        blended.preprocess = Preprocess((1, 8, 8), "none", channels=1)
        batch = blended.batch(0)
        return (batch.x * 255).round(), toy().read(batch.index).float()

    x, raw = drawn({"blend_margin": 1.0})
    assert torch.equal(x, (raw - 40).abs())
    x, raw = drawn({"blend": 0.5, "blend_margin": 1.0})  # what is not rolled has a margin behind
    by_margin = (x == (raw - 40).abs()).flatten(1).all(1)
    assert 0 < by_margin.sum() < 8
    whole, _ = drawn({"blend": 0.5})
    assert torch.equal(whole[~by_margin], x[~by_margin])  # the draws of one change no other


def test_a_margin_is_a_strip_along_any_of_the_four_edges():
    behind = torch.zeros(1, 1, 20, 20, dtype=torch.uint8)
    behind[0, 0, :4], behind[0, 0, -4:] = 10, 20
    behind[0, 0, 4:-4, :4], behind[0, 0, 4:-4, -4:] = 30, 40
    images = behind.expand(400, -1, -1, -1)
    strips = _margin(images, torch.rand(400, 2, generator=torch.Generator().manual_seed(0)))
    assert strips.shape == images.shape
    middle = strips[:, 0, 10, 10]
    assert set(middle.tolist()) <= {10.0, 20.0, 30.0, 40.0}
    assert min(torch.bincount(middle.long(), minlength=41)[[10, 20, 30, 40]].tolist()) > 40


def test_black_and_white_comes_before_a_backdrop_and_leaves_views_alone():
    grey = torch.tensor([0, 1, 90, 255], dtype=torch.uint8).repeat(8, 1, 4, 1)
    examples = ImageSet("grey", grey, torch.zeros(8, dtype=torch.int64))
    backdrops = ImageSet("photos", torch.full((1, 1, 4, 4), 100, dtype=torch.uint8))

    def drawn(ops, **kw):
        made = stream(examples, augment=Augment(ops), **kw)
        made.preprocess = Preprocess((1, 4, 4), "none", channels=1)
        return made.batch(0)

    batch = drawn({"binarize": 1.0}, views={"clean": None})
    assert (batch.x[:, 0, 0] * 255).round().tolist() == [[0, 255, 255, 255]] * 8
    assert (batch.views["clean"][:, 0, 0] * 255).round().tolist() == [[0, 1, 90, 255]] * 8
    blended = drawn({"binarize": 1.0, "blend_margin": 1.0}, backdrops=backdrops)
    assert (blended.x[:, 0, 0] * 255).round().tolist() == [[100, 155, 155, 155]] * 8
    some = drawn({"binarize": 0.5}).x[:, 0, 0, 1] > 0.5
    assert 0 < some.sum() < 8
