"""Several processes on one or more machines: torch.distributed, gradients averaged after backward.

Why not DistributedDataParallel: a method calls sub-modules and runs as a generator, where DDP
either diverges silently or dies in `backward(inputs=...)` (docs/decisions.md, "Several devices").
"""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tlrun.errors import RunError

MEETING = 1800.0  # seconds until every process is there: some may still download


class PeerFailed(RuntimeError):
    """Another process failed before all had met; that one says why."""


@dataclass(frozen=True)
class Endpoint:
    """Where processes of several machines meet: a TCPStore, and the prefix of their keys in it."""

    host: str
    port: int
    prefix: str

    def store(self, world: int) -> dist.Store:
        """Of all processes, once they have met. Raises PeerFailed, or RunError if not all come."""
        timeout = timedelta(seconds=60)
        whole = dist.TCPStore(self.host, self.port, wait_for_workers=False, timeout=timeout)
        store = dist.PrefixStore(self.prefix, whole)
        store.add("met", 1)
        deadline = time.monotonic() + MEETING
        while (met := store.add("met", 0)) < world:
            if store.check(["failed"]):
                raise PeerFailed("another process failed")
            if time.monotonic() > deadline:
                raise RunError(f"only {met} of {world} processes came within {MEETING:.0f} s")
            time.sleep(0.05)
        return store


class Process:
    """This process among `world` equal ones; with world = 1 every method is a no-op."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world

    @classmethod
    def join(
        cls, rank: int, world: int, rendezvous: Path | Endpoint, device: torch.device
    ) -> Process:
        """Meet the other processes, at a file on one machine.

        Raises PeerFailed where one of another machine fails before.
        """
        backend = "nccl" if device.type == "cuda" else "gloo"
        if isinstance(rendezvous, Endpoint):
            if is_loopback(rendezvous.host):
                os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            store = rendezvous.store(world)
            dist.init_process_group(backend, store=store, rank=rank, world_size=world)
            return cls(rank, world)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: no host name look-ups
        dist.init_process_group(
            backend, init_method=f"file://{rendezvous.absolute()}", rank=rank, world_size=world
        )
        return cls(rank, world)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Mean of the gradients over the processes: one flat all-reduce."""
        if self.world == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in grads])
        dist.all_reduce(flat)
        flat /= self.world
        for grad, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(mean.view_as(grad))

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """The first process's values, in place."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        if self.world == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.world

    def max(self, value: int, device: torch.device) -> int:
        """The largest value over the processes: how they agree to stop at the same step."""
        if self.world == 1:
            return value
        box = torch.tensor(value, device=device)
        dist.all_reduce(box, op=dist.ReduceOp.MAX)
        return int(box)

    def gather(self, thing: Any) -> list[Any]:
        if self.world == 1:
            return [thing]
        things: list[Any] = [None] * self.world
        dist.all_gather_object(things, thing)
        return things

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()

    def leave(self) -> None:
        if self.world > 1:
            dist.destroy_process_group()


def is_loopback(host: str) -> bool:
    """Whether an address is every machine's own, so that all processes are on one."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
