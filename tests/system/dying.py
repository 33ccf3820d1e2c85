"""What the ranks of `test_death` do; see `programs`. Times are `time.monotonic()`, which all processes share."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable
from typing import Any

from aiopg import (
    AsyncStatelessGroup,
    FencedError,
    GroupAbortedError,
    PeerLostError,
    RankConflictError,
    StatelessGroup,
)

from .programs import Place, main, say

SITUATIONS = ("barrier", "all_gather", "recv")
WORDS = 3
"""Messages that a rank sends to each of the others before it dies."""

GRACE = 1.0
"""reconnect_grace of the groups here."""


async def outcome(call: Awaitable[Any]) -> tuple[str, list[int], float]:
    """Which error ended a call that waits for a rank that dies, whom it names, and when that was."""
    try:
        result = await call
    except PeerLostError as error:
        return error.reason, list(error.ranks), time.monotonic()
    return f"no error, but {result!r}", [], time.monotonic()


def waits_in(group: AsyncStatelessGroup, situation: str, victim: int) -> Awaitable[Any]:
    """A call that does not end before the victim does its part."""
    if situation == "recv":
        return group.recv(victim, tag="nothing is sent here")
    return group.barrier(60) if situation == "barrier" else group.all_gather(group.rank)


async def until_waiting(group: AsyncStatelessGroup) -> None:
    """Return when the store has all that the group's calls have sent so far: commands of one link keep their order."""
    await group.store.link.status()


async def killed_while_waited_for(place: Place) -> None:
    """One rank is killed by the test, in three groups at once: the others wait in three different calls."""
    victim, *how = place.options
    forms = (place.create(group=situation, reconnect_grace=GRACE) for situation in SITUATIONS)
    groups = await asyncio.gather(*forms)
    if place.rank == int(victim):
        await last_words(groups, leaves_child="fork" in how)
    lives = (survives(group, situation, int(victim)) for group, situation in zip(groups, SITUATIONS, strict=True))
    told = await asyncio.gather(*lives)
    say(told)
    await asyncio.gather(*(group.close() for group in groups))


async def last_words(groups: list[AsyncStatelessGroup], *, leaves_child: bool) -> None:
    """Send some messages to each other rank, and wait to be killed. The child, if any, keeps the sockets open."""
    for group in groups:
        for other in set(range(group.world_size)) - {group.rank}:
            for number in range(WORDS):
                await group.send([group.name, number], other)
    child = os.fork() if leaves_child else 0
    if leaves_child and not child:
        signal.pause()
        os._exit(0)
    await asyncio.gather(*(group.barrier(tag="ready") for group in groups))
    say(child)
    await asyncio.Event().wait()


async def survives(group: AsyncStatelessGroup, situation: str, victim: int) -> dict[str, Any]:
    """Wait for the victim in the call of this situation; then use the group without it."""
    wait = asyncio.ensure_future(outcome(waits_in(group, situation, victim)))
    await asyncio.sleep(0)
    await until_waiting(group)
    await group.barrier(tag="ready")
    reason, ranks, when = await wait
    _, ranks_later, _ = await outcome(waits_in(group, situation, victim))
    words = [await group.recv(victim) for _ in range(WORDS)]
    _, ranks_after_words, _ = await outcome(group.recv(victim))
    others = [rank for rank in range(group.world_size) if rank != victim]
    at = others.index(group.rank)
    await group.send(group.rank, others[(at + 1) % len(others)])
    neighbour = await group.recv(others[at - 1])
    team = await group.subgroup(others, "living")
    gathered = await team.all_gather(group.rank)
    await team.barrier()
    await team.close()
    return {
        "reason": reason,
        "ranks": [ranks, ranks_later, ranks_after_words],
        "when": when,
        "words": words,
        "neighbour": neighbour,
        "gathered": gathered,
    }


# ------------------------------------------------------------------------------------------- ends that are not kills


async def watches_the_ends(place: Place) -> None:
    """Rank 0: how and when each other rank is gone."""
    group = await place.create(reconnect_grace=30)
    waits = [asyncio.ensure_future(outcome(group.recv(rank))) for rank in range(1, place.world_size)]
    await asyncio.sleep(0)
    await until_waiting(group)
    await group.barrier(tag="ready")
    say(await asyncio.gather(*waits))
    await group.close()


async def ends(place: Place) -> None:
    """The other ranks end without close(): the last line of each says when."""
    if place.rank == 0:
        await watches_the_ends(place)
        return
    group = await place.create(reconnect_grace=30)
    await group.barrier(tag="ready")
    say(time.monotonic())
    if place.rank == 2:
        sys.exit(0)
    if place.rank == 3:
        raise RuntimeError("this rank has no luck")


def ends_blocking(place: Place) -> None:
    """The same for a program that blocks."""
    assert place.url is not None
    group = StatelessGroup.connect(place.url, rank=place.rank, world_size=place.world_size, reconnect_grace=30)
    group.barrier(tag="ready")
    say(time.monotonic())


async def aborts(place: Place) -> None:
    """An exception leaves rank 2's block while the others wait in various calls."""
    async with await place.create() as group:
        await group.barrier(tag="ready")
        if place.rank == 2:
            await asyncio.sleep(0.2)  # by then the others wait; if one does not, its call fails all the same
            say(time.monotonic())
            raise ConnectionRefusedError("no GPU for rank 2")
        try:
            match place.rank:
                case 0:
                    await group.barrier()
                case 1:
                    await group.recv(0)
                case 3:
                    await group.all_gather(3, tag="gather")
                case 4:
                    await group.recv(2)
        except GroupAbortedError as error:
            say([error.origin, error.reason, time.monotonic()])


# ---------------------------------------------------------------------------------------------- events, seats


async def tells_events(place: Place) -> None:
    """Rank 0 tells what happens to the others; what they do is told them by the test."""
    group = await place.create(reconnect_grace=GRACE)
    if place.rank == 0:
        async for event in group.events():
            say([event.what, event.rank, event.text])
            if event.what == "aborted":
                break
    say(os.getpid())
    word = await asyncio.to_thread(sys.stdin.readline)
    if word.strip() == "abort":
        await group.abort("enough of this")
    await group.close()


async def holds(place: Place) -> None:
    """Wait in a call as a member; then once more; what each call came to."""
    options: dict[str, Any] = {"reconnect_grace": float(place.options[0])} if place.options else {}
    group = await place.create(**options)
    say(os.getpid())
    said = []
    for tag in ("now", "later"):
        try:
            await group.recv(1 - place.rank, tag=tag)
        except (FencedError, PeerLostError) as error:
            said.append([type(error).__name__, time.monotonic()])
    say(said)
    await group.close()
    if place.rank == 0:
        await meets_again(place, takeover=False)


async def comes_again(place: Place) -> None:
    """Another process for a rank that is, or was, held."""
    try:
        await meets_again(place, takeover="takeover" in place.options)
    except RankConflictError as error:
        say(["RankConflictError", error.rank, time.monotonic()])


async def meets_again(place: Place, *, takeover: bool) -> None:
    """Join, and say with whom, and when."""
    say(["joins", time.monotonic()])
    group = await place.create(takeover=takeover, store_timeout=30)
    when = time.monotonic()
    say([await group.all_gather([group.rank, os.getpid()]), when])
    await group.close()


if __name__ == "__main__":
    main(globals())
