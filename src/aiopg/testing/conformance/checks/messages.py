"""put and take."""

from __future__ import annotations

import asyncio

from aiopg.errors import GroupTimeoutError
from aiopg.stores.base import Tag
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import Raises, holds, same
from aiopg.testing.conformance._ground import Ground
from aiopg.testing.conformance._seat import Seat


@check("messages are first in, first out for each (src, dst, tag), however many are sent at once (promise 1)")
async def fifo(ground: Ground) -> None:
    seats = await ground.seats(2)
    sent = [b"%d" % number for number in range(100)]
    await ground.all(seats[0].put(1, payload) for payload in sent)
    same([await seats[1].take(0) for _ in sent], sent, "messages in the order of taking")
    took = ground.spawn(take_all(seats[1], 0, len(sent)))
    for payload in sent:
        await seats[0].put(1, payload)
    same(await took, sent, "messages taken while they were sent")


@check("two senders never meet: a take from one rank gets nothing of another's (promise 1)")
async def senders(ground: Ground) -> None:
    seats = await ground.seats(3)
    await seats[1].put(0, b"from 1")
    with Raises(GroupTimeoutError, "a take from rank 2 where only rank 1 has sent"):
        await seats[0].take(2, timeout=0.05)
    await seats[2].put(0, b"from 2")
    await seats[0].put(2, b"from 0")
    same(await seats[0].take(2), b"from 2", "what came from rank 2")
    same(await seats[0].take(1), b"from 1", "what came from rank 1")
    same(await seats[2].take(0), b"from 0", "what came from rank 0")


@check("messages of one tag do not meet those of another; tags are whole numbers of 64 bits and short texts")
async def tags(ground: Ground) -> None:
    seats = await ground.seats(2)
    tags: list[Tag] = [0, 1, -1, 2**63 - 1, -(2**63), "", "1", "0", "text \u00e4", "x" * 64]
    await ground.all(seats[0].put(1, repr(tag).encode(), tag=tag) for tag in tags)
    for tag in reversed(tags):
        same(await seats[1].take(0, tag=tag), repr(tag).encode(), f"the message of tag {tag!r}")


@check("a take waits for its message, and takes that wait are served in the order of their calls")
async def waiting(ground: Ground) -> None:
    seats = await ground.seats(2)
    takes = [await ground.begun(seats[1].take(0), seats[1].link) for _ in range(3)]
    holds(not any(take.done() for take in takes), "a take returned before anything was sent")
    for number in range(3):
        await seats[0].put(1, b"%d" % number)
    same(list(await asyncio.gather(*takes)), [b"0", b"1", b"2"], "messages by the order of the takes")


@check("a payload comes as it was given, whatever is in it: none, one and many bytes")
async def payloads(ground: Ground) -> None:
    seats = await ground.seats(2)
    limit = (await ground.capabilities()).payload_bytes
    for payload in (b"", b"\x00", bytes(range(256)), b"\r\n\xff\xfe", bytes(range(256)) * min(4096, limit // 256)):
        put = ground.spawn(seats[0].put(1, payload))
        holds(await seats[1].take(0) == payload, f"a payload of {len(payload)} bytes came as another one")
        await put


@check("a cancelled take loses nothing: the message is what the next take gets (promise 4)")
async def cancelled_take(ground: Ground) -> None:
    seats = await ground.seats(2)
    for number in range(20):
        first = await ground.begun(seats[1].take(0), seats[1].link)
        put = ground.spawn(seats[0].put(1, b"%d" % number))
        for _ in range(number):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        got = await seats[1].take(0) if first.cancelled() else first.result()
        same(got, b"%d" % number, f"the message after a take was cancelled {number} passes after the put")
        await put


@check("where the first of two takes is cancelled, the second gets what comes first: they never swap (promise 4)")
async def two_takes(ground: Ground) -> None:
    seats = await ground.seats(2)
    for number in range(12):
        sent = [b"%d first" % number, b"%d second" % number]
        first = await ground.begun(seats[1].take(0), seats[1].link)
        second = await ground.begun(seats[1].take(0), seats[1].link)
        puts = [ground.spawn(seats[0].put(1, payload)) for payload in sent]
        for _ in range(number):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        got = [] if first.cancelled() else [first.result()]
        got.append(await second)
        if len(got) < 2:
            got.append(await seats[1].take(0))
        same(got, sent, "two messages, the first take cancelled")
        await asyncio.gather(*puts)


@check("give_back: what was taken and not handed on is the head of its mailbox again")
async def give_back(ground: Ground) -> None:
    seats = await ground.seats(2)
    for payload in (b"a", b"b"):
        await seats[0].put(1, payload)
    taken = await seats[1].take(0)
    seats[1].member.give_back(0, 0, taken)
    same([await seats[1].take(0) for _ in range(2)], [b"a", b"b"], "messages after the first one was given back")
    seats[1].member.give_back(0, "other", b"c")
    same(await seats[1].take(0, tag="other"), b"c", "what was given back to a mailbox that held nothing")


async def take_all(seat: Seat, src: int, count: int) -> list[bytes]:
    """The next messages."""
    return [await seat.take(src) for _ in range(count)]
