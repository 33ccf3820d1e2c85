"""The road to a store, on both event loops: whatever becomes of a connection, nothing of it is left open."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
import pytest_asyncio

from aiopg.address import Address
from aiopg.client import take_road
from aiopg.client._road import take_shortcut
from aiopg.liveness import CLIENT_USER_TIMEOUT, KEEPALIVE_IDLE

from .conftest import passes, sockets

W = TypeVar("W", bound="Waiting")

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: what is closed so ends with a reset."""


linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="counts descriptors in /proc, and names sockets without files"
)


class Waiting(asyncio.Protocol):
    """A connection that says when it begins and when it ends."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Aborting(Waiting):
    """It is lost in the moment in which it is made: before whoever asked for it has heard of it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.abort()


@pytest_asyncio.fixture(params=["tcp", "unix", pytest.param("shortcut", marks=linux_only)])
async def listening(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[socket.socket]:
    """A listening socket; the kernel takes connections for it, nobody else does."""
    if request.param == "tcp":
        sock = socket.create_server(("127.0.0.1", 0))
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "store") if request.param == "unix" else b"\0aiopg test of roads %d" % os.getpid())
        sock.listen()
    with sock:
        sock.setblocking(False)
        yield sock


def _address(listening: socket.socket) -> Address:
    name = listening.getsockname()
    return Address(path=name) if isinstance(name, str) else Address(*name)


def _take(listening: socket.socket, protocol: type[W]) -> Coroutine[Any, Any, W]:
    """The road to it, or the shortcut."""
    name = listening.getsockname()
    return take_shortcut(name, protocol) if isinstance(name, bytes) else take_road(_address(listening), protocol)


@linux_only
async def test_a_connection_lost_while_it_is_made_leaves_nothing_open(listening: socket.socket) -> None:
    """Descriptor and object go together: a socket object that outlived its descriptor would close somebody else's."""
    before = sockets()
    made = await _take(listening, Aborting)
    await made.lost.wait()
    del made
    await passes(3)
    assert sockets() == before


@linux_only
async def test_a_connection_that_is_reset_at_once_leaves_nothing_open(listening: socket.socket) -> None:
    """The same where the other end does it, as a store does that is killed in that moment."""
    loop = asyncio.get_running_loop()
    before = sockets()
    for _ in range(50):
        going = asyncio.create_task(_take(listening, Waiting))
        accepted, _ = await loop.sock_accept(listening)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        accepted.close()
        try:
            made = await going
        except OSError:
            continue
        # On a unix socket this is an end and no reset, and on TCP the options are set or not, as it comes.
        await made.lost.wait()
        del made
    del going
    await passes(3)
    assert sockets() == before


@linux_only
async def test_a_cancelled_attempt_leaves_nothing_open(listening: socket.socket) -> None:
    """Cancelled after each number of passes of the loop, until it is there before that."""
    before = sockets()
    count, done = 0, False
    while not done:
        going = asyncio.create_task(_take(listening, Waiting))
        await passes(count)
        going.cancel()
        try:
            made = await going
        except asyncio.CancelledError:
            pass
        else:
            done = True
            assert made.transport is not None
            made.transport.abort()
            await made.lost.wait()
            del made
        del going
        count += 1
        assert count < 10_000
    await passes(3)
    assert sockets() == before


async def test_the_kernel_is_asked_to_watch_the_other_end() -> None:
    """A store whose host is gone is noticed: keepalive when nothing is sent, a limit when something is."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made = await take_road(_address(listening), Waiting)
        assert made.transport is not None
        get: Callable[[int, int], int] = made.transport.get_extra_info("socket").getsockopt
        assert get(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert get(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        if sys.platform == "linux":
            assert get(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE_IDLE
            assert get(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == CLIENT_USER_TIMEOUT * 1000
        made.transport.abort()
        await made.lost.wait()


async def test_the_error_of_the_last_address_is_raised() -> None:
    """With its number, by which the client knows whether waiting may help."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = _address(listening)
    with pytest.raises(ConnectionRefusedError) as caught:
        await take_road(address, Waiting)
    assert caught.value.errno is not None
