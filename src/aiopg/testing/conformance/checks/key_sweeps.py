"""Promise 4 for keys: each verb, given up at each step of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aiopg.errors import QueueEmptyError
from aiopg.keys import AsyncStore
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import Raises, holds, same
from aiopg.testing.conformance._giving_up import Moment, give_up, sweep
from aiopg.testing.conformance._ground import Ground
from aiopg.testing.conformance._seat import LONG

Change = Callable[[AsyncStore, str, float], Coroutine[Any, Any, Any]]
Sees = Callable[[AsyncStore, str], Awaitable[object]]


async def after_push(store: AsyncStore, key: str) -> list[bytes]:
    """What is in the queue."""
    return [await store.queue_pop(key) for _ in range(await store.queue_len(key))]


async def those_there(store: AsyncStore, key: str) -> list[bool]:
    """Which of three keys are there."""
    return [await store.check(f"{key} {n}") for n in range(3)]


async def value_or_none(store: AsyncStore, key: str) -> bytes | None:
    """What the key holds."""
    return await store.get(key) if await store.check(key) else None


CHANGES: dict[str, tuple[Change, Sees, object, object]] = {
    "set": (lambda s, key, t: s.set(key, "x", timeout=t), value_or_none, None, b"x"),
    "multi_set": (
        lambda s, key, t: s.multi_set({f"{key} {n}": "x" for n in range(3)}, timeout=t),
        those_there, [False] * 3, [True] * 3,
    ),
    "add": (lambda s, key, t: s.add(key, 5, timeout=t), value_or_none, None, b"5"),
    "append": (lambda s, key, t: s.append(key, "x", timeout=t), value_or_none, None, b"x"),
    "compare_set": (lambda s, key, t: s.compare_set(key, None, "x", timeout=t), value_or_none, None, b"x"),
    "queue_push": (lambda s, key, t: s.queue_push(key, "x", timeout=t), after_push, [], [b"x"]),
}  # fmt: skip
"""Each verb that changes something, how to look, and what is seen where it was not done and where it was."""

READS: dict[str, Callable[[AsyncStore, float], Coroutine[Any, Any, Any]]] = {
    "get": lambda s, t: s.get("key", timeout=t),
    "multi_get": lambda s, t: s.multi_get(["key", "other"], timeout=t),
    "wait": lambda s, t: s.wait(["key", "queue"], timeout=t),
    "check": lambda s, t: s.check(["key", "queue"], timeout=t),
    "list_keys": lambda s, t: s.list_keys(timeout=t),
    "num_keys": lambda s, t: s.num_keys(timeout=t),
    "queue_len": lambda s, t: s.queue_len("queue", timeout=t),
}


@check(
    "a change of a key that is given up at any moment was done once or not at all, and the next call sees which",
    keys=True,
)
async def changes(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    for verb, (change, sees, before, after) in CHANGES.items():
        count = 0

        async def turn(moment: Moment) -> bool:
            nonlocal count
            count += 1
            key = f"{verb} {count}"  # noqa: B023 (it is called in this turn of the loop)
            ended = await give_up(ground, moment, lambda timeout: change(store, key, timeout))  # noqa: B023
            await store.check(key)  # what was taken back is back when this is answered
            seen = await sees(other, key)  # noqa: B023
            holds(seen == after or (seen == before and not ended.done), f"{verb} {moment}: {seen!r} is there")  # noqa: B023
            return ended.done

        await sweep(turn, LONG)


@check("a read that is given up at any moment leaves nothing: the next call gets its own answer", keys=True)
async def reads(ground: Ground) -> None:
    store = await ground.store()
    await store.multi_set({"key": "1", "other": "2"})
    await store.queue_push("queue", "x")
    for verb, read in READS.items():
        wanted = await read(store, LONG)

        async def turn(moment: Moment) -> bool:
            ended = await give_up(ground, moment, lambda timeout: read(store, timeout))  # noqa: B023
            if ended.done:
                same(ended.result, wanted, verb)  # noqa: B023
            await store.set("mark", str(moment))
            same(await store.get("mark"), str(moment).encode(), f"get after {verb} {moment}")  # noqa: B023
            await store.delete_key("mark")
            same(await read(store, LONG), wanted, f"{verb} after one {moment}")  # noqa: B023
            return ended.done

        await sweep(turn, LONG)


@check("a pop that is given up at any moment loses nothing: its item is the queue's head again", keys=True)
async def pop(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    count = 0

    async def turn(moment: Moment) -> bool:
        nonlocal count
        count += 1
        items = [b"%d first" % count, b"%d second" % count]
        if count % 2:
            await other.queue_push("q", items[0])
            await other.queue_push("q", items[1])
        else:
            push = ground.spawn(other.queue_push("q", items[0]))
        ended = await give_up(ground, moment, lambda timeout: store.queue_pop("q", timeout=timeout))
        if count % 2 == 0:
            await push
            await other.queue_push("q", items[1])
        got = [ended.result] if ended.done else [await store.queue_pop("q")]
        got.append(await store.queue_pop("q"))
        same(got, items, f"the items, the first pop {moment}")
        with Raises(QueueEmptyError, "a pop when all was had"):
            await other.queue_pop("q", block=False)
        return ended.done

    await sweep(turn, LONG)


@check("a lock that is given up at any moment is free, granted or not", keys=True)
async def lock(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)

    async def turn(moment: Moment) -> bool:
        mine = store.lock("lock")
        ended = await give_up(ground, moment, lambda timeout: mine.acquire(timeout=timeout))
        same(mine.is_held, ended.done, f"whether the lock is held that was {moment}")
        if ended.done:
            await mine.release()
        async with other.lock("lock", timeout=5.0):
            pass
        return ended.done

    await sweep(turn, LONG)


@check("a release that is given up lets go of the lock all the same", keys=True)
async def release(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)

    async def turn(moment: Moment) -> bool:
        mine = store.lock("lock")
        await mine.acquire()
        ended = await give_up(ground, moment, lambda timeout: mine.release(timeout=timeout))
        same(mine.is_held, False, f"whether the lock is held whose release was {moment}")
        async with other.lock("lock", timeout=5.0):
            pass
        return ended.done

    await sweep(turn, LONG)


@check("a barrier that is given up at any moment has not been come to, unless all had", keys=True)
async def barrier(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    count = 0

    async def turn(moment: Moment) -> bool:
        nonlocal count
        count += 1
        name = f"barrier {count}"
        others = ground.spawn(other.barrier(name, 2))
        ended = await give_up(ground, moment, lambda timeout: store.barrier(name, 2, timeout=timeout))
        if not ended.done:
            await store.check(name)
            await other.check(name)
            if not others.done():
                await store.barrier(name, 2)
        await others
        await ground.all(one.barrier(name, 2, timeout=5.0) for one in (store, other))
        return ended.done

    await sweep(turn, LONG)
