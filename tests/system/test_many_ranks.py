"""A thousand ranks at one store: what they cost it, and that they all come in when they come at once."""

from __future__ import annotations

import asyncio
import math
import resource
from collections import deque
from collections.abc import Iterator

import pytest

from aiopg import Limits, StoreServer
from aiopg.outflow import PIECE_BYTES
from aiopg.server import _connection, _sessions
from aiopg.server._connection import ServerConnection
from aiopg.stores.base import Buffer, Call, Member, Needs
from aiopg.stores.native import NativeLink

from .ranks import resident_bytes, serving

PATIENCE = 50.0
IDLE_RANK_BYTES = 20 * 1024
"""Seen are 8 KiB. With a buffer for each connection it was 42."""


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Enough for both ends of a thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip(f"this system gives a process {hard} file descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def call(op: str, rank: int, seq: int = 0, group: str = "many") -> Call:
    """A call as a group makes it."""
    loop = asyncio.get_running_loop()
    return Call(op, group, rank, 0, seq, loop, loop.time(), loop.time() + PATIENCE)


async def links(url: str, count: int) -> list[NativeLink]:
    """As many sessions, all dialled at once."""
    return await asyncio.gather(*(NativeLink.connect(url, timeout=PATIENCE) for _ in range(count)))


async def team(stores: list[NativeLink], group: str = "many") -> list[Member]:
    """A group, one rank for each link."""
    size = len(stores)
    return await asyncio.gather(
        *(store.join(call("join", rank, 0, group), size, ttl=math.inf) for rank, store in enumerate(stores))
    )


async def rounds(members: list[Member], seq: int, part: bytes = b"") -> list[int]:
    """One barrier, or all_gather, of them all; how many parts each got."""
    op = "all_gather" if part else "barrier"
    parts: list[Buffer] = [part] if part else []

    async def one(rank: int, member: Member) -> int:
        return len(await member.round(call(op, rank, seq), -1, "", parts, Needs.ALL))

    return await asyncio.gather(*(one(rank, member) for rank, member in enumerate(members)))


async def close(stores: list[NativeLink]) -> None:
    """Close all links."""
    await asyncio.gather(*(store.close() for store in stores))


async def test_an_idle_rank_costs_a_store_little_memory() -> None:
    """Over what the first hundred cost, which had the store load and keep things."""
    with serving() as (url, pid):
        few = await links(url, 100)
        await rounds(await team(few, "few"), 1)
        before = resident_bytes(pid)
        many = await links(url, 600)
        members = await team(many)
        for seq in range(1, 4):
            await rounds(members, seq)
        assert await rounds(members, 4, b"sixteen bytes...") == [600] * 600
        for seq in range(5, 8):
            await rounds(members, seq)
        assert (resident_bytes(pid) - before) / len(many) < IDLE_RANK_BYTES
        await close(few + many)


@pytest.mark.parametrize("strangers", [4096, 50])
async def test_a_thousand_that_come_at_once_all_come_in(strangers: int) -> None:
    """Also where the store puts out all but 50 that have not logged in yet: they come again."""
    async with StoreServer(limits=Limits(strangers=strangers)) as server:
        stores = await links(server.address, 1000)
        assert await rounds(await team(stores), 1) == [0] * 1000
        await close(stores)
        status = server.describe()
    assert status["members"] == 0


async def test_a_large_answer_is_held_once_for_ranks_that_do_not_read() -> None:
    """A transport may keep a copy of what it has; so it has a piece, and the rest is one body for all."""
    async with StoreServer() as server:
        stores = await links(server.address, 30)
        members = await team(stores)
        answers = asyncio.ensure_future(rounds(members, 1, b"x" * 500_000))
        await asyncio.sleep(0)  # their arrivals are written
        transports = [store._client._connection._transport for store in stores if store._client._connection]
        for transport in transports:
            assert transport is not None
            transport.pause_reading()
        sessions = server._started()
        lines = [session.line for session in sessions._members.values()]
        while not all(line.streams.retained for line in lines):  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        bodies = [line.streams._outbox[-1][1:] for line in lines]
        assert all(piece is first for body in bodies for piece, first in zip(body, bodies[0], strict=True))
        waiting = [connection._transport for connection in sessions._connections if connection._outflow is not None]
        assert len(waiting) > 20, "the kernel took it all"
        for transport in waiting:
            assert transport is not None
            assert transport.get_write_buffer_size() <= PIECE_BYTES + 64 * 1024
        for transport in transports:
            assert transport is not None
            transport.resume_reading()
        assert await answers == [30] * 30
        assert all(connection._outflow is None for connection in sessions._connections)
        await close(stores)


async def test_what_a_store_looks_after_is_done_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sweep asks about every connection, and lets the loop go on in between."""
    asked: list[object] = []
    looks: list[int] = []
    twice = asyncio.Event()
    look_at = _sessions.Sessions._look_at

    def is_vanished(sock: object) -> bool:
        asked.append(sock)
        return False

    def counted(sessions: _sessions.Sessions, connections: deque[ServerConnection]) -> None:
        before = len(asked)
        look_at(sessions, connections)
        looks.append(len(asked) - before)
        if looks.count(5) >= 2:
            twice.set()

    monkeypatch.setattr(_connection, "is_vanished", is_vanished)
    monkeypatch.setattr(_sessions.Sessions, "_look_at", counted)
    monkeypatch.setattr(_sessions, "SWEEP_SECONDS", 0.2)
    monkeypatch.setattr(_sessions, "LOOKED_AT", 10)
    monkeypatch.setattr(_sessions, "LOOK_SECONDS", 0.001)
    async with StoreServer() as server:
        stores = await links(server.address, 45)
        looks.clear()
        twice.clear()
        await twice.wait()
        await close(stores)
    assert max(looks) == 10
    assert looks.count(10) >= 4


async def test_late_acknowledgements_are_all_paid() -> None:
    """Three hundred members wait in a barrier for one that is late: each is told that its arrival is there."""
    async with StoreServer() as server:
        stores = await links(server.address, 300)
        members = await team(stores)
        first = asyncio.ensure_future(rounds(members[:-1], 1))
        streams = [store._client.streams for store in stores]
        while any(each.acknowledged < each.sent for each in streams):  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        await members[-1].round(call("barrier", 299, 1), -1, "", [], Needs.ALL)
        assert await first == [0] * 299
        await close(stores)
