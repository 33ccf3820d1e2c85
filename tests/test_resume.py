"""A session goes on over another connection, at whatever moment the last one ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from aiopg import AsyncStatelessGroup, GroupTimeoutError, PeerLostError, StoreLostError, StoreServer
from aiopg.address import Address
from aiopg.client import Client, take_road
from aiopg.stores.native import NativeLink
from aiopg.testing import FaultProxy

LONG = 20.0
"""Seconds that nothing here takes unless it is broken."""


def client_of(group: AsyncStatelessGroup) -> Client:
    """The group's session."""
    return cast(NativeLink, group.store.link)._client


def after_passes(count: int, call: Callable[[], object]) -> None:
    """Call it after so many passes of the loop."""
    if count == 0:
        call()
    else:
        asyncio.get_running_loop().call_soon(after_passes, count - 1, call)


@asynccontextmanager
async def pair_with_a_link_down() -> AsyncIterator[tuple[tuple[AsyncStatelessGroup, ...], FaultProxy]]:
    """A group of two, of which rank 0 has lost its connection and finds no other one until the proxy accepts it."""
    async with StoreServer() as server, FaultProxy(server.address, seed=1) as proxy:
        groups = await asyncio.gather(
            AsyncStatelessGroup.connect(proxy.address, rank=0, world_size=2, store_timeout=LONG),
            AsyncStatelessGroup.connect(server.address, rank=1, world_size=2, store_timeout=LONG),
        )
        proxy.refuse()
        proxy.cut()
        yield groups, proxy
        await asyncio.gather(*(group.close() for group in groups))


@pytest.mark.parametrize("how", ["cut", "finish"])
@pytest.mark.parametrize("passes", range(8))
async def test_a_connection_that_ends_while_it_is_being_opened_is_replaced(passes: int, how: str) -> None:
    """Whatever pass of the loop after the store's consent it ends in: the client comes again once more."""
    async with StoreServer() as server:
        group = await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1, store_timeout=LONG)
        client = client_of(group)
        take_route, cuts = client.on_route, 0

        def opened_or_closed(send: object) -> None:
            nonlocal cuts
            take_route(send)  # type: ignore[arg-type]
            connection = client._connection
            if connection is not None and cuts < 3:
                cuts += 1
                after_passes(passes, lambda: getattr(connection, how)("it ends at once"))

        client.on_route = opened_or_closed
        assert client._connection is not None
        client._connection.cut("it begins")
        async with asyncio.timeout(LONG):
            while cuts < 3:
                await group.barrier()
        await group.barrier(3.0)
        await group.close()


@pytest.mark.parametrize("passes", range(6))
async def test_a_session_that_is_lost_while_it_is_opened_is_not_left_behind(passes: int) -> None:
    """Whoever asked for it asks again and gets another one; nobody else goes on coming again for the first one."""
    spoilt = 0

    async def road(address: Address, protocol: Callable[[], Any]) -> Any:
        made = await take_road(address, protocol)
        opening = made.opening_received

        def opened(message: object) -> None:
            nonlocal spoilt
            opening(message)
            if spoilt < 2:
                spoilt += 1
                after_passes(passes, lambda: made.cut("it ends at once"))

        made.opening_received = opened
        return made

    # The proxy keeps to this road what would leave it for a unix socket (aiopg.shortcut).
    async with StoreServer() as server, FaultProxy(server.address) as proxy:
        deadline = asyncio.get_running_loop().time() + LONG
        store = await NativeLink.connect_by(Address.parse(proxy.address), deadline, grace=0.3, road=road)
        await store.status()
        await store.close()
        async with asyncio.timeout(LONG):
            while len(server._started()):  # noqa: ASYNC110 (a server tells when members leave, not sessions)
                await asyncio.sleep(0.02)
        assert spoilt >= 1
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_call_that_times_out_or_is_cancelled_while_the_link_is_down_is_taken_back() -> None:
    """When the link is up, its arrival does not count any more: numbers and messages go on as if it had not been."""
    async with pair_with_a_link_down() as (groups, proxy):
        with pytest.raises(GroupTimeoutError):
            await groups[0].all_gather("given up", timeout=0.1)
        with pytest.raises(GroupTimeoutError):
            await groups[0].send("given up too", 1, timeout=0.1)
        cancelled = asyncio.ensure_future(groups[0].barrier())
        await asyncio.sleep(0.05)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        proxy.accept()
        await groups[0].store.link.status()  # the link is up, and what was given up has been taken back
        gathers = (group.all_gather(group.rank) for group in groups)
        assert await asyncio.gather(*gathers) == [[0, 1], [0, 1]]
        await groups[0].send("again", 1)
        assert await groups[1].recv(0) == "again"
        with pytest.raises(GroupTimeoutError):
            await groups[1].recv(0, timeout=0.1)
        await asyncio.gather(*(group.barrier(LONG) for group in groups))


async def test_a_call_that_is_made_again_when_the_link_is_up_is_the_same_call() -> None:
    """Where the others wait already: they go on when it is made again."""
    async with pair_with_a_link_down() as (groups, proxy):
        waits = asyncio.ensure_future(groups[1].all_gather("one"))
        for _ in range(3):
            with pytest.raises(GroupTimeoutError):
                await groups[0].all_gather("zero", timeout=0.05)
        proxy.accept()
        assert await groups[0].all_gather("zero") == ["zero", "one"]
        assert await waits == ["zero", "one"]
        gathers = (group.all_gather(group.rank) for group in groups)
        assert await asyncio.gather(*gathers) == [[0, 1], [0, 1]]


async def test_what_was_given_up_while_the_link_is_down_does_not_end_the_wait_of_others() -> None:
    """They wait already when the link comes up: neither the arrival nor the message that was given up reaches them."""
    async with pair_with_a_link_down() as (groups, proxy):
        gathers = asyncio.ensure_future(groups[1].all_gather("one", timeout=1.0))
        receives = asyncio.ensure_future(groups[1].recv(0, timeout=1.0))
        calls = [
            asyncio.ensure_future(groups[0].all_gather("given up")),
            asyncio.ensure_future(groups[0].send("given up", 1)),
        ]
        await asyncio.wait(calls, timeout=0.05)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        proxy.accept()
        await groups[0].store.link.status()
        with pytest.raises(GroupTimeoutError) as gathered:
            await gathers
        assert gathered.value.missing == (0,)
        with pytest.raises(GroupTimeoutError):
            await receives
        await groups[0].send("another", 1)
        assert await groups[1].recv(0) == "another"
        assert await asyncio.gather(*(group.all_gather(group.rank) for group in groups)) == [[0, 1], [0, 1]]


async def test_a_session_that_finds_no_way_back_is_lost_to_its_own_calls_and_to_its_peers() -> None:
    """When reconnect_grace is over: StoreLostError for who was cut off, PeerLostError for the others; never a hang."""
    async with StoreServer() as server, FaultProxy(server.address, seed=1) as proxy:
        groups = await asyncio.gather(
            AsyncStatelessGroup.connect(proxy.address, rank=0, world_size=2, reconnect_grace=0.5),
            AsyncStatelessGroup.connect(server.address, rank=1, world_size=2),
        )
        waits = asyncio.ensure_future(groups[0].barrier(LONG))
        other = asyncio.ensure_future(groups[1].recv(0))
        await groups[0].store.link.status()
        proxy.refuse()
        proxy.cut()
        with pytest.raises(StoreLostError):
            await waits
        with pytest.raises(StoreLostError):
            await groups[0].send(1, 1)
        with pytest.raises(PeerLostError) as lost:
            await other
        assert lost.value.ranks == (0,)
        await asyncio.gather(*(group.close() for group in groups))
