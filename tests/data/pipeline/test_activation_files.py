"""Activations that other runs find on the disk: whole files, bounded, and never trusted blindly."""

import os

import pytest
import torch

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline import activations
from tlrun.data.pipeline.activation_files import ActivationFiles, digest
from tlrun.data.pipeline.activations import Activations


@pytest.fixture
def files(tmp_path, monkeypatch) -> ActivationFiles:
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path))
    monkeypatch.setattr(activations, "WORTH_A_FILE", 0.0)
    return ActivationFiles("net", limit=1e6)


def images(count: int = 7) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, 4, 4), dtype=torch.uint8, generator=generator)
    return ImageSet("images", pixels)


class Counted:
    """Stands for a frozen net."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, x):
        self.seen += len(x)
        return (x * 2).contiguous(memory_format=torch.channels_last)


def kept(net, files, batch_size=3) -> Activations:
    made = Activations(
        net,
        lambda raw: raw.float(),
        torch.device("cpu"),
        batch_size=batch_size,
        bytes_each=192,
        limit=1e9,
        files=files,
    )
    made.admit({"images": images()})
    return made


def read(made: Activations) -> torch.Tensor:
    examples = made.admitted[0].examples
    return made.of(examples).read(torch.arange(len(examples)))


def test_another_run_finds_them(files):
    first, second = Counted(), Counted()
    a, b = read(kept(first, files)), read(kept(second, files))
    assert (first.seen, second.seen) == (7, 0)
    assert torch.equal(a, b)
    assert torch.equal(a, images().read(torch.arange(7)).float() * 2)
    assert a.is_contiguous(memory_format=torch.channels_last)
    assert b.is_contiguous(memory_format=torch.channels_last)


def test_another_net_or_batch_size_does_not(files):
    read(kept(Counted(), files))
    other, larger = Counted(), Counted()
    read(kept(other, ActivationFiles("other", 1e6)))
    read(kept(larger, files, batch_size=4))
    assert (other.seen, larger.seen) == (7, 7)


def test_a_damaged_file_is_computed_again(files):
    read(kept(Counted(), files))
    (path,) = files.folder.glob("*.pt")
    path.write_bytes(path.read_bytes()[:100])
    net = Counted()
    read(kept(net, files))
    assert net.seen == 7
    assert files.read(path, 7) is not None
    assert files.read(path, 8) is None


def test_the_folder_holds_no_more_than_its_limit(files):
    files.limit = 5000
    for number in range(4):
        path = files.path(number)
        files.write(path, torch.zeros(250), channels_last=False)  # 1 kB, some more with its frame
        os.utime(path, (number, number))
    assert files.path(3).is_file()
    assert not files.path(0).is_file()
    assert sum(path.stat().st_size for path in files.folder.iterdir()) <= 5000
    files.write(files.path(9), torch.zeros(5000), channels_last=False)
    assert not files.path(9).exists()


def test_what_is_read_stays_though_another_run_removes_its_file(files):
    path, data = files.path("mine"), torch.arange(250.0)
    files.write(path, data, channels_last=False)
    found, _ = files.read(path, 250)
    files.limit = 2000
    files.write(files.path("another's"), torch.zeros(250), channels_last=False)
    assert not path.exists()
    assert torch.equal(found, data)


def test_a_folder_that_cannot_be_written_is_no_fault(files, monkeypatch):
    files.folder = files.folder.parent / "file" / "below"
    files.folder.parent.write_text("no folder")
    net = Counted()
    assert len(read(kept(net, files))) == 7


def test_a_digest_tells_shape_type_and_bytes_apart():
    zeros = torch.zeros(4)
    others = [torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), torch.ones(4), torch.zeros(5)]
    assert len({digest(value) for value in (zeros, *others)}) == 5
    assert digest(zeros, "a") != digest(zeros, "b")
    assert digest(torch.zeros(3, dtype=torch.bfloat16), torch.zeros(()))
