"""The floor of every asyncio client: the star of `benchmarks/floor.c`, its members on uvloop.

The server is that of `floor`. A member is the least that a client with an event loop can be: one protocol, a future for
the call that waits, one write for each call. No encoding, no deadlines, no sessions, no tags, one call at a time. What
this takes more than `floor` is what an event loop costs, in whichever library.
"""

import asyncio
import pickle
import struct
from collections import deque
from importlib.metadata import version
from typing import cast

from benchmarks.contestants.aiopg_async import new_uvloop
from benchmarks.contestants.base import AwaitableContestant, Seat
from benchmarks.contestants.floor import BARRIER, BROADCAST, GATHER, HELLO, MESSAGE, FloorError, FloorServer

HEAD = struct.Struct("=HHI")
"""Kind, peer, length: as in floor.c."""


class _Member(asyncio.Protocol):
    """One rank's connection, and its operations. All ranks give objects of one length to an all_gather."""

    def __init__(self, rank: int, world_size: int) -> None:
        self._rank = rank
        self._world_size = world_size
        self._read = bytearray()
        self._bodies: dict[int, deque[bytes]] = {kind: deque() for kind in (BARRIER, GATHER, BROADCAST, MESSAGE)}
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(HEAD.pack(HELLO, self._rank, 0))

    def data_received(self, data: bytes) -> None:
        self._read += data
        start = 0
        while len(self._read) - start >= HEAD.size:
            kind, _, length = HEAD.unpack_from(self._read, start)
            end = start + HEAD.size + length
            if end > len(self._read):
                break
            self._bodies[kind].append(bytes(self._read[start + HEAD.size : end]))
            start = end
        del self._read[:start]
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(FloorError("the server ended"))

    def _give(self, kind: int, peer: int, body: bytes) -> None:
        self._transport.write(HEAD.pack(kind, peer, len(body)) + body)

    async def _take(self, kind: int) -> bytes:
        bodies = self._bodies[kind]
        while not bodies:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return bodies.popleft()

    async def released(self) -> None:
        """Wait until every rank has said HELLO."""
        await self._take(BARRIER)

    async def barrier(self) -> None:
        self._give(BARRIER, 0, b"")
        await self._take(BARRIER)

    async def all_gather(self, data: bytes) -> list[bytes]:
        self._give(GATHER, 0, data)
        joined = await self._take(GATHER)
        size = len(joined) // self._world_size
        return [joined[start : start + size] for start in range(0, len(joined), size)]

    async def broadcast(self, data: bytes | None, src: int) -> bytes:
        if data is None or self._rank != src:
            return await self._take(BROADCAST)
        self._give(BROADCAST, 0, data)
        return data

    async def send(self, data: bytes, dst: int) -> None:
        self._give(MESSAGE, dst, data)

    async def recv(self, src: int) -> bytes:
        return await self._take(MESSAGE)

    def leave(self) -> None:
        self._transport.close()


class OnUvloop(AwaitableContestant):
    loop_factory = staticmethod(new_uvloop)

    def __init__(self) -> None:
        self._member: _Member | None = None
        self._server: FloorServer | None = None

    def versions(self) -> dict[str, str]:
        return {"uvloop": version("uvloop")}

    def payload(self, rank: int) -> bytes:
        return pickle.dumps(super().payload(rank))

    async def form(self, seat: Seat) -> _Member:
        self._server = FloorServer(seat)
        loop = asyncio.get_running_loop()
        _, member = await loop.create_connection(lambda: _Member(seat.rank, seat.world_size), seat.host, seat.port)
        await member.released()
        self._member = member
        return member

    async def close(self) -> None:
        if self._member is not None:
            self._member.leave()
            self._member = None
        if self._server is not None:
            await asyncio.to_thread(self._server.wait)
            self._server = None
