"""A road: a plain server whose test speaks for it, a fault proxy before it, and connections through both."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aiopg.address import Address
from aiopg.testing import FaultProxy

QUIET = 0.05
"""Seconds in which what was stopped would have come."""


class Wire:
    """One end of a connection, in the hands of the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        if self.writer.transport.is_closing():
            raise ConnectionResetError  # where asyncio says nothing, and uvloop RuntimeError
        self.writer.write(data)

    async def read(self, size: int) -> bytes:
        return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """All bytes to the end of file."""
        return await self.reader.read()

    async def until_reset(self) -> bytes:
        """All bytes to the reset, which must come."""
        data = b""
        try:
            while piece := await self.reader.read(1 << 16):
                data += piece
        except ConnectionResetError:
            return data
        pytest.fail(f"an end of file came behind {data[:100]!r}, and no reset")

    async def hears_nothing(self) -> None:
        """Neither bytes nor an end come for a while."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(QUIET):
                await self.reader.read(1)

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()


async def becomes(holds: Callable[[], bool], within: float = 5.0) -> None:
    """Look at it in every pass of the loop until it holds."""
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110 -- nobody tells when it does
            await asyncio.sleep(0)


async def together(*calls: Awaitable[Any]) -> list[Any]:
    """What they give, in order; all at once."""
    return list(await asyncio.gather(*calls))


class Road:
    """A plain server, a proxy before it, and connections through both; all is closed in the end."""

    def __init__(self, proxy: FaultProxy, arrivals: asyncio.Queue[Wire]) -> None:
        self.proxy = proxy
        self.wires: list[Wire] = []
        self._arrivals = arrivals

    async def client(self) -> Wire:
        """A client's end alone."""
        address = Address.parse(self.proxy.address)
        if address.path:
            wire = Wire(*await asyncio.open_unix_connection(address.path))
        else:
            wire = Wire(*await asyncio.open_connection(address.host, address.port))
        self.wires.append(wire)
        return wire

    async def connect(self) -> tuple[Wire, Wire]:
        """Both ends of a new connection: the client's, and the target's."""
        return await self.client(), await self.arrival()

    async def arrival(self) -> Wire:
        """The target's end of the next connection."""
        wire = await self._arrivals.get()
        self.wires.append(wire)
        return wire

    async def proxy_is_rid_of_all(self) -> None:
        """Every socket of the proxy's connections gets closed by itself."""
        # Half of the time after which they would be closed in any case.
        await becomes(lambda: not self.proxy._relays, within=1.0)


def sockets() -> int:
    """How many sockets this process has open. (Their names do not stay: uvloop makes its own pair anew in each run.)"""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(descriptor))
        except FileNotFoundError:
            pass  # the one by which the directory was read
    return sum(name.startswith("socket:") for name in found)


def unused_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest_asyncio.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """A test ends with no task still running and no socket still open."""
    before = sockets()
    yield
    for _ in range(3):
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, left
    assert sockets() == before


@pytest_asyncio.fixture(params=["tcp", "unix"])
async def any_road(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Road]:
    """A road over TCP, and one over unix sockets."""
    async for road in build(tmp_path if request.param == "unix" else None):
        yield road


@pytest_asyncio.fixture
async def road() -> AsyncIterator[Road]:
    """A road over TCP."""
    async for road in build(None):
        yield road


@pytest_asyncio.fixture
async def unix_road(tmp_path: Path) -> AsyncIterator[Road]:
    """A road over unix sockets."""
    async for road in build(tmp_path):
        yield road


async def build(directory: Path | None) -> AsyncIterator[Road]:
    arrivals: asyncio.Queue[Wire] = asyncio.Queue()

    def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrivals.put_nowait(Wire(reader, writer))

    if directory is None:
        server = await asyncio.start_server(arrived, "127.0.0.1", 0)
        target, listen = f"aiopg://127.0.0.1:{server.sockets[0].getsockname()[1]}", None
    else:
        server = await asyncio.start_unix_server(arrived, str(directory / "target"))
        target, listen = f"unix://{directory}/target", f"unix://{directory}/proxy"
    async with FaultProxy(target, seed=1, listen=listen) as proxy:
        road = Road(proxy, arrivals)
        yield road
    server.close()
    while not arrivals.empty():
        road.wires.append(arrivals.get_nowait())
    for wire in road.wires:
        wire.writer.transport.abort()
    await server.wait_closed()
