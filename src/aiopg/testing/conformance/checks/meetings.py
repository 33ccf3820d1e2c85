"""Barriers and locks of a key space."""

from __future__ import annotations

import asyncio

from aiopg.errors import KeyOperationError, KeyTimeoutError
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import Raises, holds, same
from aiopg.testing.conformance._ground import Ground
from aiopg.testing.conformance._keys import new_key_call


@check("a barrier is passed when as many have come, and then begins anew", keys=True)
async def barrier(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    for _ in range(3):
        first = [await ground.begun(one.barrier("b", 3), one.link) for one in (store, other)]
        holds(not any(call.done() for call in first), "a barrier of 3 was passed by 2")
        await store.barrier("b", 3)
        await asyncio.gather(*first)


@check("a barrier that times out says how many had come, and its caller is out again (promises 3 and 4)", keys=True)
async def barrier_timeout(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    with Raises(KeyTimeoutError, "a barrier of 2 to which one comes") as caught:
        await store.barrier("b", 2, timeout=0.05)
    error = caught.error
    holds((error.arrived, error.expected) in ((1, 2), (None, None)), f"{error.arrived} of {error.expected} are told")
    waits = await ground.begun(other.barrier("b", 2), other.link)
    holds(not waits.done(), "a barrier of 2 was passed by one, and one that had given up")
    with Raises(KeyOperationError, "a barrier of 3 where others wait for 2"):
        await store.barrier("b", 3)
    await store.barrier("b", 2)
    await waits


@check("one holds a lock at a time, in the order of asking; its fencing numbers only grow", keys=True)
async def lock(ground: Ground) -> None:
    store = await ground.store()
    stores = [store, await ground.beside(store), await ground.beside(store)]
    inside, order, numbers = [0], [], []

    async def hold(who: int) -> None:
        async with stores[who % 3].lock("lock") as held:
            inside[0] += 1
            same(inside[0], 1, "how many hold the lock")
            order.append(who)
            numbers.append(held.number)
            await asyncio.sleep(0.001)
            inside[0] -= 1

    for call in [await ground.begun(hold(who), stores[who % 3].link) for who in range(9)]:
        await call
    same(order, list(range(9)), "the holders, in the order of asking")
    for turn in range(4):
        async with stores[turn % 2].lock("lock") as held:
            numbers.append(held.number)
    same(numbers, sorted(set(numbers)), "the fencing numbers, from holder to holder")


@check("who gives a lock up while waiting does not get it later, and it passes to the next (promise 4)", keys=True)
async def lock_given_up(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    async with store.lock("lock"):
        with Raises(KeyTimeoutError, "a lock that is held"):
            await other.lock("lock").acquire(timeout=0.05)
        waits = await ground.begun(other.lock("lock").acquire(), other.link)
        waits.cancel()
        await asyncio.wait([waits])
    async with store.lock("lock"):
        pass


@check("a lock is let go when its link ends, and letting go of what is not held any more is told", keys=True)
async def lock_lost(ground: Ground) -> None:
    store = await ground.store()
    gone = await ground.beside(store)
    first = await gone.lock("lock").acquire()
    waits = await ground.begun(store.lock("lock").acquire(), store.link)
    await gone.link.close()
    number = await waits
    holds(number > first, f"the next holder has number {number}, the one before it had {first}")
    again = store.lock("other")
    held = await again.acquire()
    call = new_key_call("unlock", again.name)
    keys = store.link.keys()
    same([await keys.unlock(call, held), await keys.unlock(call, held)], [True, False], "letting go of a lock twice")
    with Raises(KeyOperationError, "releasing a lock that is not held any more"):
        await again.release()
