"""What the ranks of `test_large` do: `python -m tests.system.large NAME RANK WORLD_SIZE URL LOOP [OPTION...]`."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from typing import Any

from aiopg import AsyncStatelessGroup

from .programs import Place, main, say

MIB = 2**20


class Lag:
    """The longest that an event loop stood still."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            self.worst = max(self.worst, time.monotonic() - before - 0.005)


def content(mib: int, number: int) -> bytes:
    """So many MiB, others for each number; no part of it is the same as the one a power of 2 behind it."""
    return (random.Random(number).randbytes(MIB + 1) * mib)[: mib * MIB]


async def broadcasts(place: Place) -> None:
    """Rank 0 gives an object of so many MiB to all, and sends one to the last rank, which stands still at first."""
    logging.getLogger("aiopg.group").setLevel(logging.ERROR)  # on a busy host a call may wait for long
    mib, slow = int(place.options[0]), float(place.options[1])
    last = place.world_size - 1
    given = [content(mib, number) for number in range(2)]
    lag = Lag()
    async with await place.create(group="large", store_timeout=100) as group:
        await group.barrier(100)
        say("formed")
        if place.rank == last:
            time.sleep(slow)  # noqa: ASYNC251 (the loop is to stand still)
        probe = asyncio.create_task(lag.run())
        got: Any = await group.broadcast(given[0] if place.rank == 0 else None, 0)
        sent: Any = given[1]
        if place.rank == 0:
            await group.send(sent, last)
        elif place.rank == last:
            sent = await group.recv(0)
        probe.cancel()
        await group.barrier(100)
    say({"whole": [got, sent] == given, "lag": lag.worst})


async def barriers(place: Place) -> None:
    """Barriers until a line comes in; how many, and the longest."""
    group = await AsyncStatelessGroup.connect(
        place.url or "", rank=place.rank, world_size=place.world_size, group="beside", store_timeout=100
    )
    end = asyncio.create_task(asyncio.to_thread(sys.stdin.readline)) if place.rank == 0 else None
    times = []
    more = True
    async with group:
        await group.barrier()
        say("formed")
        while more:
            more = await group.broadcast(end is not None and not end.done(), 0)
            started = time.monotonic()
            await group.barrier()
            times.append(time.monotonic() - started)
    say({"count": len(times), "longest": max(times)})


if __name__ == "__main__":
    main(globals())
