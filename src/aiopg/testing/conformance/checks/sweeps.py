"""Promise 4: each verb of a member, given up at each step of it."""

from __future__ import annotations

from aiopg.errors import GroupTimeoutError
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import Raises, same
from aiopg.testing.conformance._giving_up import Moment, give_up, sweep
from aiopg.testing.conformance._ground import Ground
from aiopg.testing.conformance._seat import LONG


@check("a put that is given up at any moment and made again arrives once, before what comes next (promise 4)")
async def put(ground: Ground) -> None:
    seats, count = await ground.seats(2), 0

    async def turn(moment: Moment) -> bool:
        nonlocal count
        count += 1
        sent = [b"%d" % count, b"%d next" % count]
        ended = await give_up(ground, moment, lambda timeout: seats[0].put(1, sent[0], timeout=timeout))
        if not ended.done:
            await seats[0].put(1, sent[0])
        await seats[0].put(1, sent[1])
        same([await seats[1].take(0), await seats[1].take(0)], sent, f"messages, the first put {moment}")
        return ended.done

    await sweep(turn, LONG)
    with Raises(GroupTimeoutError, "a take when all was taken"):
        await seats[1].take(0, timeout=0.05)


@check("a put that is given up while its receiver waits, and made again, arrives once (promise 4)")
async def put_to_who_waits(ground: Ground) -> None:
    seats, count = await ground.seats(2), 0

    async def turn(moment: Moment) -> bool:
        nonlocal count
        count += 1
        sent = [b"%d" % count, b"%d next" % count]
        first = await ground.begun(seats[1].take(0), seats[1].link)
        ended = await give_up(ground, moment, lambda timeout: seats[0].put(1, sent[0], timeout=timeout))
        if not ended.done:
            await seats[0].put(1, sent[0])
        await seats[0].put(1, sent[1])
        same([await first, await seats[1].take(0)], sent, f"messages to a rank that waited, the first put {moment}")
        return ended.done

    await sweep(turn, LONG)


@check("a put that is given up and not made again arrives at most once, and what comes next arrives (promise 4)")
async def put_not_again(ground: Ground) -> None:
    seats, count = await ground.seats(2), 0

    async def turn(moment: Moment) -> bool:
        nonlocal count
        count += 1
        dropped, kept = b"%d dropped" % count, b"%d kept" % count
        ended = await give_up(ground, moment, lambda timeout: seats[0].put(1, dropped, timeout=timeout))
        await seats[0].put(1, kept)
        got = [await seats[1].take(0)]
        if got == [dropped]:
            got.append(await seats[1].take(0))
        wanted = [dropped, kept] if ended.done or len(got) == 2 else [kept]
        same(got, wanted, f"messages, the first put {moment} and not made again")
        return ended.done

    await sweep(turn, LONG)
    with Raises(GroupTimeoutError, "a take when all was taken"):
        await seats[1].take(0, timeout=0.05)


@check("a take that is given up at any moment loses nothing, the message being there or on its way (promise 4)")
async def take(ground: Ground) -> None:
    seats, count = await ground.seats(2), 0

    async def turn(moment: Moment) -> bool:
        nonlocal count
        count += 1
        payload = b"%d" % count
        puts = ground.spawn(seats[0].put(1, payload))
        if count % 2:
            await puts
        ended = await give_up(ground, moment, lambda timeout: seats[1].take(0, timeout=timeout))
        same(ended.result if ended.done else await seats[1].take(0), payload, f"the message after a take {moment}")
        await puts
        return ended.done

    await sweep(turn, LONG)


@check("a join that is given up at any moment frees its rank: the group forms once, of all ranks (promise 4)")
async def join(ground: Ground) -> None:
    links = [await ground.link() for _ in range(2)]

    async def turn(moment: Moment) -> bool:
        name = ground.name()
        other = ground.spawn(ground.join(links[0], name, 0, 2))
        ended = await give_up(ground, moment, lambda timeout: ground.join(links[1], name, 1, 2, timeout=timeout))
        second = ended.result if ended.done else await ground.join(links[1], name, 1, 2)
        seats = [await other, second]
        await ground.exchange(seats)
        await ground.all(seat.leave() for seat in seats)
        return ended.done

    await sweep(turn, LONG)


@check("a leave that is given up has begun: the others are told that the rank is gone")
async def leave(ground: Ground) -> None:
    for passes in range(6):
        seats = await ground.seats(2)
        ended = await give_up(ground, Moment(passes, LONG), lambda _, seat=seats[1]: seat.leave())  # type: ignore[misc]
        same((await seats[0].happened(3))[2:], [("left", 1)], f"what was heard of a leave cancelled at {passes}")
        if ended.done:
            break
