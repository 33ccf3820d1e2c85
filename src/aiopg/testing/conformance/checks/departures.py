"""Promise 5: death is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from aiopg.errors import AiopgError, GroupAbortedError, GroupClosedError, PeerLostError
from aiopg.stores.base import Needs
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import BrokenRuleError, Raises, holds, same
from aiopg.testing.conformance._ground import Ground
from aiopg.testing.conformance._seat import Seat


@check("a member that leaves fails every call that needs it with PeerLostError, waiting and later (promise 5)")
async def left(ground: Ground) -> None:
    seats = await ground.seats(3)
    waiting = await need_rank_2(ground, seats)
    await seats[2].leave()
    await all_lose_rank_2(seats, waiting)


@check("a member whose link ends without leaving is lost, and fails every call that needs it likewise (promise 5)")
async def lost(ground: Ground) -> None:
    seats = await ground.seats(3)
    waiting = await need_rank_2(ground, seats)
    await seats[2].link.close()
    await all_lose_rank_2(seats, waiting)


@check("calls that do not need the member that is gone go on (promise 5)")
async def others_go_on(ground: Ground) -> None:
    seats = await ground.seats(3)
    take = await ground.begun(seats[0].take(1), seats[0].link)
    cast = await ground.begun(seats[0].round(1, op="broadcast", root=1, needs=Needs.ROOT), seats[0].link)
    await seats[2].link.close()
    with Raises(PeerLostError, "a take from the rank that is lost"):
        await seats[0].take(2)
    holds(not take.done() and not cast.done(), "a call that needs rank 1 alone ended when rank 2 was lost")
    await seats[1].put(0, b"message")
    await seats[1].round(1, b"part", op="broadcast", root=1, needs=Needs.NOTHING)
    same([await take, await cast], [b"message", [b"part"]], "what came from rank 1 after rank 2 was lost")


@check("what a member had sent before it left or was lost can still be received, and then it is lost (promise 5)")
async def last_words(ground: Ground) -> None:
    seats = await ground.seats(3)
    for seat in (seats[1], seats[2]):
        for number in range(3):
            await seat.put(0, b"%d of %d" % (number, seat.rank))
    await seats[1].leave()
    await seats[2].link.close()
    await seats[0].happened(5)
    for src in (1, 2):
        got = [await seats[0].take(src) for _ in range(3)]
        same(got, [b"%d of %d" % (number, src) for number in range(3)], f"the last messages of rank {src}")
        with Raises(PeerLostError, f"a take from rank {src}, of which nothing is left"):
            await seats[0].take(src)


@check("a round at which the member had arrived that is gone now comes to its result (promise 5)")
async def last_round(ground: Ground) -> None:
    seats = await ground.seats(3)
    await seats[1].round(1, b"weights", op="broadcast", root=1, needs=Needs.NOTHING)
    await seats[1].leave()
    for rank in (0, 2):
        got = await seats[rank].round(1, op="broadcast", root=1, needs=Needs.ROOT)
        same(got, [b"weights"], f"what rank {rank} gets of the broadcast of a rank that has left")


@check("abort fails every call at every member with the origin and the reason, waiting and later (promise 5)")
async def aborted(ground: Ground) -> None:
    seats = await ground.seats(3)
    waiting = [
        await ground.begun(seats[0].take(2), seats[0].link),
        await ground.begun(seats[2].round(1, op="barrier"), seats[2].link),
        await ground.begun(seats[1].take(0), seats[1].link),
    ]
    await seats[1].abort("no more weights")
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    later = [seats[0].round(1, op="barrier"), seats[1].put(0, b"x"), seats[2].take(0), seats[2].put(1, b"x")]
    for outcome in outcomes + await ground.outcomes(later):
        if not isinstance(outcome, GroupAbortedError):
            raise BrokenRuleError(f"a call of a group that was aborted came to {outcome!r}, not GroupAbortedError")
        same((outcome.origin, outcome.reason), (1, "no more weights"), "origin and reason of the abort")


@check("a member's own calls that wait when it leaves raise GroupClosedError; and when its link is closed")
async def own_calls(ground: Ground) -> None:
    seats = await ground.seats(2)
    waits = await ground.begun(seats[0].take(1), seats[0].link)
    await seats[0].leave()
    with Raises(GroupClosedError, "a take that waited while its member left"):
        await waits
    link = await ground.link()
    alone = await ground.join(link, ground.name(), 0, 1)
    listens = await ground.begun(alone.happenings(1), link)
    await link.close()
    await link.close()
    with Raises(GroupClosedError, "a call that waited while its link was closed"):
        await listens
    with Raises(AiopgError, "a call over a link that was closed"):
        await alone.put(0, b"x")


async def need_rank_2(ground: Ground, seats: list[Seat]) -> list[asyncio.Task[Any]]:
    """Calls of the others that wait for it."""
    return [
        await ground.begun(seats[0].take(2), seats[0].link),
        await ground.begun(seats[0].round(1, op="barrier"), seats[0].link),
        await ground.begun(seats[1].round(1, op="barrier"), seats[1].link),
        await ground.begun(seats[1].round(1, op="broadcast", root=2, needs=Needs.ROOT, tag="b"), seats[1].link),
    ]


async def all_lose_rank_2(seats: list[Seat], waiting: list[asyncio.Task[Any]]) -> None:
    """Those that wait, and those that come later."""
    for call in waiting:
        await loses_rank_2(call)
    await loses_rank_2(seats[0].take(2, tag="later"))
    await loses_rank_2(seats[1].round(1, b"x", tag="later"))
    await loses_rank_2(seats[1].put(2, b"x"))


async def loses_rank_2(call: Awaitable[Any]) -> None:
    """A call that needs it."""
    with Raises(PeerLostError, "a call that needs the rank that is gone") as caught:
        await call
    same(caught.error.ranks, (2,), "the ranks in the PeerLostError")
    holds(caught.error.reason, "the PeerLostError gives no reason")
