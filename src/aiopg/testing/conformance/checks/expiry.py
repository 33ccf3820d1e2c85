"""Promise 8: what nobody takes expires, and that is told once."""

from __future__ import annotations

import asyncio

from aiopg.errors import DataExpiredError, GroupTimeoutError
from aiopg.stores.base import Needs
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import Raises, same
from aiopg.testing.conformance._ground import Ground

TTL = 0.1


@check("a message that waited longer than its sender's ttl is DataExpiredError once, then comes the next (promise 8)")
async def message(ground: Ground) -> None:
    seats = await ground.seats(2, ttl=TTL)
    await seats[0].put(1, b"old")
    await asyncio.sleep(2 * TTL)
    await seats[0].put(1, b"new")
    with Raises(DataExpiredError, "a take of a message that is past its time") as caught:
        await seats[1].take(0)
    same(caught.error.group, seats[0].group, "the group in the DataExpiredError")
    same(await seats[1].take(0), b"new", "the message behind one that had expired")
    with Raises(GroupTimeoutError, "a take where nothing is left"):
        await seats[1].take(0, timeout=0.02)


@check("a part of a round that waited longer than its sender's ttl is DataExpiredError to who comes for it (promise 8)")
async def part(ground: Ground) -> None:
    seats = await ground.seats(2, ttl=TTL)
    await seats[0].round(1, b"old", op="broadcast", root=0, needs=Needs.NOTHING)
    await asyncio.sleep(2 * TTL)
    with Raises(DataExpiredError, "a broadcast that is past its time"):
        await seats[1].round(1, op="broadcast", root=0, needs=Needs.ROOT)
    await seats[0].round(2, b"new", op="broadcast", root=0, needs=Needs.NOTHING)
    same(await seats[1].round(2, op="broadcast", root=0, needs=Needs.ROOT), [b"new"], "the next broadcast")


@check("what is taken in time does not expire, and what waits for the last rank stays while its givers wait")
async def in_time(ground: Ground) -> None:
    seats = await ground.seats(2, ttl=TTL)
    waits = await ground.begun(seats[1].take(0), seats[1].link)
    gives = await ground.begun(seats[1].round(1, b"1"), seats[1].link)
    await asyncio.sleep(2 * TTL)
    await seats[0].put(1, b"message")
    same(await waits, b"message", "what a take got that had waited for longer than a ttl")
    same(await seats[0].round(1, b"0"), [b"0", b"1"], "a round whose first rank has waited for longer than a ttl")
    same(await gives, [b"0", b"1"], "the same at that rank")


@check("expire drops now what is past its time, and says how many payloads went")
async def at_once(ground: Ground) -> None:
    seats = await ground.seats(2, ttl=TTL)
    await seats[0].expire()
    for number in range(3):
        await seats[0].put(1, b"%d" % number, tag=number)
    await asyncio.sleep(2 * TTL)
    count = await seats[1].expire()
    same(count in range(4), True, f"that expire() drops at most the three that there were ({count})")
    for number in range(3):
        with Raises(DataExpiredError, f"a take of message {number}, which was dropped"):
            await seats[1].take(0, tag=number)
