"""The counter-based generator against a plain-integer splitmix64."""

import torch

from tlrun.data.pipeline import hashing

MASK = (1 << 64) - 1


def splitmix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_known_sequence_of_splitmix64():
    # the reference implementation (Vigna, prng.di.unimi.it/splitmix64.c) seeded with 1234567
    state = torch.arange(1, 4) * hashing.GOLDEN + 1234567
    got = [v & MASK for v in hashing.mix(state).tolist()]
    assert got == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_hashes_equal_integer_arithmetic():
    base = hashing.key("a", 7)
    want = [splitmix((base + i * 0x9E3779B97F4A7C15) & MASK) for i in range(1, 6)]
    assert [v & MASK for v in hashing.hashes(5, "a", 7).tolist()] == want


def test_permutation_is_one_and_depends_on_every_part_of_the_key():
    a = hashing.permutation(1000, "order", 0, "source", 0)
    assert sorted(a.tolist()) == list(range(1000))
    assert torch.equal(a, hashing.permutation(1000, "order", 0, "source", 0))
    for other in (("order", 1, "source", 0), ("order", 0, "target", 0), ("order", 0, "source", 1)):
        assert not torch.equal(a, hashing.permutation(1000, *other))


def test_parts_of_a_key_do_not_run_together():
    assert hashing.key("ab", "c") != hashing.key("a", "bc")


def test_integers_are_uniform():
    counts = torch.bincount(hashing.integers(60_000, 6, "dice"), minlength=6)
    assert (counts - 10_000).abs().max() < 450  # 5 standard deviations
