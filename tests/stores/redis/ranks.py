"""What ranks do in the tests with real processes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from aiopg import AsyncStatelessGroup, GroupTimeoutError, StatelessGroup

__all__ = ["every_operation", "every_operation_blocking", "hold_up_the_loop", "wait_for_ever"]


async def every_operation(group: AsyncStatelessGroup) -> list[Any]:
    """Each operation once, from the start and in the other direction; what came of them."""
    rank, size = group.rank, group.world_size
    told: list[Any] = []
    for turn in range(2):
        await group.barrier()
        told.append(await group.broadcast(f"from {turn}" if rank == turn else None, src=turn))
        told.append(await group.all_gather(rank * 10 + turn) == [other * 10 + turn for other in range(size)])
        told.append(await group.gather(rank, dst=turn) == (list(range(size)) if rank == turn else None))
        told.append(await group.scatter(list(range(size)) if rank == turn else None, src=turn) == rank)
        swapped = await group.all_to_all([(rank, other) for other in range(size)])
        told.append([tuple(one) for one in swapped] == [(other, rank) for other in range(size)])
        told.append(await group.all_reduce(rank + 1, "sum"))
        await group.send({"from": rank}, (rank + 1) % size)
        told.append(await group.recv((rank - 1) % size) == {"from": (rank - 1) % size})
        await group.store.set(f"{turn} {rank}", b"here")
        await group.store.wait([f"{turn} {other}" for other in range(size)])
        told.append(await group.store.add(f"counter {turn}", 1) <= size)
    return told


def every_operation_blocking(group: StatelessGroup) -> list[Any]:
    """The same, in part, with the blocking group."""
    rank, size = group.rank, group.world_size
    group.barrier()
    told: list[Any] = [group.broadcast("x" if rank == 0 else None, src=0)]
    told.append(group.all_gather(rank) == list(range(size)))
    group.send(rank, (rank + 1) % size)
    told.append(group.recv((rank - 1) % size) == (rank - 1) % size)
    told.append(group.all_reduce(rank + 1, "sum"))
    return told


async def wait_for_ever(group: AsyncStatelessGroup, seconds: float, sign: str) -> str:
    """Rank 0 says when the others are gone, in seconds; they make a file as a sign, and wait to be killed."""
    other = await impatient(group)
    if group.rank:
        Path(sign).touch()  # noqa: ASYNC240 (a moment before it sleeps)
        await asyncio.sleep(1000)
    begun = time.monotonic()
    try:
        await other.barrier(timeout=seconds)
    except GroupTimeoutError:
        return "never told"
    except Exception as error:  # noqa: BLE001 (which it is, is what the test asks)
        return f"{type(error).__name__} {time.monotonic() - begun:.2f}"
    return "passed"


async def hold_up_the_loop(group: AsyncStatelessGroup, seconds: float) -> list[int]:
    """Rank 0 does something else for so long, and awaits nothing; then all meet."""
    async with await impatient(group) as other:
        if other.rank == 0:
            time.sleep(seconds)  # noqa: ASYNC251 (that is what is tested)
        return await other.all_gather(other.rank, timeout=seconds + 20)


async def impatient(group: AsyncStatelessGroup) -> AsyncStatelessGroup:
    """A group of the same ranks with a grace of a second, which has met."""
    url, name = os.environ["AIOPG_URL"], f"{group.name} of little patience"
    other = await AsyncStatelessGroup.connect(
        url, rank=group.rank, world_size=group.world_size, group=name, reconnect_grace=1.0
    )
    await other.barrier()
    return other
