"""What becomes of calls that were cancelled, came too early, or were cut off by close()."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from aiopg import (
    AsyncStatelessGroup,
    GroupClosedError,
    GroupTimeoutError,
    Limits,
    PayloadTooLargeError,
    StoreServer,
)
from aiopg.stores import open_link
from aiopg.testing import FaultProxy

from .conftest import Meeting, all_ranks
from .test_cancel import steps


async def drained(group: AsyncStatelessGroup, src: int) -> list[Any]:
    """Everything that can be received from `src`."""
    got = []
    while True:
        try:
            got.append(await group.recv(src, timeout=0.05))
        except GroupTimeoutError:
            return got


async def test_two_sends_cancelled_together_and_sent_again_arrive_once_each(meeting: Meeting) -> None:
    """Whichever of them the receiver had taken, in whichever order they are sent again."""
    groups = await meeting.form(2)
    for turn, again in enumerate(["AB", "BA"] * 12):
        sends = {name: asyncio.ensure_future(groups[0].send((name, turn), 1)) for name in "AB"}
        await steps(1 + turn % 5)
        sends["A"].cancel()
        received = asyncio.ensure_future(groups[1].recv(0))
        await steps(turn % 7)
        sends["B"].cancel()
        await asyncio.wait(sends.values())
        for name in again:
            if sends[name].cancelled():
                await groups[0].send((name, turn), 1)
        got = [await received, *await drained(groups[1], 0)]
        assert sorted(got) == [("A", turn), ("B", turn)], (turn, again)


async def test_a_caller_that_moves_on_after_a_late_cancel_is_level_with_the_others(meeting: Meeting) -> None:
    """Cancelled too late and called with other data or as another collective, a call is the next one for all."""
    groups = await meeting.form(2)
    for count in range(12):
        late = asyncio.ensure_future(groups[0].broadcast(("old", count), 0))
        await steps(count)
        late.cancel()
        await asyncio.wait([late])
        await groups[0].broadcast(("new", count), 0)
        got = await groups[1].broadcast(None, 0)
        if got == ("old", count):
            got = await groups[1].broadcast(None, 0)
        assert got == ("new", count)
    waiting = asyncio.ensure_future(groups[0].barrier())
    await asyncio.gather(groups[1].barrier(), steps(3))
    waiting.cancel()
    assert await all_ranks(groups, lambda g: g.all_gather(g.rank)) == [[0, 1]] * 2


async def test_calls_made_before_the_join_keep_their_order(meeting: Meeting) -> None:
    """Whoever calls while others still wait for the join queues up behind them."""
    stores = [await open_link(meeting.url), await open_link(meeting.url)]
    first, second = (AsyncStatelessGroup(rank, 2, store) for rank, store in enumerate(stores))
    sends = [asyncio.ensure_future(first.send(i, 1)) for i in range(50)]
    joined = asyncio.ensure_future(second.join())
    await sends[0]
    await first.send("last", 1)
    await asyncio.gather(*sends, joined)
    assert [await second.recv(0) for _ in range(51)] == [*range(50), "last"]
    await asyncio.gather(first.close(), second.close())
    await asyncio.gather(*(store.close() for store in stores))


async def test_close_ends_a_join_and_frees_the_seat(meeting: Meeting) -> None:
    """A call that waits for the join raises GroupClosedError at close(), and the rank can be taken again."""
    store = await open_link(meeting.url)
    group = AsyncStatelessGroup(0, 2, store)
    waiting = [asyncio.ensure_future(group.all_gather("x")), asyncio.ensure_future(group.barrier())]
    await steps(10)
    await group.close()
    for error in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(error, GroupClosedError)
    groups = await meeting.form(2)
    assert await all_ranks(groups, lambda g: g.all_gather(g.rank)) == [[0, 1]] * 2
    await store.close()


async def test_what_is_too_large_together_keeps_the_group_level() -> None:
    """PayloadTooLargeError at the sender before anything is counted, and at a reader without a step lost."""
    async with StoreServer(limits=Limits(payload_bytes=100_000, group_bytes=1_000_000)) as server:
        meeting = Meeting(server.address)
        groups = await meeting.form(4)
        with pytest.raises(PayloadTooLargeError, match="100005 bytes"):
            await groups[0].all_gather(b"x" * 100_000)
        results = await asyncio.gather(*(g.gather(b"x" * 60_000, 0) for g in groups), return_exceptions=True)
        assert isinstance(results[0], PayloadTooLargeError)
        assert results[1:] == [None] * 3
        assert await all_ranks(groups, lambda g: g.all_gather(g.rank)) == [[0, 1, 2, 3]] * 4
        await meeting.close()


async def test_a_store_is_vacated_however_its_members_go() -> None:
    """A join that timed out leaves no member behind; nobody waits for it to leave."""
    async with StoreServer() as server:
        store = await open_link(server.address)
        with pytest.raises(GroupTimeoutError):
            await AsyncStatelessGroup(0, 2, store).join(timeout=0.05)
        async with asyncio.timeout(5):
            await server.wait_vacated()
        await store.close()


async def test_small_frames_are_not_held_back() -> None:
    """TCP_NODELAY is on at both ends: a frame behind an unacknowledged one leaves at once (else up to 40 ms later)."""
    listening = socket.create_server(("127.0.0.1", 0))
    async with StoreServer(listen_socket=listening) as server, FaultProxy(server.address) as proxy:
        store = await open_link(proxy.address)  # without it this would be a unix socket (aiopg.shortcut)
        links = [store._client._connection, *server._started()._connections]  # type: ignore[attr-defined]
        assert len(links) == 2
        for link in links:
            assert link._transport is not None
            sock = link._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await store.close()


async def test_a_recv_never_passes_one_that_has_its_message_and_is_cancelled_before_it_runs() -> None:
    """The message is put back at the head in that moment: what was called meanwhile gets it, and not the next one."""
    url = "memory://a recv never passes"
    pair = await asyncio.gather(*(AsyncStatelessGroup.connect(url, rank=rank, world_size=2) for rank in range(2)))
    first, second = [asyncio.ensure_future(pair[1].recv(0)) for _ in range(2)]
    await steps(5)
    sends = [asyncio.ensure_future(pair[0].send(number, 1)) for number in (1, 2)]
    await asyncio.sleep(0)  # both are on their way, and the second recv is cancelled too late
    second.cancel()
    third = asyncio.ensure_future(pair[1].recv(0))
    asyncio.get_running_loop().call_soon(first.cancel)
    assert [await third, await pair[1].recv(0)] == [1, 2]
    assert first.cancelled()
    assert second.cancelled()
    await asyncio.gather(*sends)
    await all_ranks(list(pair), lambda group: group.close())
