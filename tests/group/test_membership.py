"""Promises 5, 8 and 9: what becomes of members is told, a seat has one holder, and limits are clear errors."""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
import pytest_asyncio

from aiopg import (
    AsyncStatelessGroup,
    FencedError,
    GroupAbortedError,
    Limits,
    MemberEvent,
    PeerLostError,
    RankConflictError,
    StoreFullError,
    StoreServer,
)
from aiopg.stores import StoreLink, open_link
from aiopg.stores.memory import MemoryHub, MemoryLink

from .conftest import Meeting, all_ranks

LONG = 20.0
"""Seconds that nothing here takes unless it is broken."""


async def listen(group: AsyncStatelessGroup, count: int) -> list[MemberEvent]:
    """The first `count` events that a new iteration hears."""
    heard: list[MemberEvent] = []
    async with asyncio.timeout(LONG), aclosing(group.events()) as events:
        async for event in events:
            heard.append(event)
            if len(heard) == count:
                break
    return heard


def short(events: list[MemberEvent]) -> list[tuple[str, int]]:
    """What happened to whom."""
    return [(event.what, event.rank) for event in events]


# -------------------------------------------------------------------------------------------------------- events


async def test_events_are_told_from_the_beginning_in_order_and_once(meeting: Meeting) -> None:
    """joined, left, lost, aborted: as they happen to one iteration, and all at once to one that begins later."""
    groups = await meeting.form(4)
    hears = asyncio.ensure_future(listen(groups[0], 7))
    await groups[2].close()
    await groups[3].store.link.close()  # without leaving the group
    with pytest.raises(PeerLostError):
        await groups[0].recv(3)
    await groups[1].abort("no more")
    heard = await hears
    assert sorted(short(heard[:4])) == [("joined", rank) for rank in range(4)]
    assert short(heard[4:]) == [("left", 2), ("lost", 3), ("aborted", 1)]
    assert heard[6].text == "no more"
    assert all(event.text for event in heard)
    assert await listen(groups[1], 7) == heard


async def test_events_end_with_the_group_and_lose_nothing_when_cancelled(meeting: Meeting) -> None:
    """close() ends an iteration that waits; a cancelled one is replaced by another, which hears everything."""
    groups = await meeting.form(2)
    heard: list[MemberEvent] = []

    async def follow() -> None:
        async with aclosing(groups[0].events()) as events:
            async for event in events:
                heard.append(event)

    first = asyncio.ensure_future(follow())
    await listen(groups[0], 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    heard.clear()
    second = asyncio.ensure_future(follow())
    await groups[1].close()
    assert short(await listen(groups[0], 3))[2:] == [("left", 1)]
    await groups[0].close()
    async with asyncio.timeout(LONG):
        await second
    assert short(heard)[2:] == [("left", 1)]


# -------------------------------------------------------------------------------------------------------- abort


async def test_an_exception_that_leaves_the_block_aborts_for_all(meeting: Meeting) -> None:
    """Every call of every other rank, waiting or later, raises GroupAbortedError with the exception's type and text."""
    groups = await meeting.form(3)

    async def fails(group: AsyncStatelessGroup) -> None:
        async with group:
            raise KeyError("weights")

    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: groups[0].barrier(),
        lambda: groups[0].recv(2, tag="x"),
        lambda: groups[2].all_gather(1, tag="y"),
    ]
    waits = [asyncio.ensure_future(call()) for call in calls]
    await asyncio.gather(
        groups[0].store.link.status(), groups[2].store.link.status()
    )  # by now the store has those calls
    with pytest.raises(KeyError):
        await fails(groups[1])
    for call in [*waits, groups[0].send(1, 2), groups[2].barrier()]:
        async with asyncio.timeout(LONG):
            with pytest.raises(GroupAbortedError) as caught:
                await call
        assert (caught.value.origin, caught.value.reason) == (1, "KeyError: 'weights'")


async def test_leaving_the_block_in_peace_aborts_nothing(meeting: Meeting) -> None:
    """The others are told that the rank left."""
    groups = await meeting.form(2)
    async with groups[1]:
        pass
    assert short(await listen(groups[0], 3))[2:] == [("left", 1)]


async def test_an_abort_is_not_aborted_again_by_those_who_hear_of_it(meeting: Meeting) -> None:
    """GroupAbortedError that leaves a block tells nothing new: the first origin is the one that all see."""
    groups = await meeting.form(3)

    async def member(group: AsyncStatelessGroup) -> None:
        async with group:
            if group.rank == 2:
                raise OSError("disk")
            await group.barrier()

    results = await asyncio.gather(*(member(group) for group in groups), return_exceptions=True)
    assert isinstance(results[2], OSError)
    for result in results[:2]:
        assert isinstance(result, GroupAbortedError)
        assert (result.origin, result.reason) == (2, "OSError: disk")


# --------------------------------------------------------------------------------------------------------- seats


async def test_a_takeover_fences_the_holder_and_begins_the_next_life(meeting: Meeting) -> None:
    """The holder's waiting and later calls raise FencedError, others' PeerLostError; then all meet in a new life."""
    groups = await meeting.form(3)
    held = asyncio.ensure_future(groups[1].recv(0))
    other = asyncio.ensure_future(groups[0].recv(1))
    await asyncio.gather(groups[0].store.link.status(), groups[1].store.link.status())
    newcomer = asyncio.ensure_future(meeting.connect(1, 3, takeover=True))
    async with asyncio.timeout(LONG):
        with pytest.raises(FencedError) as fenced:
            await held
        with pytest.raises(PeerLostError) as lost:
            await other
    assert (fenced.value.group, fenced.value.rank) == ("default", 1)
    assert lost.value.ranks == (1,)
    assert "taken over" in lost.value.reason
    later: list[Callable[[], Awaitable[Any]]] = [
        lambda: groups[1].barrier(), lambda: groups[1].send(1, 0), lambda: groups[1].recv(0),
    ]  # fmt: skip
    for call in later:
        with pytest.raises(FencedError):
            await call()
    with pytest.raises(PeerLostError):
        await groups[2].barrier()
    await all_ranks([groups[0], groups[2]], lambda group: group.close())
    again = await asyncio.gather(meeting.connect(0, 3), meeting.connect(2, 3))
    new = [again[0], await newcomer, again[1]]
    assert await all_ranks(new, lambda group: group.all_gather(group.rank)) == [[0, 1, 2]] * 3
    await groups[1].close()
    assert await all_ranks(new, lambda group: group.all_gather(group.rank)) == [[0, 1, 2]] * 3


async def test_a_takeover_of_a_seat_that_nobody_holds_is_a_join(meeting: Meeting) -> None:
    """takeover=True puts nobody out where there is nobody."""
    groups = await asyncio.gather(meeting.connect(0, 2, takeover=True), meeting.connect(1, 2, takeover=True))
    assert await all_ranks(list(groups), lambda group: group.all_gather(group.rank)) == [[0, 1]] * 2


async def test_a_takeover_while_the_group_forms_gives_the_seat_of_the_first_to_the_second(meeting: Meeting) -> None:
    """The first joiner of a rank, put out before the group was complete, raises FencedError; the group forms."""
    first = asyncio.ensure_future(meeting.connect(0, 2))
    store = await open_link(meeting.url, timeout=LONG)
    while (await store.status())["members"] != 1:
        pass
    await store.close()
    second = asyncio.ensure_future(meeting.connect(0, 2, takeover=True))
    with pytest.raises(FencedError):
        await first
    # Not before: with the first one the group would be complete, and the second would wait for the next.
    other = await meeting.connect(1, 2)
    assert await all_ranks([await second, other], lambda group: group.all_gather(group.rank)) == [[0, 1]] * 2


async def test_without_takeover_a_held_rank_is_refused(meeting: Meeting) -> None:
    """RankConflictError at once, and the holder notices nothing."""
    groups = await meeting.form(2)
    with pytest.raises(RankConflictError):
        await meeting.connect(1, 2)
    assert await all_ranks(groups, lambda group: group.all_gather(group.rank)) == [[0, 1]] * 2


@pytest.mark.parametrize("grace", [0, -1.0, math.nan, math.inf, -math.inf, 3600.1, True, "5", None])
async def test_reconnect_grace_must_make_sense(meeting: Meeting, grace: Any) -> None:
    """Over 0 and at most an hour; the error names the parameter and what was given."""
    kind = ValueError if type(grace) in (int, float) else TypeError
    connect, create = AsyncStatelessGroup.connect, AsyncStatelessGroup.create
    for call in (
        connect(meeting.url, rank=0, world_size=1, reconnect_grace=grace),
        create("127.0.0.1", 0, 0, 1, reconnect_grace=grace),
    ):
        with pytest.raises(kind, match="reconnect_grace") as caught:
            await call
        assert repr(grace) in str(caught.value)


@pytest.mark.parametrize("grace", [0.001, 1, 3600])
async def test_reconnect_grace_of_any_length_up_to_an_hour(meeting: Meeting, grace: float) -> None:
    """A group with it works."""
    group = await meeting.connect(0, 1, reconnect_grace=grace)
    await group.barrier()


# -------------------------------------------------------------------------------------------------------- limits

Opens = Callable[[], Awaitable[StoreLink]]


@pytest_asyncio.fixture(params=["native", "unix", "memory"])
async def narrow(request: pytest.FixtureRequest, tmp_path: Any, no_task_left: None) -> AsyncIterator[Any]:
    """Makes links to a store with these limits; all are closed in the end."""
    async with AsyncExitStack() as stack:

        async def limited(**bounds: int) -> Opens:
            limits = Limits(**bounds)
            if request.param == "memory":
                hub = MemoryHub(limits)

                async def open_one() -> StoreLink:
                    return MemoryLink(hub)
            else:
                path = str(tmp_path / "store") if request.param == "unix" else None
                server = await stack.enter_async_context(StoreServer(path=path, limits=limits))

                async def open_one() -> StoreLink:
                    return await open_link(server.address, timeout=LONG)

            async def opened() -> StoreLink:
                store = await open_one()
                stack.push_async_callback(store.close)
                return store

            return opened

        yield limited


async def pair(opens: Opens, name: str) -> list[AsyncStatelessGroup]:
    """A group of two on such a store."""
    groups = [AsyncStatelessGroup(rank, 2, await opens(), group=name) for rank in (0, 1)]
    await all_ranks(groups, lambda group: group.join())
    return groups


async def test_too_many_messages_are_refused_and_reading_makes_room(narrow: Any) -> None:
    """group_messages: the sender gets StoreFullError, nothing that waits is touched, and other groups go on."""
    opens = await narrow(group_messages=5)
    groups, others = await pair(opens, "full"), await pair(opens, "other")
    for number in range(5):
        await groups[0].send(number, 1, tag=number % 2)
    for _ in range(3):
        with pytest.raises(StoreFullError) as caught:
            await groups[0].send("too many", 1)
        assert (caught.value.limit, caught.value.allowed, caught.value.holder) == ("group_messages", 5, "group 'full'")
    await others[0].send("fits", 1)
    assert await groups[1].recv(0, tag=0) == 0
    await groups[0].send(5, 1)
    assert [await groups[1].recv(0) for _ in range(3)] == [2, 4, 5]
    assert [await groups[1].recv(0, tag=1) for _ in range(2)] == [1, 3]
    assert await others[1].recv(0) == "fits"
    assert await all_ranks(groups, lambda group: group.all_gather(group.rank)) == [[0, 1]] * 2


@pytest.mark.parametrize("limit", ["group_bytes", "store_bytes"])
async def test_too_many_bytes_are_refused_and_reading_makes_room(narrow: Any, limit: str) -> None:
    """The sender gets StoreFullError; when the reader has read, the same send goes through."""
    opens = await narrow(**{limit: 1_000_000})
    groups = await pair(opens, "full")
    part = bytes(400_000)
    for _ in range(2):
        await groups[0].send(part, 1)
    with pytest.raises(StoreFullError) as caught:
        await groups[0].send(part, 1)
    assert (caught.value.limit, caught.value.allowed) == (limit, 1_000_000)
    assert caught.value.holder
    await groups[0].send("a small one", 1)
    assert await groups[1].recv(0) == part
    await groups[0].send(part, 1)
    assert [await groups[1].recv(0) for _ in range(3)] == [part, "a small one", part]


async def test_what_one_group_frees_another_group_can_use(narrow: Any) -> None:
    """store_bytes is of all groups together: a group that fills it keeps the others out until it has been read."""
    opens = await narrow(store_bytes=1_000_000)
    groups, others = await pair(opens, "full"), await pair(opens, "other")
    part = bytes(300_000)
    for _ in range(3):
        await groups[0].send(part, 1)
    with pytest.raises(StoreFullError) as caught:
        await others[0].send(part, 1)
    assert (caught.value.limit, caught.value.holder) == ("store_bytes", "all groups together")
    for _ in range(3):
        assert await groups[1].recv(0) == part
    await others[0].send(part, 1)
    assert await others[1].recv(0) == part


async def test_what_a_group_that_ends_held_is_free_again(narrow: Any) -> None:
    """Messages that nobody read go with their group."""
    opens = await narrow(store_bytes=1_000_000)
    for _ in range(3):
        groups = await pair(opens, "full")
        await groups[0].send(bytes(900_000), 1)
        await all_ranks(groups, lambda group: group.close())


class Purpose(enum.IntEnum):
    """What a program may use to name its tags."""

    WEIGHTS = 7


async def test_a_tag_may_be_a_member_of_an_enum(meeting: Meeting) -> None:
    """An IntEnum's member is the number that it is, on every store: the other end may write the number."""
    groups = await meeting.form(2)
    await groups[0].send("new", 1, tag=Purpose.WEIGHTS)
    assert await groups[1].recv(0, tag=7, timeout=LONG) == "new"
    await all_ranks(groups, lambda group: group.barrier(tag=Purpose.WEIGHTS if group.rank else 7, timeout=LONG))
