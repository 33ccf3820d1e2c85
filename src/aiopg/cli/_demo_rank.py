"""What one rank of `aiopg demo` does: a process of its own, started by it.

After each step the rank tells the narrator (the last rank of the group on the stage) what it saw and how long it took.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any, NamedTuple

from aiopg.errors import AiopgError, GroupTimeoutError
from aiopg.group import AsyncStatelessGroup
from aiopg.loops import fast_loop

__all__ = ["NEWS", "NOTE", "Seen", "main", "stage_of"]

NEWS = "weights version 7 is live"
NOTE = "note"
"""Tag of what a rank says while a step goes on."""

LATENESS = 0.15
"""Seconds that all ranks together take to come to the barrier."""

PATIENCE = 0.4
SPREAD = 0.8
"""The ranks wait for the straggler for 0.4 to 1.2 s, each for another time, and try again for 0.8 s. So when one gives
up for the first time all the others are there, and its error names the straggler alone."""

NAP = 1.5
POLL = 0.2


class Seen(NamedTuple):
    """What a rank tells of a step."""

    saw: Any
    says: str
    seconds: float


def stage_of(group: str) -> str:
    """Name of the group of all ranks and the narrator."""
    return f"{group}-stage"


async def all_gather(group: AsyncStatelessGroup) -> Seen:
    """Every rank says who it is."""
    started = time.monotonic()
    everyone = await group.all_gather({"rank": group.rank, "pid": os.getpid()})
    took = time.monotonic() - started
    others = ", ".join(f"{one['pid']}" for one in everyone if one["rank"] != group.rank)
    return Seen(everyone, f"I am process {os.getpid()}, the others are {others}", took)


async def broadcast(group: AsyncStatelessGroup) -> Seen:
    """Rank 0 has news."""
    started = time.monotonic()
    news = await group.broadcast(NEWS if group.rank == 0 else None, src=0)
    took = time.monotonic() - started
    return Seen(news, f"I told everyone: {news}" if group.rank == 0 else f"I heard: {news}", took)


async def barrier(group: AsyncStatelessGroup) -> Seen:
    """The ranks come one after the other, and go on together."""
    await asyncio.sleep(LATENESS * group.rank / group.world_size)
    came = time.monotonic()
    await group.barrier()
    went = time.monotonic()
    return Seen((came, went), f"I waited {1000 * (went - came):.0f} ms for the last to come", went - came)


async def ring(group: AsyncStatelessGroup) -> Seen:
    """A list goes round, and every rank adds itself."""
    after, before = (group.rank + 1) % group.world_size, (group.rank - 1) % group.world_size
    started = time.monotonic()
    if group.rank == 0:
        await group.send([0], dst=after)
        passed = await group.recv(src=before)
        says = f"{passed} came back to me"
    else:
        passed = [*await group.recv(src=before), group.rank]
        await group.send(passed, dst=after)
        says = f"I passed on {passed}"
    return Seen(passed, says, time.monotonic() - started)


async def straggler(group: AsyncStatelessGroup, stage: AsyncStatelessGroup) -> Seen:
    """The last rank is late; the others learn whom they wait for, and ask again until it comes."""
    started = time.monotonic()
    if group.rank == group.world_size - 1:
        await asyncio.sleep(NAP)
        await group.barrier()
        return Seen(None, "I overslept", time.monotonic() - started)
    missing, tries = None, 1
    timeout = PATIENCE + SPREAD * group.rank / group.world_size
    while True:
        try:
            await group.barrier(timeout=timeout)
            break
        except GroupTimeoutError as error:
            if missing is None and error.missing is not None:  # a store far away may say it too late, the first time
                missing = error.missing
                await stage.send(f"{type(error).__name__}: {error}", stage.world_size - 1, tag=NOTE)
        tries += 1
        timeout = SPREAD if tries == 2 else POLL
    if missing is None:
        await stage.send("nobody told me who was missing", stage.world_size - 1, tag=NOTE)
    return Seen(missing, f"it came, and the same barrier got through at try number {tries}", time.monotonic() - started)


async def play() -> None:
    """All steps in order."""
    async with (
        await AsyncStatelessGroup.from_env() as group,
        AsyncStatelessGroup(group.rank, group.world_size + 1, group.store, group=stage_of(group.name)) as stage,
    ):
        narrator = group.world_size
        for step in (all_gather, broadcast, barrier, ring):
            await stage.send(tuple(await step(group)), narrator)
        await stage.send(tuple(await straggler(group, stage)), narrator)


def main() -> None:
    """Be the rank that the environment says."""
    # Ctrl-C ends the demo: five tracebacks would teach nobody anything.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with asyncio.Runner(loop_factory=fast_loop()) as runner:
            runner.run(play())
    except AiopgError as error:
        sys.exit(f"{type(error).__name__}: {error}")
