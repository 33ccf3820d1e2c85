"""What the ranks of `test_blocked` do; see `programs`."""

from __future__ import annotations

import asyncio
import logging
import statistics
import sys
import time
from typing import Any

from aiopg import AsyncStatelessGroup

from .programs import Place, main, say

MIB = 1 << 20
BIG = bytes(range(256)) * (8 * MIB // 256)
PART = bytes(range(256)) * (MIB // 256)
PARTS = 32

GRACE = 1.0
"""reconnect_grace here: less than any silence of these ranks, which must not count as one of the connection."""

PATIENCE = 100.0
BEAT_SECONDS = 0.05


def connections(group: AsyncStatelessGroup) -> int:
    """How many connections its session has had."""
    words = repr(group.store.link).replace(">", " ").split()
    return int(next(word for word in words if word.startswith("connections=")).partition("=")[2])


async def told_to_go_on() -> None:
    """Wait for a word of the test."""
    await asyncio.to_thread(sys.stdin.readline)


async def stopped(place: Place) -> None:
    """Rank 1 stands still while 8 MiB are on their way to it; 0 and 2 wait for it, and work with each other."""
    logging.getLogger("aiopg.group").setLevel(logging.ERROR)  # that a call waits for long is what is to be
    group = await place.create(reconnect_grace=GRACE)
    if place.rank == 1:
        await stands_still(group, place.options)
        return
    team = await group.subgroup([0, 2])
    await group.barrier(tag="ready")
    await told_to_go_on()
    began = time.monotonic()
    if place.rank == 0:
        await group.send(BIG, 1)
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(group.barrier(PATIENCE))]
    if place.rank == 2:
        waits.append(asyncio.ensure_future(group.recv(1)))
    beats = [0.0]
    say("beating")
    while not await beat(team, waits[0].done(), beats):
        pass
    results = await asyncio.gather(*waits)
    say({"beats": len(beats), "slowest": max(beats), "waited": time.monotonic() - began, "results": results[1:]})
    await team.close()
    await group.close()


async def beat(team: AsyncStatelessGroup, done: bool, beats: list[float]) -> bool:
    """One exchange between the two; whether both are done waiting."""
    began = time.monotonic()
    all_done = all(await team.all_gather(done, timeout=10))
    beats.append(time.monotonic() - began)
    await asyncio.sleep(BEAT_SECONDS)
    return all_done


async def stands_still(group: AsyncStatelessGroup, options: list[str]) -> None:
    """Wait for a large message, and be stopped, or block the loop for so many seconds."""
    message = asyncio.ensure_future(group.recv(0, timeout=PATIENCE))
    await asyncio.sleep(0)
    await group.store.link.status()
    await group.barrier(tag="ready")
    say("waiting")
    if options:
        time.sleep(float(options[0]))  # noqa: ASYNC251 -- that is what is tested
    whole = await message == BIG
    await group.barrier(PATIENCE)
    await group.send("still here", 2)
    say({"whole": whole, "connections": connections(group)})
    await group.close()


async def slow_reader(place: Place) -> None:
    """Rank 3 reads nothing while 32 MiB are on their way to it; the others say how long their barriers take."""
    group = await place.create(reconnect_grace=GRACE)
    if place.rank == 3:
        messages = [asyncio.ensure_future(group.recv(0, timeout=PATIENCE)) for _ in range(PARTS)]
        await asyncio.sleep(0)
        await group.store.link.status()
        await group.barrier(tag="ready")
        say("waiting")
        sys.stdin.readline()  # blocks the loop: nothing comes in
        say([[part == PART for part in await asyncio.gather(*messages)].count(True), connections(group)])
        await group.close()
        return
    team = await group.subgroup([0, 1, 2])
    await group.barrier(tag="ready")
    before = await median_barrier(team)
    if place.rank == 0:
        for _ in range(PARTS):
            await group.send(PART, 3)
    await team.barrier()
    say([before, await median_barrier(team)])
    await team.close()
    await group.close()


async def median_barrier(team: AsyncStatelessGroup) -> float:
    """Seconds."""
    times = []
    for _ in range(200):
        began = time.monotonic()
        await team.barrier()
        times.append(time.monotonic() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main(globals())
