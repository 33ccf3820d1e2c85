"""Keys and their values: the checklist."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiopg.errors import KeyOperationError, KeyTimeoutError
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import Raises, holds, same
from aiopg.testing.conformance._ground import Ground


@check("set overwrites; text and bytes go in and bytes come out; an empty value is a value", keys=True)
async def set_and_get(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    for value in (b"first", b"second", b"", b"\x00\xff", bytes(range(256)) * 64):
        await store.set("key", value)
        holds(await other.get("key") == value, f"a value of {len(value)} bytes came as another one")
    await store.set("text", "t\u00e4xt")
    same(await other.get("text"), "t\u00e4xt".encode(), "a value that was text")
    await store.set("empty", "")
    same([await store.check("empty"), await store.num_keys()], [True, 3], "check and num_keys with an empty value")


@check("odd keys work: with spaces, slashes, a hyphen, zeros, braces, other alphabets, and long ones", keys=True)
async def odd_keys(ground: Ground) -> None:
    store = await ground.store()
    keys = ["-key3", "with spaces", " ", "a/b", "a//", "*", "a[b]?", "{x}", "\x00", "\n", "\u00e4\U0001f600", "x" * 900]
    for key in keys:
        await store.set(key, key)
    for key in keys:
        same(await store.get(key), key.encode(), f"the value of key {key!r:.40}")
    same(await store.list_keys(), sorted(keys), "the keys that there are")
    for key in keys:
        holds(await store.delete_key(key), f"key {key!r:.40} was not there to be deleted")


@check("get waits until the key is there, and at its deadline names the key and the timeout that it had", keys=True)
async def get_waits(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    waits = await ground.begun(store.get("key"), store.link)
    await other.set("another", "x")
    holds(not waits.done(), "get returned before its key was there")
    await other.set("key", "value")
    same(await waits, b"value", "what a get that waited came to")
    loop = asyncio.get_running_loop()
    began = loop.time()
    with Raises(KeyTimeoutError, "a get of a key that is not there") as caught:
        await store.get("missing", timeout=0.1)
    took = loop.time() - began
    holds(0.09 <= took <= 0.1 + ground.late, f"a get with a timeout of 0.1 s took {took:.3f} s")
    error = caught.error
    same((error.keys, round(error.timeout, 3)), ((store.prefix + "missing",), 0.1), "key and timeout in the error")


@check("after a get or wait that timed out the same link works, and answers what is asked then", keys=True)
async def after_a_timeout(ground: Ground) -> None:
    store = await ground.store()
    for number in range(5):
        with Raises(KeyTimeoutError, "a get of a key that is not there"):
            await store.get("key", timeout=0.01)
        with Raises(KeyTimeoutError, "a wait for a key that is not there"):
            await store.wait(["key", "q"], timeout=0.01)
        await store.set("key", f"{number}")
        same(await store.get("key"), b"%d" % number, "a get after one that timed out")
        await store.delete_key("key")


@check("wait is for all of its keys; some may be there before; it wakes over links and prefixes", keys=True)
async def wait(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    await other.set("a", "1")
    waits = await ground.begun(store.wait(["a", "b", "in/c"]), store.link)
    await other.with_prefix("in").set("c", "3")
    await store.link.status()
    holds(not waits.done(), "wait returned before the last of its keys was there")
    await other.set("b", "2")
    await waits
    await store.wait(["b", "a"])
    with Raises(KeyTimeoutError, "a wait for a key that is not there") as caught:
        await store.wait(["a", "no"], timeout=0.05)
    holds(caught.error.missing in ((store.prefix + "no",), None), f"missing is {caught.error.missing}")


@check("check never waits, and is true only if all are there, as keys or as queues that hold something", keys=True)
async def check_all(ground: Ground) -> None:
    store = await ground.store()
    await store.set("a", "1")
    told = [await store.check("a"), await store.check(["a", "q"])]
    await store.queue_push("q", "x")
    told += [await store.check("q"), await store.check(["a", "q"])]
    await store.queue_pop("q")
    told.append(await store.check(["a", "q"]))
    same(told, [True, False, True, True, False], "check of a key and of a queue, step by step")


@check("wait works for queues, and for keys and queues together; get is for keys alone", keys=True)
async def wait_for_queues(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    queue = await ground.begun(store.wait("q"), store.link)
    both = await ground.begun(store.wait(["q", "key"]), store.link)
    await other.queue_push("q", "x")
    await queue
    holds(not both.done(), "a wait for a queue and a key returned without the key")
    await other.set("key", "1")
    await both
    with Raises(KeyTimeoutError, "a get of the name of a queue"):
        await store.get("q", timeout=0.02)


@check("add counts from 0, atomically, down too, and the value can be read as decimal text", keys=True)
async def add(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    same(await store.add("n", 21), 21, "add of 21 to a key that is not there")
    same(await other.get("n"), b"21", "the number, read")
    same([await store.add("n", -30), await store.add("n", 0)], [-9, -9], "add of -30, and of 0")
    await store.set("n", "100")
    sums = await ground.all(one.add("n") for _ in range(20) for one in (store, other))
    same(sorted(sums), list(range(101, 141)), "the sums of 40 adds at once")


@check("add on what is no whole number of 64 bits is KeyOperationError for that call alone", keys=True)
async def add_to_text(ground: Ground) -> None:
    store = await ground.store()
    for value in ("x", "", "1.5", "9" * 30):
        await store.set("key", value)
        with Raises(KeyOperationError, f"add to {value!r}"):
            await store.add("key")
        same(await store.get("key"), value.encode(), "the value after an add that failed")
    await store.set("most", str(2**63 - 1))
    with Raises(KeyOperationError, "add past 64 bits"):
        await store.add("most")
    same(await store.add("most", -1), 2**63 - 2, "add after one that failed")


@check("delete_key says whether there was one; get after it waits again; a queue of that name goes too", keys=True)
async def delete(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    await store.set("key", "1")
    same([await store.delete_key("key"), await other.delete_key("key")], [True, False], "deleting a key twice")
    waits = await ground.begun(store.get("key"), store.link)
    holds(not waits.done(), "get returned a key that was deleted")
    await other.set("key", "2")
    same(await waits, b"2", "what a get came to after the key was deleted and set")
    await store.queue_push("q", "x")
    same([await store.delete_key("q"), await store.queue_len("q")], [True, 0], "deleting a queue, and its length")


@check("num_keys and list_keys are right after each step, and know no keys of the store's own", keys=True)
async def counting(ground: Ground) -> None:
    store = await ground.store()
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: store.set("a", "1"),
        lambda: store.set("a", "2"),
        lambda: store.add("b"),
        lambda: store.append("c", "x"),
        lambda: store.queue_push("q", "x"),
        lambda: store.queue_push("q", "y"),
        lambda: store.delete_key("a"),
        lambda: store.queue_pop("q"),
        lambda: store.queue_pop("q"),
        lambda: store.barrier("meeting", 1),
        lambda: store.multi_set({"d": "", "e": ""}),
    ]
    counts = [await store.num_keys()]
    for change in changes:
        await change()
        counts.append(await store.num_keys())
    same(counts, [0, 1, 1, 2, 3, 4, 4, 3, 3, 2, 2, 4], "num_keys, step by step")
    async with store.lock("lock"):
        same(await store.list_keys(), ["b", "c", "d", "e"], "list_keys, while a lock is held")
    same(await store.list_keys("d"), ["d"], "list_keys of a prefix")


@check("compare_set swaps what is as expected, leaves what is not, and says what is there now", keys=True)
async def compare_set(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    told = [await store.compare_set("key", "", "1"), await store.compare_set("key", "x", "1")]
    same((told, await store.check("key")), ([(False, None)] * 2, False), "compare_set of a key that is not there")
    told = [await store.compare_set("key", None, "1"), await other.compare_set("key", None, "2")]
    told += [await other.compare_set("key", "2", "3"), await other.compare_set("key", "1", "2")]
    wanted: list[tuple[bool, bytes | None]] = [(True, b"1"), (False, b"1"), (False, b"1"), (True, b"2")]
    same(told, wanted, "compare_set: created, there already, another value, swapped")
    same(await store.get("key"), b"2", "the value after all of that")
    await store.set("empty", "")
    same(await store.compare_set("empty", "", "x"), (True, b"x"), "compare_set of an empty value")


@check("of many who set what is not there, one does, and all learn whose value it is", keys=True)
async def one_winner(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    results = await ground.all(one.compare_set("k", None, f"{n}") for n in range(10) for one in (store, other))
    same(sum(done for done, _ in results), 1, "how many of 20 compare_set of one key were done")
    same({held for _, held in results}, {await store.get("k")}, "what all learned, and what is there")


@check("append creates or extends, and says how long it is then", keys=True)
async def append(ground: Ground) -> None:
    store = await ground.store()
    same([await store.append("key", "po"), await store.append("key", b"tato")], [2, 6], "the lengths")
    same(await store.get("key"), b"potato", "the value")
    same([await store.append("empty", ""), await store.check("empty")], [0, True], "append of nothing to nothing")


@check("multi_set and multi_get keep the order of their keys, and multi_get takes one key twice", keys=True)
async def many(ground: Ground) -> None:
    store = await ground.store()
    names = [f"key {number * 7919 % 200}" for number in range(200)]
    await store.multi_set({name: name for name in names})
    same(await store.multi_get(names[::-3]), [name.encode() for name in names[::-3]], "values by the order of keys")
    same(await store.multi_get([names[3]] * 3), [names[3].encode()] * 3, "one key three times")
    with Raises(KeyTimeoutError, "a multi_get of which one key is not there") as caught:
        await store.multi_get([names[0], "no"], timeout=0.05)
    holds(caught.error.missing in ((store.prefix + "no",), None), f"missing is {caught.error.missing}")


@check("multi_set is atomic: who looks sees all of it or nothing, and multi_get shows one moment", keys=True)
async def atomic(ground: Ground) -> None:
    store = await ground.store()
    other = await ground.beside(store)
    keys = [f"{number}" for number in range(8)]
    await store.multi_set(dict.fromkeys(keys, "0"))

    async def write() -> None:
        for number in range(1, 31):
            await store.multi_set(dict.fromkeys(keys, f"{number}"))

    writing = ground.spawn(write())
    while not writing.done():
        values = await other.multi_get(keys)
        same(len(set(values)), 1, f"values that were set together ({values}), how many there are")
        await asyncio.sleep(0)
    await writing


@check("each change of a key has a higher revision than the one before it", keys=True)
async def revisions(ground: Ground) -> None:
    store = await ground.store()
    told = [await store.set("a", "1"), await store.set("b", "1"), await store.multi_set({"a": "2", "c": "3"})]
    await store.delete_key("a")
    told.append(await store.set("a", "4"))
    same(told, sorted(set(told)), "the revisions")
    holds(told[2] - told[1] >= 2, f"two keys were set, and the revision grew from {told[1]} to {told[2]}")
