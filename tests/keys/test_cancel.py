"""Every call on keys, cancelled or timed out at each pass of the loop: nothing is lost, what comes next is right."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aiopg import AsyncStore, QueueEmptyError

from .conftest import LONG, Place, steps

MOST = 200
"""More passes than any call here takes that does not wait for another one."""


async def give_up_after(count: int, how: str, call: Awaitable[Any]) -> tuple[bool, Any]:
    """Run a call, and end it after so many passes of the loop; whether it was done before that, and its result."""

    async def run() -> Any:
        async with asyncio.timeout(None) as limit:
            limits.append(limit)
            return await call

    limits: list[asyncio.Timeout] = []
    task = asyncio.ensure_future(run())
    await steps(count + 1)
    if task.done():
        return True, task.result()
    if how == "cancel":
        task.cancel()
    else:
        limits[0].reschedule(asyncio.get_running_loop().time() - 1)
    try:
        return True, await task
    except (asyncio.CancelledError, TimeoutError):
        return False, None


Checks = Callable[[AsyncStore, AsyncStore, str, bool, Any], Awaitable[None]]
"""(the store of the call, another one, the key, whether it was done, its result)"""


async def overwritten(store: AsyncStore, other: AsyncStore, key: str, done: bool, result: Any) -> None:
    """What is set next is what is there."""
    revision = await store.set(key, "next")
    assert await other.get(key) == b"next"
    if done:
        assert revision > result


async def counted(store: AsyncStore, other: AsyncStore, key: str, done: bool, result: Any) -> None:
    """It was added once or not at all."""
    total = await other.add(key)
    assert total == 2 if done else total in (1, 2)


async def appended(store: AsyncStore, other: AsyncStore, key: str, done: bool, result: Any) -> None:
    """It is there once or not at all, and what comes next is behind it."""
    await store.append(key, "y")
    assert await other.get(key) in ((b"xy",) if done else (b"xy", b"y"))


async def one_won(store: AsyncStore, other: AsyncStore, key: str, done: bool, result: Any) -> None:
    """Either the one or the next one."""
    again = await store.compare_set(key, None, "next")
    assert again == (False, b"x") if done else again in ((False, b"x"), (True, b"next"))


async def all_or_none(store: AsyncStore, other: AsyncStore, key: str, done: bool, result: Any) -> None:
    """Of several keys all were set, or none."""
    there = [await other.check(f"{key} {n}") for n in range(3)]
    assert there == [True] * 3 if done else there in ([True] * 3, [False] * 3)


async def pushed(store: AsyncStore, other: AsyncStore, key: str, done: bool, result: Any) -> None:
    """It is in the queue once or not at all, before what comes next."""
    await store.queue_push(key, "y")
    items = [await other.queue_pop(key) for _ in range(await other.queue_len(key))]
    assert items in (([b"x", b"y"],) if done else ([b"x", b"y"], [b"y"]))


CHANGES: dict[str, tuple[Callable[[AsyncStore, str], Awaitable[Any]], Checks]] = {
    "set": (lambda store, key: store.set(key, "x"), overwritten),
    "multi_set": (lambda store, key: store.multi_set({f"{key} {n}": "x" for n in range(3)}), all_or_none),
    "add": (lambda store, key: store.add(key), counted),
    "append": (lambda store, key: store.append(key, "x"), appended),
    "compare_set": (lambda store, key: store.compare_set(key, None, "x"), one_won),
    "queue_push": (lambda store, key: store.queue_push(key, "x"), pushed),
}

READS: dict[str, Callable[[AsyncStore], Awaitable[Any]]] = {
    "get": lambda store: store.get("key"),
    "multi_get": lambda store: store.multi_get(["key", "other key"]),
    "wait": lambda store: store.wait(["key", "queue"]),
    "check": lambda store: store.check(["key", "queue"]),
    "list_keys": lambda store: store.list_keys(),
    "num_keys": lambda store: store.num_keys(),
    "queue_len": lambda store: store.queue_len("queue"),
}

HOW = pytest.mark.parametrize("how", ["cancel", "timeout"])


@HOW
@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_given_up_at_any_step_was_done_once_or_not_at_all(
    store: AsyncStore, other: AsyncStore, name: str, how: str
) -> None:
    """And the next calls, here and over another link, see one of the two."""
    change, check = CHANGES[name]
    for count in range(MOST):
        key = f"key {count}"
        done, result = await give_up_after(count, how, change(store, key))
        await check(store, other, key, done, result)
        if done:
            break
    assert 1 <= count < MOST - 1


@HOW
@pytest.mark.parametrize("name", READS)
async def test_a_read_given_up_at_any_step_leaves_nothing(store: AsyncStore, name: str, how: str) -> None:
    """The next one gets its own answer and not that of the one before."""
    await store.multi_set({"key": "1", "other key": "2"})
    await store.queue_push("queue", "x")
    expected = await READS[name](store)
    for count in range(MOST):
        done, result = await give_up_after(count, how, READS[name](store))
        assert not done or result == expected
        await store.set("mark", str(count))
        assert await store.get("mark") == str(count).encode()
        assert await store.delete_key("mark")
        assert await READS[name](store) == expected
        if done:
            break
    assert count >= 1


@HOW
async def test_a_get_given_up_while_its_key_comes_leaves_nothing(
    store: AsyncStore, other: AsyncStore, how: str
) -> None:
    """Whatever is first: the next call gets its own answer."""
    for count in range(20):
        setting = asyncio.ensure_future(other.set(f"key {count}", str(count)))
        done, result = await give_up_after(count, how, store.get(f"key {count}"))
        assert not done or result == str(count).encode()
        await setting
        assert await store.multi_get([f"key {count}", "key 0"]) == [str(count).encode(), b"0"]


@HOW
async def test_a_pop_given_up_at_any_step_loses_nothing(store: AsyncStore, other: AsyncStore, how: str) -> None:
    """What it would have had is the queue's head again, before what came later."""
    for count in range(MOST):
        await other.queue_push("q", f"{count} a")
        await other.queue_push("q", f"{count} b")
        done, result = await give_up_after(count, how, store.queue_pop("q"))
        got = [result] if done else [await store.queue_pop("q")]
        got.append(await other.queue_pop("q"))
        assert got == [f"{count} a".encode(), f"{count} b".encode()]
        with pytest.raises(QueueEmptyError):
            await store.queue_pop("q", block=False)
        if done:
            break
    assert count >= 1


@HOW
async def test_a_pop_given_up_while_its_item_comes_loses_nothing(
    store: AsyncStore, other: AsyncStore, how: str
) -> None:
    """The item is this one's or the next one's."""
    for count in range(20):
        push = asyncio.ensure_future(other.queue_push("q", str(count)))
        done, result = await give_up_after(count, how, store.queue_pop("q"))
        assert (result if done else await store.queue_pop("q")) == str(count).encode()
        await push


@HOW
async def test_a_pop_given_up_twice_is_put_back_twice(store: AsyncStore, other: AsyncStore, how: str) -> None:
    """Two items that were on their way keep their order."""
    for count in range(15):
        for item in "abc":
            await other.queue_push("q", item)
        pops = (give_up_after(count, how, store.queue_pop("q")) for _ in range(2))
        results = await asyncio.gather(*pops)
        got = [result for done, result in results if done]
        got += [await other.queue_pop("q") for _ in range(3 - len(got))]
        assert got == [b"a", b"b", b"c"], count


@HOW
async def test_a_barrier_given_up_at_any_step_can_be_called_again(
    store: AsyncStore, other: AsyncStore, how: str
) -> None:
    """Who gave up has not come, unless all had; then the next one begins anew."""
    for count in range(20):
        name = f"barrier {count}"
        others = asyncio.ensure_future(other.barrier(name, 2))
        done, _ = await give_up_after(count, how, store.barrier(name, 2))
        if not done:
            await store.check("x")
            if not others.done():
                await asyncio.gather(other.check("x"), asyncio.sleep(0))
            if not others.done():
                await store.barrier(name, 2)
        await others
        async with asyncio.timeout(LONG):
            await asyncio.gather(*(one.barrier(name, 3) for one in (store, other, store)))


@HOW
async def test_a_lock_given_up_at_any_step_is_free(store: AsyncStore, other: AsyncStore, how: str) -> None:
    """Granted or not when it was given up: the next one gets it."""
    for count in range(MOST):
        lock = store.lock("lock")
        done, number = await give_up_after(count, how, lock.acquire())
        assert lock.is_held is done
        if done:
            await lock.release()
        assert number is None or await other.lock("lock").acquire(timeout=LONG) > number
        if done:
            break
        async with other.lock("lock", timeout=LONG):
            pass
    assert count >= 1


@HOW
async def test_a_lock_given_up_while_it_comes_free_is_passed_on(store: AsyncStore, other: AsyncStore, how: str) -> None:
    """It is this one's or the next one's."""
    for count in range(15):
        first, second, third = other.lock("lock"), store.lock("lock"), other.lock("lock")
        await first.acquire()
        release = asyncio.ensure_future(first.release())
        done, _ = await give_up_after(count, how, second.acquire())
        await release
        if done:
            await second.release()
        async with asyncio.timeout(LONG):
            await third.acquire()
        await third.release()


@HOW
async def test_a_release_given_up_at_any_step_lets_go(store: AsyncStore, other: AsyncStore, how: str) -> None:
    """Once it has begun."""
    for count in range(MOST):
        lock = store.lock("lock")
        await lock.acquire()
        done, _ = await give_up_after(count, how, lock.release())
        assert not lock.is_held
        async with other.lock("lock", timeout=LONG):
            pass
        if done:
            break
    assert count >= 1


async def test_a_connect_given_up_at_any_step_leaves_nothing(place: Place) -> None:
    """No task stays, and no session."""
    for count in range(MOST):
        done, store = await give_up_after(count, "cancel", AsyncStore.connect(place.url, timeout=LONG))
        if done:
            await store.close()
            break


@HOW
async def test_a_storm_of_cancels_ends_in_right_answers(store: AsyncStore, other: AsyncStore, how: str) -> None:
    """Producers and consumers that give up again and again: each item is had once, in order."""
    total, had = 60, []

    async def produce() -> None:
        for n in range(total):
            await other.queue_push("q", str(n))
            await steps(n % 3)

    async def consume() -> None:
        for turn in range(10_000):
            done, item = await give_up_after(turn * 5 % 11, how, store.queue_pop("q"))
            if done:
                had.append(int(item))
            if len(had) == total:
                return

    async with asyncio.timeout(LONG):
        await asyncio.gather(produce(), consume())
    assert had == list(range(total))
    assert await store.num_keys() == 0
