"""Past a limit comes a clear error, and nothing else is touched."""

from __future__ import annotations

from aiopg.codec import RawCodec
from aiopg.errors import PayloadTooLargeError
from aiopg.testing.conformance._checks import NotAskedError, check
from aiopg.testing.conformance._expect import Raises, holds, same
from aiopg.testing.conformance._ground import Ground

MOST = 64 * 2**20
"""Payloads over this are not made for a check."""


async def payload_limit(ground: Ground) -> int:
    """What the store says; not too large to be tried."""
    limit = (await ground.capabilities()).payload_bytes
    if limit > MOST:
        raise NotAskedError(f"the store takes payloads of {limit} bytes; over {MOST} bytes this is not tried")
    return limit


@check("a payload over the limit is PayloadTooLargeError before anything is sent; one of the limit passes (promise 8)")
async def payload(ground: Ground) -> None:
    limit = await payload_limit(ground)
    groups = await ground.groups(2, codec=RawCodec())
    with Raises(PayloadTooLargeError, f"a send of {limit + 1} bytes") as caught:
        await groups[0].send(bytes(limit + 1), 1)
    same((caught.error.size, caught.error.limit), (limit + 1, limit), "size and limit in the PayloadTooLargeError")
    sends = ground.spawn(groups[0].send(b"x" * limit, 1))
    holds(await groups[1].recv(0) == b"x" * limit, f"a payload of {limit} bytes, the limit, came as another one")
    await sends
    await ground.all(group.barrier() for group in groups)


@check("parts that are too large together are PayloadTooLargeError at each reader, and the group goes on (promise 8)")
async def parts(ground: Ground) -> None:
    limit = await payload_limit(ground)
    seats = await ground.seats(2)
    for outcome in await ground.outcomes(seat.round(1, b"x" * (limit * 3 // 4)) for seat in seats):
        holds(isinstance(outcome, PayloadTooLargeError), f"two parts of 3/4 of the limit came to {outcome!r:.200}")
    await ground.exchange(seats)


@check("large payloads pass whole, in messages and in rounds, and small ones beside them")
async def large(ground: Ground) -> None:
    size = min((await ground.capabilities()).payload_bytes // 4, 2**20)
    seats = await ground.seats(2)
    given = [bytes([65 + seat.rank]) * size for seat in seats]
    puts = ground.spawn(seats[0].put(1, given[0]))
    small = ground.spawn(seats[0].put(1, b"small", tag="small"))
    rounds = [ground.spawn(seat.round(1, given[seat.rank])) for seat in seats]
    same(await seats[1].take(0, tag="small"), b"small", "a small message beside a large one")
    holds(await seats[1].take(0) == given[0], f"a message of {size} bytes came as another one")
    for call in rounds:
        holds(await call == given, f"the parts of {size} bytes of a round came as other ones")
    await puts
    await small


@check("a value over the limit is PayloadTooLargeError, and the link goes on", keys=True)
async def value(ground: Ground) -> None:
    limit = await payload_limit(ground)
    store = await ground.store()
    for call in (store.set, store.append, store.queue_push):
        with Raises(PayloadTooLargeError, f"{call.__name__} of a value of {limit + 1} bytes"):
            await call("key", bytes(limit + 1))
    holds(not await store.check("key"), "a value that was refused is there")
    await store.set("key", "1")
