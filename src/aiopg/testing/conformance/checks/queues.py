"""Queues: the checklist."""

from __future__ import annotations

import asyncio

from aiopg.errors import KeyTimeoutError, QueueEmptyError
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import Raises, holds, same
from aiopg.testing.conformance._ground import Ground, steps


@check("queues are first in, first out; what is absent or drained has length 0 and is not there", keys=True)
async def fifo(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    same((await store.queue_len("q"), await store.check("q")), (0, False), "length and check of a queue never used")
    same([await store.queue_push("q", f"{n}") for n in range(5)], [1, 2, 3, 4, 5], "what push returns")
    same((await other.queue_len("q"), await other.check("q")), (5, True), "length and check of a queue of five")
    same([await other.queue_pop("q") for _ in range(5)], [b"0", b"1", b"2", b"3", b"4"], "the items")
    same((await store.queue_len("q"), await store.check("q")), (0, False), "length and check of a drained queue")
    await store.queue_push("q", b"")
    same(await store.queue_pop("q"), b"", "an empty item")


@check("a pop that is not to wait raises QueueEmptyError where there is nothing", keys=True)
async def empty(ground: Ground) -> None:
    store = await ground.store()
    for _ in range(2):
        with Raises(QueueEmptyError, "a pop of an empty queue") as caught:
            await store.queue_pop("q", block=False)
        same(caught.error.key, store.prefix + "q", "the key in the QueueEmptyError")
        await store.queue_push("q", "x")
        same(await store.queue_pop("q", block=False), b"x", "the item")


@check("a pop that waits ends at its deadline, and takes nothing after that", keys=True)
async def deadline(ground: Ground) -> None:
    store = await ground.store()
    loop = asyncio.get_running_loop()
    began = loop.time()
    with Raises(KeyTimeoutError, "a pop of an empty queue"):
        await store.queue_pop("q", timeout=0.1)
    took = loop.time() - began
    holds(0.09 <= took <= 0.1 + ground.late, f"a pop with a timeout of 0.1 s took {took:.3f} s")
    same(await store.queue_push("q", "x"), 1, "what push returns after a pop that timed out")
    same(await store.queue_pop("q"), b"x", "the item")


@check("one push wakes one waiter, the one that waits longest, and puts one item in", keys=True)
async def one_waiter(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    pops = [await ground.begun(one.queue_pop("q"), one.link) for one in (store, other, store)]
    for number, pop in enumerate(pops):
        same(await other.queue_push("q", f"{number}"), 0, "what push returns where somebody waits")
        same(await pop, b"%d" % number, "the item of the one that waited longest")
        await store.link.status()
        await other.link.status()
        same([one.done() for one in pops], [place <= number for place in range(3)], "who has an item")
    same(await store.queue_len("q"), 0, "how many items are left")


@check("a waiter that is cancelled passes the item on (promise 4)", keys=True)
async def cancelled(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    for count in range(12):
        first = await ground.begun(store.queue_pop("q"), store.link)
        second = await ground.begun(other.queue_pop("q"), other.link)
        push = ground.spawn(store.queue_push("q", "x"))
        await steps(count)
        first.cancel()
        await asyncio.wait([first])
        if first.cancelled():
            same(await second, b"x", f"the item, its first waiter cancelled {count} passes after the push")
        else:
            await store.queue_push("q", "y")
            same([first.result(), await second], [b"x", b"y"], "two items of two waiters")
        await push
        same(await store.queue_len("q"), 0, "how many items are left")


@check("each item is had once, by whoever pops it, however many push and pop at once", keys=True)
async def many(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)

    async def push(number: int) -> None:
        await (store, other)[number % 2].queue_push("q", f"{number}")

    pops = [ground.spawn((other, store)[number % 2].queue_pop("q")) for number in range(40)]
    await ground.all(push(number) for number in range(60))
    rest = [await store.queue_pop("q") for _ in range(20)]
    items = sorted(int(item) for item in [*[await pop for pop in pops], *rest])
    same(items, list(range(60)), "the items that were had")
    same(await store.queue_len("q"), 0, "how many items are left")


@check("what a link that is closed waits for goes to the others, or stays in the queue", keys=True)
async def closed(ground: Ground) -> None:
    store = await ground.store()
    gone = await ground.beside(store)
    pop = await ground.begun(gone.queue_pop("q"), gone.link)
    await gone.link.close()
    await asyncio.wait([pop])
    await store.queue_push("q", "x")
    same(await store.queue_pop("q"), b"x", "an item for which a link had waited that was closed")
