"""How members come together: join, and the lives of a group's name."""

from __future__ import annotations

from aiopg.errors import FencedError, GroupTimeoutError, PeerLostError, RankConflictError, WorldSizeMismatchError
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import Raises, holds, same
from aiopg.testing.conformance._ground import Ground


@check("join returns when all ranks have joined, and not before; all are in one incarnation")
async def waits_for_all(ground: Ground) -> None:
    name, links = ground.name(), [await ground.link() for _ in range(3)]
    first = [await ground.begun(ground.join(links[rank], name, rank, 3), links[rank]) for rank in (2, 0)]
    holds(not any(join.done() for join in first), "a join returned before the last rank had come")
    seats = [await ground.join(links[1], name, 1, 3), *[await join for join in first]]
    same(len({seat.member.incarnation for seat in seats}), 1, "incarnations that the members of one group are in")


@check("a rank that a live member holds is refused at once with RankConflictError, and the holder notices nothing")
async def rank_conflict(ground: Ground) -> None:
    seats = await ground.seats(2)
    with Raises(RankConflictError, "a second member of rank 1") as caught:
        await ground.join(await ground.link(), seats[0].group, 1, 2)
    same((caught.error.group, caught.error.rank), (seats[0].group, 1), "group and rank of the RankConflictError")
    await ground.exchange(seats)


@check("a live name with another world_size is refused at once with WorldSizeMismatchError (promise 9)")
async def size_mismatch(ground: Ground) -> None:
    seats = await ground.seats(2)
    with Raises(WorldSizeMismatchError, "a member of a world of 3 in a group of 2") as caught:
        await ground.join(await ground.link(), seats[0].group, 1, 3)
    error = caught.error
    same((error.world_size, error.expected), (3, 2), "the world sizes in the WorldSizeMismatchError")
    await ground.exchange(seats)


@check("a join that times out names who is missing and leaves no trace: the rank is free (promises 3 and 4)")
async def timeout(ground: Ground) -> None:
    name, link = ground.name(), await ground.link()
    with Raises(GroupTimeoutError, "a join that nobody else came to") as caught:
        await ground.join(link, name, 0, 3, timeout=0.1)
    same(caught.error.missing, (1, 2), "the ranks that the join names as missing")
    seats = await ground.seats(3, group=name)
    await ground.exchange(seats)


@check("every life of a name has a higher incarnation, and nothing of the one before it (promises 1 and 9)")
async def incarnations(ground: Ground) -> None:
    name, lives = ground.name(), []
    for life in range(3):
        seats = await ground.seats(2, group=name)
        lives.append(seats[0].member.incarnation)
        await seats[0].put(1, b"to be left behind", tag="left")
        await seats[1].put(0, b"%d" % life)
        same(await seats[0].take(1), b"%d" % life, "the first message of a life")
        with Raises(GroupTimeoutError, "a take in another direction than a message went"):
            await seats[0].take(1, tag="left", timeout=0.01)
        await ground.all(seat.leave() for seat in seats)
    same(lives, sorted(set(lives)), "incarnations of one name, life by life")


@check("a rank that joins after it left waits for the next incarnation (promise 9)")
async def again(ground: Ground) -> None:
    old = await ground.seats(2)
    await old[0].leave()
    join = await ground.begun(ground.join(old[0].link, old[0].group, 0, 2), old[0].link)
    holds(not join.done(), "a rank that had left came back into the same life of the group")
    await old[1].leave()
    new = [await ground.join(old[1].link, old[0].group, 1, 2), await join]
    holds(new[0].member.incarnation > old[0].member.incarnation, "the next life has no higher incarnation")
    await ground.exchange(sorted(new, key=lambda seat: seat.rank))


@check("a link that is closed while it joins leaves no trace: the rank is free")
async def closed_while_joining(ground: Ground) -> None:
    name, gone = ground.name(), await ground.link()
    join = await ground.begun(ground.join(gone, name, 0, 2), gone)
    await gone.close()
    with Raises(Exception, "a join over a link that was closed"):
        await join
    await ground.exchange(await ground.seats(2, group=name))


@check(
    "takeover puts the holder out with FencedError, waiting and later; the others lose it, and the newcomer is in the "
    "next incarnation",
    optional="takeover",
)
async def takeover(ground: Ground) -> None:
    old = await ground.seats(2)
    held = await ground.begun(old[1].take(0), old[1].link)
    needs = await ground.begun(old[0].take(1), old[0].link)
    link = await ground.link()
    newcomer = ground.spawn(ground.join(link, old[0].group, 1, 2, takeover=True))
    if newcomer in await ground.first([newcomer, held]):
        await newcomer  # raises NotImplementedError where it is not offered
    with Raises(FencedError, "a call of a member that was put out") as fenced:
        await held
    same(fenced.error.rank, 1, "the rank in the FencedError")
    with Raises(FencedError, "a later call of a member that was put out"):
        await old[1].put(0, b"late")
    with Raises(PeerLostError, "a call that needs the member that was put out") as lost:
        await needs
    same(lost.error.ranks, (1,), "the ranks in the PeerLostError")
    await old[0].leave()
    first = await ground.join(old[0].link, old[0].group, 0, 2)
    second = await newcomer
    holds(second.member.incarnation > old[0].member.incarnation, "the newcomer is not in the next incarnation")
    await ground.exchange([first, second])
