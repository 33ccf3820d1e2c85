"""Promises 1, 5 and 9: addressing, death, and groups as objects."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from aiopg import (
    AsyncStatelessGroup,
    DataExpiredError,
    GroupAbortedError,
    GroupClosedError,
    GroupTimeoutError,
    PeerLostError,
    RankConflictError,
    WorldSizeMismatchError,
)

from .conftest import Meeting, all_ranks
from .test_cancel import steps


async def test_two_senders_never_meet(meeting: Meeting) -> None:
    """Ranks 0 and 1 both send to rank 2, and rank 2 receives each one's own message."""
    groups = await meeting.form(3)
    await asyncio.gather(groups[0].send("from 0", 2), groups[1].send("from 1", 2))
    assert [await groups[2].recv(1), await groups[2].recv(0)] == ["from 1", "from 0"]


async def test_messages_of_one_tag_are_a_queue_and_tags_are_apart(meeting: Meeting) -> None:
    """FIFO per (src, dst, tag); tags do not meet."""
    groups = await meeting.form(2)
    for i in range(5):
        await groups[0].send(("a", i), 1, tag="a")
        await groups[0].send((7, i), 1, tag=7)
    assert [await groups[1].recv(0, tag=7) for _ in range(5)] == [(7, i) for i in range(5)]
    assert [await groups[1].recv(0, tag="a") for _ in range(5)] == [("a", i) for i in range(5)]


async def test_sends_called_at_once_arrive_in_call_order(meeting: Meeting) -> None:
    """Call order is order, also for a hundred sends and receives under way at once."""
    groups = await meeting.form(2)
    received = asyncio.gather(*(groups[1].recv(0) for _ in range(100)))
    await asyncio.gather(*(groups[0].send(i, 1) for i in range(100)))
    assert await received == list(range(100))


async def test_a_large_object_passes_whole(meeting: Meeting) -> None:
    """Objects far beyond one read of a socket arrive whole, mixed with small ones."""
    groups = await meeting.form(2)
    large = random.Random(7).randbytes(5_000_000)
    sends = asyncio.gather(groups[0].send("small", 1), groups[0].send(large, 1), groups[0].send("end", 1))
    assert [await groups[1].recv(0) for _ in range(3)] == ["small", large, "end"]
    await sends
    assert await all_ranks(groups, lambda g: g.all_gather(large)) == [[large, large]] * 2


async def test_a_smaller_group_then_a_larger_one_on_one_store(meeting: Meeting) -> None:
    """A and B form one, then A, B, C and D another; both work at once."""
    pair = await meeting.form(2, "pair")
    four = await meeting.form(4, "four")
    results = await asyncio.gather(
        *(g.all_gather(("pair", g.rank)) for g in pair), *(g.all_gather(("four", g.rank)) for g in four)
    )
    assert results[:2] == [[("pair", r) for r in range(2)]] * 2
    assert results[2:] == [[("four", r) for r in range(4)]] * 4


async def test_overlapping_groups_form_in_any_order(meeting: Meeting) -> None:
    """Twenty groups over six processes, each process joining its own ones in its own order: all form."""
    chance = random.Random(20)
    members = {f"g{i}": sorted(chance.sample(range(6), chance.randint(2, 6))) for i in range(20)}

    async def process(me: int) -> None:
        mine = [name for name, ranks in members.items() if me in ranks]
        random.Random(me).shuffle(mine)

        async def one(name: str) -> None:
            ranks = members[name]
            group = await meeting.connect(ranks.index(me), len(ranks), group=name)
            assert await group.all_gather(me) == ranks

        await asyncio.gather(*map(one, mine))

    await asyncio.gather(*map(process, range(6)))


async def test_a_subgroup_is_its_own_group(meeting: Meeting) -> None:
    """Only its members take part; its ranks are the places in the list; parent and child work at once."""
    groups = await meeting.form(4)
    subs = await asyncio.gather(*(groups[rank].subgroup([3, 1]) for rank in (1, 3)))
    one, three = subs
    assert (three.rank, one.rank, one.world_size) == (0, 1, 2)
    assert list(await asyncio.gather(one.all_gather("one"), three.all_gather("three"))) == [["three", "one"]] * 2
    await one.close()
    assert await all_ranks(groups, lambda g: g.all_gather(g.rank)) == [[0, 1, 2, 3]] * 4
    with pytest.raises(ValueError, match="must name this rank"):
        await groups[0].subgroup([1, 2])
    await three.close()


async def test_a_taken_rank_and_another_size_are_refused_at_once(meeting: Meeting) -> None:
    """RankConflictError names the holder; WorldSizeMismatchError says to give the new group its own name."""
    groups = await meeting.form(2)
    with pytest.raises(RankConflictError, match=r"rank 1 .* held by pid"):
        await meeting.connect(1, 2)
    with pytest.raises(WorldSizeMismatchError, match="its own group= name"):
        await meeting.connect(2, 3)
    assert await all_ranks(groups, lambda g: g.all_gather(1)) == [[1, 1]] * 2


async def test_a_name_lives_again_when_all_have_left(meeting: Meeting) -> None:
    """A rank that left and joins again waits for the next incarnation; no two lives mix."""
    old = await meeting.form(2)
    await old[0].send("old", 1)
    await old[0].close()
    again = asyncio.ensure_future(meeting.connect(0, 2))
    await steps(20)
    assert not again.done()
    assert await old[1].recv(0) == "old"
    await old[1].close()
    new = list(await asyncio.gather(again, meeting.connect(1, 2)))
    with pytest.raises(GroupTimeoutError):
        await new[1].recv(0, timeout=0.05)
    assert await all_ranks(new, lambda g: g.all_gather(g.rank)) == [[0, 1]] * 2


async def test_a_member_that_leaves_fails_what_needs_it_now_and_later(meeting: Meeting) -> None:
    """PeerLostError(ranks) at every waiting and later call that needs it; what it sent is still received."""
    groups = await meeting.form(3)
    await groups[2].send("last words", 0)
    waiting: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(groups[0].barrier()),
        asyncio.ensure_future(groups[1].recv(2)),
        asyncio.ensure_future(groups[1].broadcast(None, 2, tag="b")),
    ]
    await steps(10)  # so that they wait already, mostly; the outcome is the same if not
    await groups[2].close()
    for error in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(error, PeerLostError)
        assert error.ranks == (2,)
    for call in (groups[1].barrier(), groups[1].send("x", 2), groups[0].all_gather(1)):
        with pytest.raises(PeerLostError, match="left"):
            await call
    assert await groups[0].recv(2) == "last words"
    with pytest.raises(PeerLostError):
        await groups[0].recv(2)
    await groups[0].send("go on", 1)
    assert await groups[1].recv(0) == "go on"


async def test_an_arrival_that_was_answered_counts_after_its_rank_has_left(meeting: Meeting) -> None:
    """A broadcast's source and a gather's givers may leave at once; nobody loses what they gave."""
    groups = await meeting.form(3)
    await groups[0].broadcast("early", 0)
    await groups[0].close()
    assert await groups[1].broadcast(None, 0) == "early"
    await groups[1].close()
    assert await groups[2].broadcast(None, 0) == "early"


async def test_abort_fails_every_call_now_and_later(meeting: Meeting) -> None:
    """GroupAbortedError(origin, reason) at every rank."""
    groups = await meeting.form(3)
    waiting = [asyncio.ensure_future(groups[0].barrier()), asyncio.ensure_future(groups[1].recv(0))]
    await steps(10)  # so that they wait already, mostly; the outcome is the same if not
    await groups[2].abort("disk full")
    for error in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(error, GroupAbortedError)
        assert (error.origin, error.reason) == (2, "disk full")
    with pytest.raises(GroupAbortedError, match="disk full"):
        await groups[0].send(1, 1)


async def test_an_exception_in_the_block_aborts_the_group(meeting: Meeting) -> None:
    """`async with group` left by an exception gives every other rank its type and text."""
    groups = await meeting.form(2)

    async def fails(group: AsyncStatelessGroup) -> None:
        async with group:
            raise RuntimeError("no such weights")

    results = await asyncio.gather(fails(groups[0]), groups[1].barrier(), return_exceptions=True)
    assert isinstance(results[0], RuntimeError)
    assert isinstance(results[1], GroupAbortedError)
    assert results[1].reason == "RuntimeError: no such weights"


async def test_closing_fails_the_calls_that_wait(meeting: Meeting) -> None:
    """close() ends this rank's own waiting calls with GroupClosedError; closing twice is fine."""
    groups = await meeting.form(2)
    waiting = [asyncio.ensure_future(groups[0].barrier()), asyncio.ensure_future(groups[0].recv(1))]
    await steps(10)  # so that they wait already, mostly; the outcome is the same if not
    await groups[0].close()
    for error in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(error, GroupClosedError)
    await groups[0].close()
    with pytest.raises(GroupClosedError):
        await groups[0].barrier()


async def test_what_nobody_takes_expires_and_is_told(meeting: Meeting) -> None:
    """After data_expiration_seconds a read raises DataExpiredError, once per message, and memory is free."""
    groups = await meeting.form(2, data_expiration_seconds=0.1)
    await groups[0].send("old", 1)
    await groups[0].broadcast("old", 0)
    await asyncio.sleep(0.15)
    await groups[1].expire_data()
    assert (await groups[1].store.link.status())["bytes"] == 0
    await groups[0].send("new", 1)
    with pytest.raises(DataExpiredError):
        await groups[1].recv(0)
    assert await groups[1].recv(0) == "new"
    with pytest.raises(DataExpiredError):
        await groups[1].broadcast(None, 0)
    assert await all_ranks(groups, lambda g: g.all_gather(g.rank)) == [[0, 1]] * 2


async def test_a_store_keeps_nothing_of_what_was_read(meeting: Meeting) -> None:
    """A payload is freed when its last reader has it; rounds are freed when all are told."""
    groups = await meeting.form(3)
    for _ in range(20):
        await all_ranks(groups, lambda g: g.all_gather("x" * 1000))
        await all_ranks(groups, lambda g: g.broadcast("y" * 1000, 1))
        await groups[0].send("z", 1)
        await groups[1].recv(0)
    status = await groups[0].store.link.status()
    assert (status["rounds"], status["bytes"]) == (0, 0)
