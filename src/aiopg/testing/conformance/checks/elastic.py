"""enlist and reform: ranks that are given out."""

from __future__ import annotations

import asyncio
from functools import partial

from aiopg.errors import GroupTimeoutError, PeerLostError, UsageError
from aiopg.stores.base import Place, StoreLink
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import Raises, holds, same
from aiopg.testing.conformance._giving_up import Moment, give_up
from aiopg.testing.conformance._ground import Ground
from aiopg.testing.conformance._seat import Seat


@check(
    "enlist forms a group of all as soon as the most have come; each has another rank, and all know the same of all",
    optional="enlist",
)
async def enlist(ground: Ground) -> None:
    name = ground.name()
    seats = await ground.all(ground.enlist(name, 1, 3, patience=20.0, said=b"%d" % number) for number in range(3))
    same(sorted(seat.rank for seat in seats), [0, 1, 2], "the ranks that were given out")
    same({seat.world_size for seat in seats}, {3}, "the world sizes that were told")
    same(sorted(seats[0].metadata), [b"0", b"1", b"2"], "what the members said of themselves")
    same({seat.metadata for seat in seats}, {seats[0].metadata}, "what each is told that all said of themselves")
    await ground.exchange(seats)


@check(
    "enlist forms a group of fewer when nobody comes for a while, and too few time out and leave no trace",
    optional="enlist",
)
async def enough(ground: Ground) -> None:
    name = ground.name()
    with Raises(GroupTimeoutError, "enlist of one where two are to come") as caught:
        await ground.enlist(name, 2, 5, timeout=0.1)
    holds(caught.error.missing in ((1,), None), f"missing is {caught.error.missing}, and it should be (1,)")
    seats = await ground.all(ground.enlist(name, 2, 5) for _ in range(2))
    same([seat.world_size for seat in seats], [2, 2], "the size of a group of two")
    await ground.exchange(seats)


@check("enlist with other sizes than those who wait is refused with UsageError", optional="enlist")
async def other_sizes(ground: Ground) -> None:
    name = ground.name()
    first = ground.spawn(ground.enlist(name, 2, 3))
    await asyncio.sleep(0.02)
    if first.done():
        await first
    with Raises(UsageError, "enlist for 2 to 4 where others wait for 2 to 3"):
        await ground.enlist(name, 2, 4)
    await ground.enlist(name, 2, 3)
    await first


@check(
    "reform gives those who are left the next incarnation: ranks in the old order, the same answer for all",
    optional="reform",
)
async def reform(ground: Ground) -> None:
    seats = await ground.seats(4)
    await seats[1].link.close()
    with Raises(PeerLostError, "a call that needs the rank that is lost"):
        await seats[0].take(1)
    left = [seats[rank] for rank in (0, 2, 3)]
    places = await ground.all(seat.reform(b"was %d" % seat.rank) for seat in left)
    same([(place.rank, place.world_size) for place in places], [(0, 3), (1, 3), (2, 3)], "ranks of those who are left")
    same({place.metadata for place in places}, {(b"was 0", b"was 2", b"was 3")}, "what all said of themselves")
    holds(places[0].member.incarnation > seats[0].member.incarnation, "the new group has no higher incarnation")
    new = [seated(seat, place) for seat, place in zip(left, places, strict=True)]
    await ground.exchange(new)
    await ground.all(seat.leave() for seat in left)
    await ground.exchange(new, tag="after the old seats were left")


@check("reform that a member does not call times out, names it, and leaves the group as it was", optional="reform")
async def reform_timeout(ground: Ground) -> None:
    seats = await ground.seats(3)
    with Raises(GroupTimeoutError, "reform of one of three") as caught:
        await seats[1].reform(timeout=0.1)
    holds(caught.error.missing in ((0, 2), None), f"missing is {caught.error.missing}, and it should be (0, 2)")
    await ground.exchange(seats)
    same([place.world_size for place in await ground.all(seat.reform() for seat in seats)], [3] * 3, "the next size")


@check(
    "who enlists while a group is live is heard of as waiting, and comes in when its members reform",
    optional="enlist and reform",
)
async def newcomer(ground: Ground) -> None:
    name = ground.name()
    old = await ground.all(ground.enlist(name, 1, 2) for _ in range(2))
    old.sort(key=lambda seat: seat.rank)
    await old[1].leave()
    joins = ground.spawn(ground.enlist(name, 1, 2, said=b"new"))
    same((await old[0].happened(4))[2:], [("left", 1), ("waiting", -1)], "what the member that is left hears")
    holds(not joins.done(), "a newcomer came into a group that is live")
    place = await old[0].reform(b"old")
    new = await joins
    same((place.rank, new.rank, new.world_size), (0, 1, 2), "the ranks of the old and the new one")
    same(new.metadata, (b"old", b"new"), "what they said of themselves")
    await ground.exchange([seated(old[0], place), new])


@check("enlist that is given up at any moment leaves no trace: the group forms of the others", optional="enlist")
async def enlist_given_up(ground: Ground) -> None:
    link = await ground.link()
    for passes in (0, 1, 2, 3, 5, 8, 13, 50, 200):
        name = ground.name()
        ended = await give_up(ground, Moment(passes, 20.0), partial(enlist_one, ground, link, name))
        holds(not ended.done, "a group of two formed of one")
        await link.status()  # the others' calls go another way, and might be there before
        seats = await ground.all(ground.enlist(name, 2, 2, said=b"%d" % number) for number in range(2))
        said = sorted(seats[0].metadata)
        same(said, [b"0", b"1"], f"who is in the group, after an enlist that was cancelled after {passes} passes")
        await ground.exchange(seats)


@check("reform that is given up at any moment and called again forms the next group once", optional="reform")
async def reform_given_up(ground: Ground) -> None:
    for passes in (0, 1, 2, 3, 5, 8, 50):
        seats = await ground.seats(2)
        ended = await give_up(ground, Moment(passes, 20.0), partial(reform_one, seats[0]))
        holds(not ended.done, "a group of two formed anew of one")
        await seats[0].link.status()  # the other one's call goes another way, and might be there before this is known
        places = await ground.all(seat.reform() for seat in seats)
        new = [seated(seat, place) for seat, place in zip(seats, places, strict=True)]
        await ground.exchange(new)


async def enlist_one(ground: Ground, link: StoreLink, name: str, timeout: float) -> Seat:
    """One that comes and does not stay."""
    return await ground.enlist(name, 2, 2, said=b"given up", timeout=timeout, link=link)


async def reform_one(seat: Seat, timeout: float) -> Place:
    """One that asks alone."""
    return await seat.reform(timeout=timeout)


def seated(seat: Seat, place: Place) -> Seat:
    """The member in its new place."""
    return Seat(seat.link, place.member, seat.group, place.rank, place.world_size)
