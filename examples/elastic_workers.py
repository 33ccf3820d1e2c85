"""Workers that lose one of them and go on: each step is shared by those who are there.

::

    python examples/elastic_workers.py

starts a store and four workers. In step 3 worker 2 is killed. The others learn of it in the call that they wait in,
form a group of three, and share that step and those that follow: the totals are those of four.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from aiopg import AsyncStatelessGroup, PeerLostError, StoreServer

WORKERS, STEPS = 4, 6


def share(step: int, rank: int, world_size: int) -> int:
    """One rank's part of a step."""
    return sum(range(1000 * step + rank, 1000 * (step + 1), world_size))


def say(line: str) -> None:
    """Print it in one piece, as the others print there too."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def work(url: str, me: int) -> None:
    """All steps, with whoever is there."""
    group = await AsyncStatelessGroup.connect(url, rank=me, world_size=WORKERS)
    step = 0
    while step < STEPS:
        try:
            step = min(await group.all_gather(step))  # one may have the last total that another did not get
            if (me, step) == (2, 3):
                os.kill(os.getpid(), signal.SIGKILL)
            total = await group.all_reduce(share(step, group.rank, group.world_size))
        except PeerLostError as error:
            group = await group.reform()
            say(f"worker {me}: {error}; I am rank {group.rank} of {group.world_size} now")
        else:
            say(f"worker {me}: step {step} makes {total}")
            step += 1
    await group.close()


async def main() -> None:
    """The store, and the workers as processes."""
    async with StoreServer() as store:
        command = (sys.executable, __file__, store.address)
        workers = [await asyncio.create_subprocess_exec(*command, str(rank)) for rank in range(WORKERS)]
        codes = [await worker.wait() for worker in workers]
    print(f"{codes.count(0)} of {WORKERS} workers did all {STEPS} steps")


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 2 else main())
