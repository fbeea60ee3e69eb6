"""The store where the nodes meet: a TCPStore on node 0, as in the static rendezvous of torchrun."""

from __future__ import annotations

import errno
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist

from tlrun.errors import RunError
from tlrun.experiment.node import Node

ARRIVAL = 300.0  # seconds to wait for the other nodes
PROBE = 5.0  # seconds for a word to arrive
LOOK = 0.1  # seconds between looks


class NodeLost(RunError):
    """Another node does not answer, or not any more."""


def open_store(node: Node) -> dist.Store:
    """Node 0's: it listens at the port, unless torchrun's agent does."""
    if node.hosted:
        return connect(node, ARRIVAL)
    if not (_is_of_this_machine(node.host) or _leads_here(node)):
        raise _foreign(node)
    try:
        return dist.TCPStore(
            node.host,
            node.port,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=30),
        )
    except (dist.DistError, RuntimeError) as error:
        if "EADDRINUSE" in str(error):
            raise RunError(
                f"port {node.port} of {node.host} is in use, maybe by a second node 0: give all "
                "nodes another MASTER_PORT"
            ) from error
        raise _foreign(node) from error


def _foreign(node: Node) -> RunError:
    return RunError(
        f"cannot open {node.host}:{node.port} on node 0: MASTER_ADDR must be an address of this "
        "machine that the other nodes reach"
    )


def _is_of_this_machine(host: str) -> bool:
    """Whether a socket can be bound to it: torch's own tries would each leave a trace of C++."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM
        ):
            with suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
                return True
    except OSError:  # no such name
        return False
    return False


def _leads_here(node: Node) -> bool:
    """Whether what is sent to the address arrives, as through a service of a cluster: a word says
    that it was this process which heard it, and nothing in between."""
    word = secrets.token_bytes(16)
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        with (
            socket.create_server(("", node.port), family=family, dualstack_ipv6=dual) as server,
            socket.create_connection((node.host, node.port), timeout=PROBE) as client,
        ):
            client.sendall(word)
            server.settimeout(PROBE)
            for _ in range(10):  # other nodes may look whether this one is there
                peer, _ = server.accept()
                with peer, suppress(OSError):
                    peer.settimeout(PROBE)
                    if peer.recv(len(word)) == word:
                        return True
        return False
    except OSError as error:
        return error.errno == errno.EADDRINUSE  # which torch's store tells


def connect(node: Node, patience: float) -> dist.Store:
    """To node 0's, which may come later. A look of our own first: torch's would say each try."""
    if not wait_until(lambda: _listens(node), patience, look=0.5):
        raise NodeLost(
            f"no node 0 at {node.host}:{node.port} within {patience:.0f} s: give the same command "
            "there, and all nodes the same MASTER_ADDR and MASTER_PORT"
        )
    try:
        return dist.TCPStore(
            node.host, node.port, wait_for_workers=False, timeout=timedelta(seconds=30)
        )
    except (dist.DistError, RuntimeError) as error:
        raise NodeLost(
            f"what answers at {node.host}:{node.port} is no node 0: give all nodes the same "
            "MASTER_ADDR, its address, and a MASTER_PORT that nothing else uses there"
        ) from error


def _listens(node: Node) -> bool:
    try:
        with socket.create_connection((node.host, node.port), timeout=5):
            return True
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], seconds: float, look: float = LOOK) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(look)
    return True


@contextmanager
def node_0_answers(node: Node) -> Iterator[None]:
    """What torch says when the store is gone, in one sentence."""
    try:
        yield
    except (dist.DistError, RuntimeError, ConnectionError) as error:
        raise NodeLost(
            f"node 0 ({node.host}:{node.port}) does not answer any more; what it said is in the "
            "run.log of its run"
        ) from error
