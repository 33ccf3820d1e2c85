"""What happens to the members of a group."""

from __future__ import annotations

import asyncio

from aiopg.errors import GroupTimeoutError
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import Raises, holds, same
from aiopg.testing.conformance._ground import Ground


@check("happenings are told from the beginning, in order and once: joined, left, lost, aborted")
async def in_order(ground: Ground) -> None:
    seats = await ground.seats(4)
    same(sorted(await seats[0].happened(4)), [("joined", rank) for rank in range(4)], "the first happenings")
    hears = await ground.begun(seats[0].happenings(4), seats[0].link)
    holds(not hears.done(), "happenings were told before anything had happened")
    await seats[2].leave()
    same(await hears, [("left", 2)], "what was heard when rank 2 left")
    await seats[3].link.close()
    same(await seats[0].happenings(5), [("lost", 3)], "what was heard when rank 3 was lost")
    await seats[1].abort("enough")
    same((await seats[0].happened(7))[4:], [("left", 2), ("lost", 3), ("aborted", 1)], "the last happenings")
    same(await seats[0].happened(7), await seats[1].happened(7), "the happenings as two members hear them")


@check("a question for happenings that is cancelled or times out loses nothing")
async def given_up(ground: Ground) -> None:
    seats = await ground.seats(2)
    await seats[0].happened(2)
    with Raises(GroupTimeoutError, "happenings where nothing happens"):
        await seats[0].happenings(2, timeout=0.02)
    hears = await ground.begun(seats[0].happenings(2), seats[0].link)
    leave = ground.spawn(seats[1].leave())
    hears.cancel()
    await asyncio.wait([hears, leave])
    same(await seats[0].happenings(2), [("left", 1)], "what happened while nobody asked")
