"""Counter-based random numbers: a draw is a hash of what it is for, so it has no hidden state.

splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014) in
int64 tensor operations, which wrap as uint64 does. The same key gives the same bits on every
device and under every version of torch, which torch.Generator does not promise.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

MASK = (1 << 64) - 1


def signed(value: int) -> int:
    """The int64 with the same 64 bits as the unsigned `value`."""
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


GOLDEN = signed(0x9E3779B97F4A7C15)
_C1 = signed(0xBF58476D1CE4E5B9)
_C2 = signed(0x94D049BB133111EB)


def shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical (zero-filling) right shift of int64 bits."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def mix(z: Tensor) -> Tensor:
    """The finaliser of splitmix64, elementwise on int64."""
    z = (z ^ shift_right(z, 30)) * _C1
    z = (z ^ shift_right(z, 27)) * _C2
    return z ^ shift_right(z, 31)


def key(*parts: object) -> int:
    """A 64-bit key (signed) of strings and numbers; the same in every process and version."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return signed(int.from_bytes(digest[:8], "little"))


def hashes(n: int, *parts: object) -> Tensor:
    """(n,) int64 hashes of the counter 0..n-1 under the key of `parts`."""
    return mix(torch.arange(1, n + 1) * GOLDEN + key(*parts))


def permutation(n: int, *parts: object) -> Tensor:
    """(n,) int64: the permutation of 0..n-1 that belongs to the key of `parts`."""
    return torch.argsort(hashes(n, *parts), stable=True)


def integers(n: int, high: int, *parts: object) -> Tensor:
    """(n,) int64 uniform in [0, high) under the key of `parts` (bias below high / 2**31)."""
    return shift_right(hashes(n, *parts), 33) % high


class Draws:
    """Random numbers that are a pure function of (seed, stream, epoch, index, name of the draw).

    epoch, index: (B,) int64. They do not depend on the composition of the batch, on workers, on
    the number of processes or on the device.
    """

    def __init__(self, seed: int, stream: str, epoch: Tensor, index: Tensor) -> None:
        base = key("draws", seed, stream)
        self.state = mix(mix(epoch * GOLDEN + base) + index * GOLDEN)

    def bits(self, name: str, count: int) -> Tensor:
        """(B, count) int64 hashes."""
        start = mix(self.state + key(name))
        counter = torch.arange(1, count + 1, device=start.device) * GOLDEN
        return mix(start[:, None] + counter)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """(B, *shape) float32 in [0, 1): the top 24 bits of each hash."""
        bits = self.bits(name, math.prod(shape))
        return (shift_right(bits, 40).to(torch.float32) * 2.0**-24).view(-1, *shape)

    def normal(self, name: str, *shape: int) -> Tensor:
        """(B, *shape) float32 standard normal (Box-Muller on 16-bit lanes, so |x| < 4.9)."""
        count = math.prod(shape)
        lanes = self.bits(name, -(-count // 4)).view(torch.int16)  # 4 lanes per hash
        u = (lanes.to(torch.float32) + 32768.5) * 2.0**-16  # in (0, 1)
        half = u.shape[1] // 2
        radius = torch.sqrt(-2.0 * torch.log(u[:, :half]))
        angle = u[:, half:] * (2 * math.pi)
        both = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], 1)
        return both[:, :count].reshape(-1, *shape)
