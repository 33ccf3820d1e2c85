"""Many groups, tags and calls at once."""

from __future__ import annotations

import asyncio

from aiopg.errors import AiopgError
from aiopg.stores.base import StoreLink
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import same
from aiopg.testing.conformance._ground import Ground
from aiopg.testing.conformance._seat import Seat


@check("any number of groups, overlapping, formed in any order and at once, over the same links (promise 9)")
async def overlapping(ground: Ground) -> None:
    links = [await ground.link() for _ in range(4)]
    teams = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 1, 2, 3), (2, 0), (3, 1, 2)]
    names = [ground.name() for _ in teams]

    async def live(link: StoreLink, group: int, rank: int) -> None:
        seat = await ground.join(link, names[group], rank, len(teams[group]))
        given = [b"%d in %d" % (place, group) for place in range(seat.world_size)]
        for seq in range(1, 6):
            same(await seat.round(seq, given[rank]), given, f"round {seq} of group {group} at rank {rank}")
        await seat.put((rank + 1) % seat.world_size, given[rank])
        src = (rank - 1) % seat.world_size
        same(await seat.take(src), given[src], f"the message of group {group} at rank {rank}")
        await seat.round(6)
        await seat.leave()

    lives = [live(links[who], group, rank) for group, team in enumerate(teams) for rank, who in enumerate(team)]
    await ground.all(lives[::2] + lives[1::2])


@check("many calls of many tags at once: each gets its own")
async def many_tags(ground: Ground) -> None:
    seats = await ground.seats(2)

    async def work(seat: Seat, tag: int) -> None:
        other = 1 - seat.rank
        for number in range(5):
            await seat.put(other, b"%d %d %d" % (seat.rank, tag, number), tag=tag)
            same(await seat.take(other, tag=tag), b"%d %d %d" % (other, tag, number), f"message {number} of tag {tag}")
            parts = [b"%d %d" % (rank, tag) for rank in range(2)]
            same(await seat.round(number + 1, parts[seat.rank], tag=tag), parts, f"round {number + 1} of tag {tag}")

    await ground.all(work(seat, tag) for seat in seats for tag in range(50))


@check("a storm of cancelled calls ends in right answers: each message is had once and in order (promise 4)")
async def storm(ground: Ground) -> None:
    seats = await ground.seats(2)
    total = 60

    async def send() -> None:
        for number in range(total):
            await stubborn(ground, seats[0], number)

    async def receive() -> list[int]:
        had: list[int] = []
        for attempt in range(10_000):
            take = ground.spawn(seats[1].take(0))
            for _ in range(attempt * 5 % 11):
                await asyncio.sleep(0)
            take.cancel()
            await asyncio.wait([take])
            if not take.cancelled():
                had.append(int(take.result()))
            if len(had) == total:
                break
            if attempt % 10 == 9:
                had.append(int(await seats[1].take(0)))
            if len(had) == total:
                break
        return had

    _, had = await asyncio.gather(ground.spawn(send()), ground.spawn(receive()))
    same(had, list(range(total)), "the messages that came")


async def stubborn(ground: Ground, seat: Seat, number: int) -> None:
    """Send it, cancelled a few times before that."""
    payload = b"%d" % number
    for attempt in range(3):
        put = ground.spawn(seat.put(1, payload))
        for _ in range((number + attempt) % 7):
            await asyncio.sleep(0)
        put.cancel()
        await asyncio.wait([put])
        if not put.cancelled():
            put.result()
            return
    await seat.put(1, payload)


@check("members of one link are apart: when one leaves, the other one's group goes on")
async def one_link(ground: Ground) -> None:
    link = await ground.link()
    one = await ground.all(ground.join(link, name, 0, 1) for name in (ground.name(), ground.name()))
    two = ground.name()
    pair = await ground.all(ground.join(link, two, rank, 2) for rank in range(2))
    await one[0].leave()
    with_error = (await ground.outcomes([one[0].put(0, b"x")]))[0]
    same(isinstance(with_error, AiopgError), True, "that a call of a member that has left is an error")
    await ground.exchange([one[1]])
    await ground.exchange(pair)
