import threading

import pytest
import torch

from helpers.data_files import write_image
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.pixels import FilePixels
from tlrun.data.pipeline import prefetch
from tlrun.data.pipeline.prefetch import AHEAD, Prefetch, auto_workers
from tlrun.errors import DataError


class Counting(ImageSet):
    """Remembers which images were read, and in which threads."""

    def __init__(self, count: int) -> None:
        super().__init__("counting", torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1))
        self.seen: list[int] = []
        self.threads: set[str] = set()

    def read(self, index):
        self.seen += index.tolist()
        self.threads.add(threading.current_thread().name)
        return super().read(index)


def steps(count: int, size: int = 20):
    return lambda k: torch.arange(k * size, (k + 1) * size) if k < count else None


def test_batches_come_in_order_and_are_read_once():
    examples = Counting(100)
    ahead = Prefetch(examples, steps(5), 2)
    whole = torch.cat([ahead.read(k) for k in range(5)])
    assert torch.equal(whole, examples.data)
    assert sorted(examples.seen) == list(range(100))
    assert ahead.pending == {}
    assert all(name.startswith("decode") for name in examples.threads)


def test_the_next_batches_are_begun_and_no_more():
    ahead = Prefetch(Counting(1000), steps(50), 1)
    ahead.read(3)
    assert sorted(ahead.pending) == [4, 4 + AHEAD - 1]


def test_a_jump_begins_anew():
    examples = Counting(1000)
    ahead = Prefetch(examples, steps(50), 1)
    ahead.read(3)
    assert ahead.read(30).flatten().tolist() == [(600 + i) % 256 for i in range(20)]
    assert sorted(ahead.pending) == [31, 32]


def test_a_damaged_file_ends_the_step_by_its_name(tmp_path):
    paths = [write_image(tmp_path / f"{i}.png", i, "L", (8, 8)) for i in range(4)]
    paths[2].write_bytes(b"no image")
    pixels = FilePixels(paths, [str(i) for i in range(4)], (1, 8, 8), "squash")
    ahead = Prefetch(ImageSet("files", pixels), steps(1, 4), 2)
    with pytest.raises(DataError, match=r"2\.png"):
        ahead.read(0)


@pytest.mark.parametrize(("here", "processes", "threads"), [(2, 1, 2), (2, 4, 1), (96, 1, 16)])
def test_as_many_threads_as_cores(monkeypatch, here, processes, threads):
    monkeypatch.setattr(prefetch, "cores", lambda: here)
    assert auto_workers(processes) == threads
