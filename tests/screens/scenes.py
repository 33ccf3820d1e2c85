"""What is to be seen: members of groups at a store, which wait for one another in many ways.

As a program (`python -m tests.screens.scenes NAME URL [...]`) in processes of its own, so that a browser beside them is
not held up by their event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys

from aiopg import AsyncStatelessGroup, AsyncStore
from aiopg.server.descriptors import raise_limit
from aiopg.testing import FaultProxy

__all__ = ["HOSTILE"]

HOSTILE = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>&amp;"

PATIENCE = 60.0


async def member(url: str, rank: int, world_size: int, group: str, grace: float = 5.0) -> AsyncStatelessGroup:
    """Join, and wait for the others for long."""
    return await AsyncStatelessGroup.connect(
        url, rank=rank, world_size=world_size, group=group, store_timeout=PATIENCE, reconnect_grace=grace
    )


async def one_of_eight(url: str, rank: str) -> None:
    """A rank of eight; at the barrier behind the key "start" rank 5 sleeps until somebody wakes it up."""
    async with await member(url, int(rank), 8, "train") as group, await AsyncStore.connect(url) as store:
        for _ in range(20):
            await group.barrier()
        await store.wait(["start"], timeout=PATIENCE)
        if group.rank == 5:
            await store.wait(["wake up"], timeout=PATIENCE)
        await group.barrier(timeout=PATIENCE)
        await store.set(f"done {rank}", b"")
        await store.wait(["end"], timeout=PATIENCE)


async def all_kinds(url: str) -> None:
    """Groups in all states, with ranks in all states; the awaited one has a name that is no markup."""
    socket.gethostname = lambda: HOSTILE
    waiting = await asyncio.gather(*(member(url, rank, 8, HOSTILE) for rank in range(8)))
    calls = [asyncio.create_task(one.barrier(tag=HOSTILE[:60], timeout=PATIENCE)) for one in waiting if one.rank != 5]
    forming = [asyncio.create_task(member(url, rank, 3, "forming")) for rank in (0, 2)]
    aborted = await member(url, 0, 1, "aborted")
    await aborted.abort(HOSTILE)
    async with FaultProxy(url) as proxy:
        ways = [url, url, url, proxy.address]
        gone = await asyncio.gather(*(member(way, rank, 4, "gone", 50) for rank, way in enumerate(ways)))
        await asyncio.gather(*(one.barrier() for one in gone))
        await gone[1].close()
        await gone[2].store.link.close()
        proxy.refuse()
        proxy.cut()
        async with await AsyncStore.connect(url) as store:
            await store.set("all kinds are there", b"")
            await store.wait(["end"], timeout=PATIENCE)
    for task in (*calls, *forming):
        task.cancel()


async def thousand(url: str, awaited: str, pace: str) -> None:
    """A group of a thousand that waits for the ranks named, and one beside it with so many rounds a second."""
    raise_limit()
    missing = {int(rank) for rank in awaited.split(",")}
    crowd = await asyncio.gather(*(member(url, rank, 1000, "crowd") for rank in range(1000)))
    calls = [asyncio.create_task(one.barrier(timeout=PATIENCE)) for one in crowd if one.rank not in missing]
    quick = await asyncio.gather(*(member(url, rank, 2, "quick") for rank in range(2)))
    async with await AsyncStore.connect(url) as store:
        await store.set("all are there", b"")
        end = asyncio.create_task(store.wait(["end"], timeout=PATIENCE))
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not end.done():
            await asyncio.gather(*(one.barrier() for one in quick))
            due += 1 / float(pace)
            await asyncio.sleep(max(0.0, due - loop.time()))
    for task in calls:
        task.cancel()


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    match sys.argv[1:]:
        case ["one_of_eight", url, rank]:
            asyncio.run(one_of_eight(url, rank))
        case ["all_kinds", url]:
            asyncio.run(all_kinds(url))
        case ["thousand", url, awaited, pace]:
            asyncio.run(thousand(url, awaited, pace))
