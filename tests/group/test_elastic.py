"""Groups of whoever comes, and anew of those who are left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiopg import (
    AsyncStatelessGroup,
    AsyncStore,
    CodecError,
    GroupAbortedError,
    GroupClosedError,
    GroupTimeoutError,
    MsgpackCodec,
    Outcome,
    PayloadTooLargeError,
    PeerLostError,
    StoreServer,
    UsageError,
)
from aiopg.testing import FaultProxy

from .conftest import Meeting

LONG = 20.0


async def come(
    meeting: Meeting, number: int, least: int, most: int | None = None, **options: Any
) -> AsyncStatelessGroup:
    """One that comes; it says its number of itself."""
    options = {"timeout": LONG, "last_call": 0.1, "metadata": {"number": number}, **options}
    group = await AsyncStatelessGroup.rendezvous(meeting.url, least, most, **options)
    meeting._groups.append(group)
    return group


async def form(meeting: Meeting, count: int, **options: Any) -> list[AsyncStatelessGroup]:
    """A group of as many as may be, by rank."""
    groups = await asyncio.gather(*(come(meeting, number, 1, count, **options) for number in range(count)))
    return sorted(groups, key=lambda group: group.rank)


async def somebody_waits(meeting: Meeting) -> None:
    """Return when somebody waits in a lobby."""
    async with await AsyncStore.connect(meeting.url) as store, asyncio.timeout(LONG):
        while not (await store.link.status())["lobbies"]:
            pass  # the answer took its time


async def test_ranks_and_what_all_said_of_themselves(meeting: Meeting) -> None:
    """Every rank has one, 0 to world_size - 1, and all know the same of each other."""
    groups = await form(meeting, 3)
    assert [group.rank for group in groups] == [0, 1, 2]
    assert {group.world_size for group in groups} == {3}
    said = groups[0].metadata
    assert sorted(one["number"] for one in said) == [0, 1, 2]
    assert all(group.metadata == said for group in groups)
    gathered = await asyncio.gather(*(group.all_gather(group.rank) for group in groups))
    assert gathered == [[0, 1, 2]] * 3


async def test_enough_do_not_wait_for_ever(meeting: Meeting) -> None:
    """Two of at most five form after the last call."""
    groups = await asyncio.gather(*(come(meeting, number, 2, 5) for number in range(2)))
    assert {group.world_size for group in groups} == {2}


async def test_too_few_are_told_how_many_are_missing(meeting: Meeting) -> None:
    """At the timeout, and it leaves no trace: the next two form without it."""
    with pytest.raises(GroupTimeoutError, match="rendezvous") as caught:
        await come(meeting, 9, 2, timeout=0.2)
    assert (caught.value.arrived, caught.value.missing) == ((0,), (1,))
    groups = await asyncio.gather(*(come(meeting, number, 2) for number in range(2)))
    assert sorted(one["number"] for one in groups[0].metadata) == [0, 1]


async def test_who_is_cancelled_leaves_no_trace(meeting: Meeting) -> None:
    """The group forms of the others."""
    task = asyncio.create_task(come(meeting, 9, 2))
    await somebody_waits(meeting)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    groups = await asyncio.gather(*(come(meeting, number, 2) for number in range(2)))
    assert sorted(one["number"] for one in groups[0].metadata) == [0, 1]


async def test_the_survivors_go_on(meeting: Meeting) -> None:
    """One of four is gone: the others see it, form anew in the order of their ranks, and work."""
    groups = await form(meeting, 4)
    barrier = [asyncio.create_task(groups[rank].barrier(timeout=LONG)) for rank in (0, 2, 3)]
    await groups[1].close()
    for error in await asyncio.gather(*barrier, return_exceptions=True):
        assert isinstance(error, PeerLostError)
        assert error.ranks == (1,)
    left = [groups[0], groups[2], groups[3]]
    anew = await asyncio.gather(*(group.reform(metadata=group.rank) for group in left))
    meeting._groups += anew
    assert [(group.rank, group.world_size, group.name) for group in anew] == [(rank, 3, "default") for rank in range(3)]
    assert {group.metadata for group in anew} == {(0, 2, 3)}
    assert await asyncio.gather(*(group.all_gather(group.rank) for group in anew)) == [[0, 1, 2]] * 3
    with pytest.raises(GroupClosedError):
        await left[0].barrier()


async def test_a_group_of_fixed_ranks_forms_anew_too(meeting: Meeting) -> None:
    """However it was made; also after an abort, and one that is lost while the others wait is not waited for."""
    groups = await meeting.form(3)
    await groups[0].abort("enough")
    with pytest.raises(GroupAbortedError):
        await groups[1].barrier()
    anew = [asyncio.create_task(groups[rank].reform()) for rank in (0, 2)]
    await asyncio.sleep(0)
    await groups[1].close()
    meeting._groups += (made := await asyncio.gather(*anew))
    assert [(group.rank, group.world_size) for group in made] == [(0, 2), (1, 2)]
    await asyncio.gather(*(group.barrier(timeout=LONG) for group in made))


async def test_a_member_that_does_not_come_is_named(meeting: Meeting) -> None:
    """The call is taken back; when it comes, they form."""
    groups = await meeting.form(3)
    with pytest.raises(GroupTimeoutError, match="reform") as caught:
        await groups[1].reform(timeout=0.2)
    assert (caught.value.arrived, caught.value.missing) == ((1,), (0, 2))
    await asyncio.gather(*(group.barrier(timeout=LONG) for group in groups))  # it is as it was
    meeting._groups += (made := await asyncio.gather(*(group.reform() for group in groups)))
    assert {group.world_size for group in made} == {3}


async def test_newcomers_are_heard_of_and_let_in(meeting: Meeting) -> None:
    """They wait until the members form anew, and come behind them."""
    groups = await form(meeting, 2)
    await groups[1].close()

    async def heard() -> str:
        async for event in groups[0].events():
            if event.what == "waiting":
                assert event.rank == -1
                return event.text
        raise AssertionError("the group ended")

    newcomer = asyncio.create_task(come(meeting, 7, 1, 2))
    async with asyncio.timeout(LONG):
        assert "pid" in await heard()
    assert not newcomer.done()
    anew = await groups[0].reform(metadata={"number": 0})
    meeting._groups.append(anew)
    joined = await newcomer
    assert (anew.rank, joined.rank, joined.world_size) == (0, 1, 2)
    assert joined.metadata == ({"number": 0}, {"number": 7})


async def test_what_makes_no_sense_is_said_at_once(meeting: Meeting) -> None:
    """With the value that is wrong; the group stays usable."""
    rendezvous = AsyncStatelessGroup.rendezvous
    for sizes in ((0, 1), (3, 2), (1, 20_000)):
        with pytest.raises(ValueError, match="min_size"):
            await rendezvous(meeting.url, *sizes)
    with pytest.raises(TypeError, match="max_size"):
        await rendezvous(meeting.url, 1, 2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="last_call"):
        await rendezvous(meeting.url, 1, last_call=-1)
    with pytest.raises(CodecError):
        await rendezvous(meeting.url, 1, metadata=object())
    with pytest.raises(PayloadTooLargeError):
        await rendezvous(meeting.url, 1, metadata=b"x" * 5000)
    other = asyncio.create_task(come(meeting, 0, 2, 3))
    await somebody_waits(meeting)
    with pytest.raises(UsageError, match="min_size 2 and max_size 3, not 2 and 4"):
        await rendezvous(meeting.url, 2, 4)
    await come(meeting, 1, 2, 3)
    await other


class Choosy(MsgpackCodec):
    """Cannot read what the others say."""

    def decode(self, payload: Any) -> Any:
        raise CodecError("obj", "str", "it is not for me")


async def test_who_cannot_read_what_the_others_say_has_no_place(meeting: Meeting) -> None:
    """It raises, and the others see it gone; its old group can be closed."""
    groups = await meeting.form(2)
    groups[1]._codec = Choosy()
    anew, error = await asyncio.gather(*(group.reform() for group in groups), return_exceptions=True)
    assert isinstance(error, CodecError)
    assert isinstance(anew, AsyncStatelessGroup)
    meeting._groups.append(anew)
    with pytest.raises(PeerLostError) as caught:
        await anew.barrier(timeout=LONG)
    assert caught.value.ranks == (1,)
    with pytest.raises(PeerLostError):
        await groups[1].barrier(timeout=LONG)


async def test_a_group_that_was_not_joined_cannot_form_anew(meeting: Meeting) -> None:
    """Nor can one that was closed."""
    (group,) = await meeting.form(1)
    await group.close()
    with pytest.raises(GroupClosedError):
        await group.reform()


async def test_a_member_whose_connection_is_broken_is_waited_for(no_task_left: None) -> None:
    """It is no lost one: it comes again, and has its place."""
    async with StoreServer() as server, FaultProxy(server.address, seed=3) as proxy:
        a, b = await asyncio.gather(
            *(
                AsyncStatelessGroup.connect(address, rank=rank, world_size=2, store_timeout=LONG)
                for rank, address in enumerate((server.address, proxy.address))
            )
        )
        proxy.refuse()
        proxy.cut()
        first = asyncio.ensure_future(a.reform())
        with pytest.raises(GroupTimeoutError) as caught:
            await b.reform(timeout=0.2)
        assert caught.value.outcome is Outcome.UNKNOWN
        assert not first.done()
        proxy.accept()
        anew = await asyncio.gather(first, b.reform())
        assert [(group.rank, group.world_size) for group in anew] == [(0, 2), (1, 2)]
        await asyncio.gather(*(group.barrier(timeout=LONG) for group in anew))
        await asyncio.gather(*(group.close() for group in anew))
