"""round: who waits for whom, and what becomes of an arrival that is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from aiopg.errors import CollectiveMismatchError, GroupTimeoutError
from aiopg.stores.base import Needs, NumberUsedError
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import BrokenRuleError, Raises, holds, same
from aiopg.testing.conformance._giving_up import Moment, give_up, sweep
from aiopg.testing.conformance._ground import Ground
from aiopg.testing.conformance._seat import LONG, Seat


@check("every rank that needs all waits for all, and gets their parts in rank order")
async def all_parts(ground: Ground) -> None:
    seats = await ground.seats(3)
    first = [await ground.begun(seats[rank].round(1, b"%d" % rank), seats[rank].link) for rank in (2, 0)]
    holds(not any(call.done() for call in first), "a round returned before the last rank had arrived")
    results = [await seats[1].round(1, b"1"), *[await call for call in first]]
    same(results, [[b"0", b"1", b"2"]] * 3, "parts by rank")


@check("who needs nothing does not wait, and who needs the root's part waits for the root alone")
async def root_part(ground: Ground) -> None:
    seats = await ground.seats(3)
    waits = await ground.begun(broadcast(seats[0], 1), seats[0].link)
    same(await broadcast(seats[1], 1, b"from 1"), [], "what the source of a broadcast gets, before all have called")
    same(await waits, [b"from 1"], "what came of a broadcast before the last rank had called")
    same(await broadcast(seats[2], 1), [b"from 1"], "what the last rank gets of it")


@check("where each rank gives one part for each rank, each gets the parts that are meant for it")
async def part_for_each(ground: Ground) -> None:
    seats = await ground.seats(3)
    results = await ground.all(
        seat.round(1, *[b"%d to %d" % (seat.rank, to) for to in range(3)], op="all_to_all") for seat in seats
    )
    same(results, [[b"%d to %d" % (src, to) for src in range(3)] for to in range(3)], "parts by rank")
    scattered = await ground.all(
        seat.round(2, *([b"a", b"b", b"c"] if seat.rank == 2 else []), op="scatter", root=2, needs=Needs.ROOT)
        for seat in seats
    )
    same(scattered, [[b"a"], [b"b"], [b"c"]], "what a scatter came to")


@check("a barrier, in which nobody gives anything, waits for all; one who leaves last (ALL_TOLD) gets its release too")
async def barrier(ground: Ground) -> None:
    seats = await ground.seats(3)
    first = [await ground.begun(seats[0].round(1, op="barrier", needs=Needs.ALL_TOLD), seats[0].link)]
    first.append(await ground.begun(seats[1].round(1, op="barrier"), seats[1].link))
    holds(not any(call.done() for call in first), "a barrier was passed before the last rank had come")
    same([await seats[2].round(1, op="barrier"), *[await call for call in first]], [[], [], []], "what came of it")


@check("rounds of different tags and numbers are independent, and many may be open at once")
async def many_open(ground: Ground) -> None:
    seats = await ground.seats(2)
    places = [(tag, seq) for tag in (0, 1, "0", "a") for seq in (1, 2, 3)]
    ahead = [ground.spawn(seats[0].round(seq, b"x", tag=tag)) for tag, seq in places]
    for (tag, seq), call in reversed(list(zip(places, ahead, strict=True))):
        part = f"{tag!r} {seq}".encode()
        same(await seats[1].round(seq, part, tag=tag), [b"x", part], f"round {seq} of tag {tag!r}")
        same(await call, [b"x", part], f"round {seq} of tag {tag!r} at the rank that was ahead")


@check("an arrival that timed out or was cancelled is not counted: nobody passes a barrier alone (promise 4)")
async def withdrawn(ground: Ground) -> None:
    seats = await ground.seats(2)
    with Raises(GroupTimeoutError, "a barrier to which the other rank does not come"):
        await seats[0].round(1, op="barrier", timeout=0.05)
    cancelled = await ground.begun(seats[0].round(1, op="barrier"), seats[0].link)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    await seats[0].link.status()
    with Raises(GroupTimeoutError, "a barrier that the other rank gave up") as caught:
        await seats[1].round(1, op="barrier", timeout=0.1)
    holds(caught.error.missing in ((0,), None), f"missing is {caught.error.missing}, and it was rank 0 that gave up")
    await ground.all(seat.round(1, op="barrier") for seat in seats)


@check("a round that is given up at any moment and called again is the same call: all get the right parts (promise 4)")
async def given_up(ground: Ground) -> None:
    await give_up_and_call_again(ground, {"op": "all_gather"}, gives=(0, 1))


@check("the same where a rank waits for the root's part alone (promise 4)")
async def given_up_by_receiver(ground: Ground) -> None:
    await give_up_and_call_again(ground, {"op": "broadcast", "root": 1}, gives=(1,))


@check("the same where the rank that gives up is the root, which waits for nothing (promise 4)")
async def given_up_by_source(ground: Ground) -> None:
    await give_up_and_call_again(ground, {"op": "broadcast", "root": 0}, gives=(0,))


@check("the same in a barrier, where the rank that gives up is the one that leaves last (promise 4)")
async def given_up_barrier(ground: Ground) -> None:
    await give_up_and_call_again(ground, {"op": "barrier"}, gives=())


async def give_up_and_call_again(ground: Ground, how: dict[str, Any], gives: tuple[int, ...]) -> None:
    """Rank 0 gives round after round up, and calls it again; rank 1 does not."""
    seats, seq = await ground.seats(2), 0

    def call(seat: Seat, number: int, timeout: float = LONG) -> Coroutine[Any, Any, list[bytes]]:
        part = [b"%d in %d" % (seat.rank, number)] if seat.rank in gives else []
        return seat.round(number, *part, needs=needs_of(seat, how), timeout=timeout, **how)

    def wanted(seat: Seat, number: int) -> list[bytes]:
        parts = [b"%d in %d" % (rank, number) for rank in gives]
        return [] if needs_of(seat, how) == Needs.NOTHING else parts

    async def turn(moment: Moment) -> bool:
        nonlocal seq
        seq += 1
        number = seq
        other = ground.spawn(call(seats[1], number))
        ended = await give_up(ground, moment, lambda timeout: call(seats[0], number, timeout))
        result = ended.result if ended.done else await call(seats[0], number)
        got = [result, await other]
        same(got, [wanted(seat, number) for seat in seats], f"{how['op']} number {number}, {moment}")
        return ended.done

    await sweep(turn, LONG)


def needs_of(seat: Seat, how: dict[str, Any]) -> int:
    """What it needs of such a round."""
    if how["op"] == "broadcast":
        return Needs.NOTHING if seat.rank == how["root"] else Needs.ROOT
    return Needs.ALL_TOLD if how["op"] == "barrier" and seat.rank == 0 else Needs.ALL


@check("a round that was decided for a call that its caller gave up is NumberUsedError to another call (promise 4)")
async def number_used(ground: Ground) -> None:
    seats, seq = await ground.seats(2), 0

    async def turn(moment: Moment) -> bool:
        nonlocal seq
        seq += 1
        number = seq
        other = ground.spawn(seats[1].round(number, b"other"))
        ended = await give_up(ground, moment, lambda timeout: seats[0].round(number, b"old", timeout=timeout))
        if ended.done:
            await other
            return True
        try:
            result = await seats[0].round(number, b"new")
        except NumberUsedError:
            same(await other, [b"old", b"other"], f"what rank 1 got of a number that was used, {moment}")
        else:
            same([result, await other], [[b"new", b"other"]] * 2, f"a round withdrawn and called anew, {moment}")
        return False

    await sweep(turn, LONG)


@check("keep: a result that was not handed on is what the same call gets again; another call is NumberUsedError")
async def keep(ground: Ground) -> None:
    seats = await ground.seats(2)
    for seq, again in ((1, b"same"), (2, b"other")):
        first, _ = await ground.all(seat.round(seq, b"same") for seat in seats)
        call = seats[0].call("all_gather", seq=seq)
        seats[0].member.keep(call, -1, "", [b"same"], first)
        if again == b"same":
            same(await seats[0].round(seq, again), first, "the result that was kept, at the same call again")
        else:
            with Raises(NumberUsedError, "a call with other data where a result was kept"):
                await seats[0].round(seq, again)
    await ground.all(seat.round(3, op="barrier") for seat in seats)


@check("different operations, roots or details under one number are CollectiveMismatchError on all ranks (promise 6)")
async def mismatch(ground: Ground) -> None:
    seats = await ground.seats(3)
    calls: list[Callable[[Seat], Coroutine[Any, Any, object]]] = [
        lambda seat: seat.round(1, op="barrier" if seat.rank == 1 else "all_gather"),
        lambda seat: seat.round(2, b"x", op="broadcast", root=1 if seat.rank == 1 else 2, needs=Needs.ROOT),
        lambda seat: seat.round(3, b"x", op="all_reduce", detail="min" if seat.rank == 1 else "sum"),
    ]
    for seq, call in enumerate(calls, 1):
        # In this order: where the root of some comes before the one that differs, they have its part by then.
        arrivals = [await ground.begun(call(seat), seat.link) for seat in seats]
        for rank, outcome in enumerate(await asyncio.gather(*arrivals, return_exceptions=True)):
            if not isinstance(outcome, CollectiveMismatchError):
                raise BrokenRuleError(f"rank {rank} got {outcome!r} of calls that differ, not CollectiveMismatchError")
            same(outcome.seq, seq, "the number in the CollectiveMismatchError")
    await ground.all(seat.round(4, op="barrier") for seat in seats)


async def broadcast(seat: Seat, root: int, *parts: bytes) -> list[bytes]:
    """The first one from that rank."""
    needs = Needs.NOTHING if seat.rank == root else Needs.ROOT
    return await seat.round(1, *parts, op="broadcast", root=root, needs=needs)
