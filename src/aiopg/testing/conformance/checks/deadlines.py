"""Promise 3: a deadline is a deadline, and the error names who is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiopg.errors import GroupTimeoutError, Outcome
from aiopg.stores.base import Needs
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import BrokenRuleError, Raises, holds, same
from aiopg.testing.conformance._ground import Ground
from aiopg.testing.conformance._seat import Seat

TIMEOUT = 0.25

EARLY = 0.01
"""A clock may tick so late that a timer ends before its time, as the program counts it."""


@check("a call ends at its deadline, within the tolerance: join, take, and every kind of round (promise 3)")
async def kept(ground: Ground) -> None:
    seats, link = await ground.seats(2), await ground.link()
    calls = {
        "join": ground.join(link, ground.name(), 0, 2, timeout=TIMEOUT),
        "take": seats[0].take(1, timeout=TIMEOUT),
        "barrier": seats[0].round(1, op="barrier", tag="a", timeout=TIMEOUT),
        "all_gather": seats[0].round(1, b"x", tag="b", timeout=TIMEOUT),
        "broadcast": seats[0].round(1, op="broadcast", root=1, needs=Needs.ROOT, tag="c", timeout=TIMEOUT),
        "happenings": seats[0].happenings(2, timeout=TIMEOUT),
    }
    await ground.all(times_out(ground, what, call) for what, call in calls.items())


@check("a call that times out names who arrived and who is missing, truly (promise 3)")
async def names_the_missing(ground: Ground) -> None:
    seats = await ground.seats(4)
    one_rank = ground.spawn(names_the_one(ground, seats[0]))

    async def collective(rank: int) -> GroupTimeoutError:
        return await times_out(ground, "all_gather", seats[rank].round(1, b"x", timeout=TIMEOUT))

    for _ in range(3):
        errors = await ground.all(collective(rank) for rank in (0, 2))
        for rank, error in zip((0, 2), errors, strict=True):
            holds(error.missing in ((1, 3), None), f"rank {rank} is told that {error.missing} is missing, not (1, 3)")
            holds(error.arrived is None or rank in error.arrived, f"rank {rank} arrived, and {error.arrived} is told")
        if all(error.missing for error in errors):
            break
    else:
        raise BrokenRuleError("of a round that times out, nobody is told who is missing")
    await one_rank


@check("where the error says that nothing was applied, nothing was: the same call goes through afterwards (promise 4)")
async def outcome(ground: Ground) -> None:
    seats = await ground.seats(2)
    for seq in (1, 2):
        error = await times_out(ground, "barrier", seats[0].round(seq, op="barrier", timeout=0.05), 0.05)
        holds(error.outcome is not Outcome.APPLIED, "a barrier that timed out alone says that it was applied")
        same((error.op, error.seq, error.tag), ("barrier", seq, 0), "operation, number and tag in the error")
        await ground.all(seat.round(seq, op="barrier") for seat in seats)


@check("asyncio.timeout round a call ends it in time, and it can be called again (promise 3)")
async def from_outside(ground: Ground) -> None:
    seats = await ground.seats(2)
    loop = asyncio.get_running_loop()
    for call in (lambda: seats[0].round(1, b"x"), lambda: seats[0].take(1)):
        began = loop.time()
        with Raises(TimeoutError, "a call in asyncio.timeout"):
            async with asyncio.timeout(0.05):
                await call()
        holds(loop.time() - began < 0.05 + ground.late, f"it ended {loop.time() - began:.3f} s after a timeout of 0.05")
    await ground.all(seat.round(1, b"x") for seat in seats)


async def times_out(
    ground: Ground, what: str, call: Coroutine[Any, Any, Any], timeout: float = TIMEOUT
) -> GroupTimeoutError:
    """The error of a call with this timeout, which ends in time."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with Raises(GroupTimeoutError, f"{what} with a timeout of {timeout} s") as caught:
        await call
    took = loop.time() - began
    holds(timeout - EARLY <= took <= timeout + ground.late, f"{what} with a timeout of {timeout} s took {took:.3f} s")
    return caught.error


async def names_the_one(ground: Ground, seat: Seat) -> None:
    """Calls that need one rank name that rank alone."""
    root = seat.round(1, op="broadcast", root=3, needs=Needs.ROOT, tag="root", timeout=TIMEOUT)
    take = seat.take(2, timeout=TIMEOUT)
    errors = await ground.all(times_out(ground, what, call) for what, call in (("broadcast", root), ("take", take)))
    for error, rank in zip(errors, (3, 2), strict=True):
        holds(
            error.missing in ((rank,), None),
            f"{error.op} needs rank {rank}, and is told that {error.missing} misses",
        )
