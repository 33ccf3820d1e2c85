"""Bounds of a store against members who have a token: what is not tested beside the part that has the bound."""

from __future__ import annotations

import asyncio

import pytest

from aiopg import AsyncStatelessGroup, Limits, PeerLostError, StoreServer, StoreUnreachableError
from aiopg._core.messages import Join, Take
from tests.security.stranger import Stranger

MIB = 2**20


async def test_a_member_that_does_not_read_is_put_out_and_what_it_was_sent_is_let_go() -> None:
    """`output_bytes`: while others send to it what it asked for and does not take, the store keeps so much for it."""
    async with StoreServer(limits=Limits(output_bytes=8 * MIB, retained_bytes=4 * MIB)) as server:
        deaf = await (await Stranger.come(server.address)).open()
        deaf.say(Join(1, 1, "g", 1, 2, 60.0, "deaf"))
        sender = await AsyncStatelessGroup.connect(server.address, rank=0, world_size=2, group="g")
        for call in range(2, 60):
            deaf.say(Take(call, 1, 0, 0))
        async with asyncio.timeout(20):
            sent = await asyncio.gather(*(sender.send(bytes(MIB), 1) for _ in range(58)), return_exceptions=True)
        reasons = {str(error) for error in sent if isinstance(error, PeerLostError)}
        assert "does not take what is sent to it" in "".join(reasons)
        assert set(map(type, sent)) <= {type(None), PeerLostError}
        assert len(server._started()) == 1
        await sender.close()
        deaf.leave()


async def test_a_session_is_kept_for_no_longer_than_the_store_allows() -> None:
    """`grace_seconds`, whatever its member asked for."""
    async with StoreServer(limits=Limits(grace_seconds=0.2)) as server:
        gone = await (await Stranger.come(server.address)).open()
        gone.say(Join(1, 1, "g", 0, 1, 60.0, "it"))
        await gone.hear()
        gone.writer.transport.abort()
        async with asyncio.timeout(3.0):  # it asked for 5
            await server._started().vacated.wait()


async def test_past_the_limit_of_sessions_who_comes_is_told_so() -> None:
    """`sessions`: with the name of the limit; who waits until there is room comes in."""
    async with StoreServer(limits=Limits(sessions=1)) as server:
        only = await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1)
        with pytest.raises(StoreUnreachableError, match="limit sessions = 1 is reached"):
            await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1, group="late", store_timeout=0.3)
        waits = asyncio.create_task(AsyncStatelessGroup.connect(server.address, rank=0, world_size=1, group="late"))
        await only.close()
        await (await waits).close()
