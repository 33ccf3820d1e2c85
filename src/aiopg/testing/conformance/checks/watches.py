"""watch: every change once, in order."""

from __future__ import annotations

import asyncio

from aiopg.errors import KeyTimeoutError
from aiopg.keys import Watch
from aiopg.stores.keys import KeyEvent
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import Raises, holds, same
from aiopg.testing.conformance._ground import Ground, steps


@check("a watch tells each kind of change with its value: set, deleted, expired, ended; queues are in none", keys=True)
async def kinds(ground: Ground) -> None:
    store = await ground.store()
    going = await ground.beside(store)
    watch = store.watch()
    await store.set("a", "1")
    await store.add("n", 5)
    await store.append("a", "2")
    await store.compare_set("a", "12", "3")
    await store.compare_set("a", "no", "4")
    await store.queue_push("q", "x")
    await store.delete_key("a")
    await store.set("short", "1", ttl=0.05)
    told = [await anext(watch) for _ in range(7)]
    await going.set("mine", "1", session=True)
    await going.link.close()
    told += [await anext(watch) for _ in range(2)]
    wanted = [
        ("set", "a", b"1"), ("set", "n", b"5"), ("set", "a", b"12"), ("set", "a", b"3"), ("deleted", "a", None),
        ("set", "short", b"1"), ("expired", "short", None), ("set", "mine", b"1"), ("ended", "mine", None),
    ]  # fmt: skip
    same([(change.kind, change.key, change.value) for change in told], wanted, "the changes")
    revisions = [change.revision for change in told]
    same(revisions, sorted(set(revisions)), "the revisions of the changes")
    await watch.aclose()


@check("a watch from a revision tells all that came after it, from 'now' what comes after it is made", keys=True)
async def from_revision(ground: Ground) -> None:
    store = await ground.store()
    revisions = [await store.set(key, key) for key in ("a", "b", "c")]
    watch = store.watch(revision=revisions[0])
    same([(await anext(watch)).key for _ in range(2)], ["b", "c"], "the keys that changed after the first revision")
    await watch.aclose()
    watch = store.watch()
    revision = await store.set("d", "1")
    change = await anext(watch)
    same((change.key, change.revision), ("d", revision), "the first change after a watch was made")
    await watch.aclose()


@check("a watch tells nothing of keys that do not begin with its prefix", keys=True)
async def prefix(ground: Ground) -> None:
    store = await ground.store()
    watch = store.watch("x/")
    await store.multi_set({"x/1": "", "y": "", "x": "", "x/2": ""})
    same([(await anext(watch)).key for _ in range(2)], ["x/1", "x/2"], "the keys of the changes")
    await watch.aclose()


@check("a step that is cancelled or times out loses nothing: each change is told once (promise 4)", keys=True)
async def given_up(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    watch, told = store.watch("k", timeout=0.05), list[KeyEvent]()
    await store.check("k")
    for number in range(40):
        step = ground.spawn(step_of(watch))
        await steps(number % 3)
        setting = ground.spawn(other.set("k", f"{number}"))
        await steps(number % 13)
        step.cancel()
        await asyncio.wait([step])
        if not step.cancelled():
            told.append(step.result())
        await setting
    while len(told) < 40:
        told.append(await anext(watch))
    same([change.value for change in told], [b"%d" % number for number in range(40)], "the values that were told")
    with Raises(KeyTimeoutError, "a step of a watch where nothing changes"):
        await anext(watch)
    await store.set("k", "last")
    same((await anext(watch)).value, b"last", "the change after a step that timed out")
    await watch.aclose()


@check("two watches are told the same changes, and one that is slow is told all that is kept", keys=True)
async def slow(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    watches = [store.watch(), other.watch()]
    await store.check("k")
    await other.check("k")
    for number in range(3):
        await other.multi_set({f"{number} {key}": "x" * key for key in range(200)})
    told = [[(await anext(watch)).revision for _ in range(600)] for watch in watches]
    same(told[0], sorted(set(told[0])), "the revisions of 600 changes")
    same(told[1], told[0], "the revisions as the other watch tells them")
    for watch in watches:
        await watch.aclose()


@check("closing a watch ends the step that waits", keys=True)
async def closed(ground: Ground) -> None:
    store = await ground.store()
    watch = store.watch()
    step = await ground.begun(last_of(watch), store.link)
    holds(not step.done(), "a watch told a change where nothing had changed")
    await watch.aclose()
    same(await step, None, "the step that waited")
    await store.set("k", "1")


async def step_of(watch: Watch) -> KeyEvent:
    """The next change."""
    return await anext(watch)


async def last_of(watch: Watch) -> KeyEvent | None:
    """The next change; None if the watch ends before that."""
    return await anext(watch, None)
