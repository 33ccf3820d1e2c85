"""Sessions of a server, seen from inside."""

from __future__ import annotations

import asyncio

from aiopg import Limits, StoreServer
from aiopg._core.messages import Join
from aiopg.address import Address
from aiopg.server._member import ServerSession
from aiopg.server._sessions import Sessions


def open_session(sessions: Sessions, rank: int) -> ServerSession:
    """A member of a group, with no connection."""
    line = sessions.exchange.open(bytes((rank,)) * 16, bytes(32), 5.0, [])
    session = sessions._members[line.id] = ServerSession(line)
    join = Join(call=1, seat=1, group="g", rank=rank, world_size=3, ttl=60.0, holder=f"rank {rank}")
    sessions.message_received(session, join)
    return session


async def test_sessions_that_take_too_little_are_ended_together() -> None:
    """One that is noted twice, or that the end of another one fills up, is ended once, and no other call meets it."""
    server = StoreServer(limits=Limits(outbox_frames=1))
    sessions = server.begin()
    first, second, third = (open_session(sessions, rank) for rank in range(3))
    sessions.exchange.overfull += [first.line, second.line, second.line, first.line]
    sessions._end_overfull()
    assert list(sessions._members.values()) == [third]
    assert list(sessions.exchange.lines.values()) == [third.line]
    await server.close()


async def test_a_store_that_closes_says_nothing_to_who_has_not_been_greeted() -> None:
    """A frame in the place of the handshake would be taken for another program: whoever waits would give up."""
    server = StoreServer()
    await server.start()
    address = Address.parse(server.address)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    async with asyncio.timeout(10):
        while not server._started()._connections:  # noqa: ASYNC110 - nothing tells when it is accepted
            await asyncio.sleep(0)
        await server.close()
        assert await reader.read() == b""
    writer.close()
