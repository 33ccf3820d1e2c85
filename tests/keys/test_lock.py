"""Locks: one holder at a time, and a number that grows."""

from __future__ import annotations

import asyncio

import pytest

from aiopg import AsyncStore, KeyOperationError, KeyTimeoutError, StoreLostError, StoreServer, UsageError
from aiopg.testing import FaultProxy

from .conftest import LONG, Place, begun, steps


async def test_one_holds_it_at_a_time_in_the_order_of_asking(place: Place) -> None:
    """Tasks and links alike; the numbers grow from holder to holder."""
    stores = [await place.open() for _ in range(3)]
    inside, order, numbers = 0, [], []

    async def hold(n: int) -> None:
        nonlocal inside
        async with stores[n % 3].lock("lock") as lock:
            inside += 1
            assert inside == 1
            order.append(n)
            numbers.append(lock.number)
            await asyncio.sleep(0.001)
            inside -= 1

    calls = [await begun(hold(n), stores[n % 3]) for n in range(12)]
    await asyncio.gather(*calls)
    assert order == list(range(12))
    assert numbers == sorted(set(numbers))


async def test_the_number_grows_over_holders_that_let_go(store: AsyncStore, other: AsyncStore) -> None:
    """Per-key fencing: also when nobody held it in between."""
    numbers = []
    for n in range(6):
        lock = (store, other)[n % 2].lock("lock")
        numbers.append(await lock.acquire())
        assert lock.number == numbers[-1]
        assert lock.is_held
        await lock.release()
        assert not lock.is_held
    assert numbers == sorted(set(numbers))


async def test_what_is_not_held_has_no_number(store: AsyncStore) -> None:
    """Nor can it be let go."""
    lock = store.lock("lock")
    with pytest.raises(UsageError, match="lock 'lock' is not held"):
        _ = lock.number
    with pytest.raises(UsageError, match="not held"):
        await lock.release()
    async with lock:
        await lock.release()  # before the block ends is fine
    assert "not held" in repr(lock)


async def test_a_timeout_takes_the_request_back(store: AsyncStore, other: AsyncStore) -> None:
    """lock(timeout=), acquire(timeout=): who gave up does not get it later."""
    async with other.lock("lock"):
        with pytest.raises(KeyTimeoutError, match="lock of 'lock'"):
            await store.lock("lock", timeout=0.05).acquire()
        with pytest.raises(KeyTimeoutError):
            async with store.lock("lock", timeout=0.05):
                raise AssertionError
    async with other.lock("lock", timeout=LONG):
        pass


async def test_it_is_let_go_with_its_link(place: Place) -> None:
    """close() of the store, inside the block."""
    store, other = await place.open(), await place.open()
    lock = store.lock("lock")
    first = await lock.acquire()
    waiting = await begun(other.lock("lock").acquire(), other)
    await store.close()
    assert await waiting > first


async def test_an_error_in_the_block_is_the_one_that_is_seen(place: Place) -> None:
    """Whatever becomes of the lock; without an error the loss of the link is one."""

    async def close_in_the_block(number: int) -> None:
        store = await place.open()
        async with store.lock("lock"):
            await store.close()
            1 // number

    with pytest.raises(ZeroDivisionError):
        await close_in_the_block(0)
    with pytest.raises(UsageError, match="closed"):
        await close_in_the_block(1)


async def test_a_holder_whose_link_was_lost_is_told() -> None:
    """The link of a holder that is cut off for longer than its grace is lost, and the lock another's."""
    async with StoreServer() as server, FaultProxy(server.address, seed=3) as proxy:
        cut = await AsyncStore.connect(proxy.address, timeout=LONG, reconnect_grace=0.2)
        other = await AsyncStore.connect(server.address, timeout=LONG)
        lock = cut.lock("lock")
        first = await lock.acquire()
        proxy.refuse()
        proxy.cut()
        assert await other.lock("lock").acquire() > first
        proxy.accept()
        with pytest.raises(StoreLostError):
            await lock.release()
        await cut.close()
        await other.close()


async def test_what_was_let_go_by_hand_is_told(store: AsyncStore) -> None:
    """release() of what the store has let go already: somebody else may have had it."""
    lock = store.lock("lock")
    number = await lock.acquire()
    keys = store.link.keys()
    assert await keys.unlock(store._new_call("unlock", ("lock",), None), number)
    with pytest.raises(KeyOperationError, match=f"not held any more with number {number}"):
        await lock.release()


@pytest.mark.parametrize("how", ["timed out", "cancelled"])
async def test_a_lock_let_go_while_the_connection_is_down_is_let_go(how: str) -> None:
    """Also if nobody waits for that any more: it goes to the store with the next connection."""
    async with StoreServer() as server, FaultProxy(server.address, seed=3) as proxy:
        down = await AsyncStore.connect(proxy.address, timeout=LONG)
        other = await AsyncStore.connect(server.address, timeout=LONG)
        lock = down.lock("lock")
        await lock.acquire()
        proxy.refuse()
        proxy.cut()
        await steps(2)
        if how == "timed out":
            with pytest.raises(KeyTimeoutError):
                await lock.release(timeout=0.02)
        else:
            release = asyncio.ensure_future(lock.release())
            await steps(2)
            release.cancel()
            await asyncio.wait([release])
        assert not lock.is_held
        with pytest.raises(KeyTimeoutError):
            await other.lock("lock").acquire(timeout=0.05)
        proxy.accept()
        await other.lock("lock").acquire()
        await down.close()
        await other.close()


async def test_several_tasks_may_use_one_object(store: AsyncStore) -> None:
    """As with asyncio.Lock."""
    lock, inside = store.lock("lock"), 0

    async def hold() -> None:
        nonlocal inside
        for _ in range(5):
            async with lock:
                inside += 1
                assert inside == 1
                await asyncio.sleep(0)
                inside -= 1

    await asyncio.gather(*(hold() for _ in range(4)))
