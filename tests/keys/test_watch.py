"""Watches: every change once, in order, or an error that says that there is a gap."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress

import pytest

from aiopg import AsyncStatelessGroup, AsyncStore, KeyTimeoutError, Limits, StoreServer, UsageError, WatchGapError
from aiopg.testing import FaultProxy

from .conftest import LONG, Place, begun, steps, until


async def test_it_tells_each_kind_of_change(store: AsyncStore, place: Place) -> None:
    """What set a key, what deleted it, that its time ran out, that its session ended; with revisions, no queue."""
    going = await place.open()
    async with store.watch() as watch:
        await store.set("a", "1")
        await store.add("n", 5)
        await store.append("a", "2")
        await store.compare_set("a", "12", "3")
        await store.compare_set("a", "no", "4")
        await store.queue_push("q", "x")
        await store.delete_key("a")
        await store.set("short", "1", ttl=0.05)
        assert (await anext(watch)).key == "a"
        told = [await anext(watch) for _ in range(6)]
        await going.set("mine", "1", session=True)
        await going.close()
        told += [await anext(watch) for _ in range(2)]
    assert [(c.kind, c.key, c.value, c.revision) for c in told] == [
        ("set", "n", b"5", 2),
        ("set", "a", b"12", 3),
        ("set", "a", b"3", 4),
        ("deleted", "a", None, 5),
        ("set", "short", b"1", 6),
        ("expired", "short", None, 7),
        ("set", "mine", b"1", 8),
        ("ended", "mine", None, 9),
    ]


async def test_nothing_is_lost_between_watch_and_the_first_step(store: AsyncStore, other: AsyncStore) -> None:
    """It listens from the moment in which watch() is called."""
    await store.set("k", "before")
    watch = store.watch("k")
    await store.set("k", "1")
    await other.set("k", "2")
    await steps(10)
    assert [(await anext(watch)).value for _ in range(2)] == [b"1", b"2"]
    await watch.aclose()


async def test_it_begins_where_it_is_told(store: AsyncStore) -> None:
    """Watch from revision: what is after it, and 0 is all."""
    revisions = [await store.set(key, key) for key in ("a", "b", "ab", "c")]
    for after, expected in ((0, "a b ab c"), (revisions[1], "ab c"), (revisions[2], "c")):
        watch = store.watch(revision=after)
        assert [(await anext(watch)).key for _ in expected.split()] == expected.split()
        await watch.aclose()
    watch = store.watch("a", revision=0)
    assert [(await anext(watch)).key for _ in range(2)] == ["a", "ab"]
    await watch.aclose()


async def test_a_cancelled_step_loses_nothing(store: AsyncStore, other: AsyncStore) -> None:
    """asyncio.timeout round a step, or a cancel at whatever pass of the loop: the next step goes on there."""
    watch, told = store.watch(), []
    await store.check("k")
    for n in range(60):
        step = asyncio.ensure_future(anext(watch))
        await steps(n % 3)
        setting = asyncio.ensure_future(other.set("k", str(n)))
        await steps(n % 13)
        step.cancel()
        await asyncio.wait([step])
        if not step.cancelled():
            told.append(step.result())
        await setting
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                told.append(await anext(watch))
    while len(told) < 60:
        told.append(await anext(watch))
    assert [(change.value, change.revision) for change in told] == [(str(n).encode(), n + 1) for n in range(60)]
    await watch.aclose()


async def test_a_step_that_times_out_is_no_end(store: AsyncStore) -> None:
    """timeout= of the watch is that of each step."""
    watch = store.watch("k", timeout=0.05)
    for n in range(2):
        with pytest.raises(KeyTimeoutError, match="watch of 'k'"):
            await anext(watch)
        await store.set("k", str(n))
        assert (await anext(watch)).value == str(n).encode()
    await watch.aclose()


async def test_nothing_is_missed_or_doubled_over_broken_connections() -> None:
    """A watch over a link that is cut again and again tells every change once, in order."""
    async with StoreServer() as server, FaultProxy(server.address, seed=11) as proxy:
        watching = await AsyncStore.connect(proxy.address, timeout=LONG)
        writing = await AsyncStore.connect(server.address, timeout=LONG)
        watch, total = watching.watch("k"), 400
        await watching.check("k")  # answered behind it: from here on the store knows of the watch

        async def write() -> None:
            for n in range(total):
                await writing.set("k", str(n))
                await writing.set("another", "x")
                if n % 20 == 0:
                    await asyncio.sleep(0.01)

        async def read() -> list[tuple[bytes | None, int]]:
            return [((change := await anext(watch)).value, change.revision) for _ in range(total)]

        _, told, _ = await asyncio.gather(write(), read(), proxy.chaos(cuts=20, between=(0.0, 0.03)))
        assert told == [(str(n).encode(), 2 * n + 1) for n in range(total)]
        assert proxy.faults["cut"] >= 5
        await watch.aclose()
        await watching.close()
        await writing.close()


async def test_a_slow_watch_gets_all_that_is_kept(store: AsyncStore, other: AsyncStore) -> None:
    """Thousands of changes at once come in many answers and in order."""
    watch = store.watch()
    await store.check("k")
    for n in range(3):
        await other.multi_set({f"{n} {m}": "x" * m for m in range(1000)})
    assert [(await anext(watch)).revision for _ in range(3000)] == list(range(1, 3001))
    await watch.aclose()


async def test_a_gap_is_an_error_and_not_silence() -> None:
    """Who is so late that changes are not kept any more is told, however often it asks; the store goes on."""
    async with StoreServer(limits=Limits(kept_changes=10)) as server:
        store = await AsyncStore.connect(server.address, timeout=LONG)
        watch = store.watch("k")
        for n in range(12):
            await store.set("k", str(n))
        assert (await anext(watch)).revision == 1
        for _ in range(2):
            with pytest.raises(WatchGapError, match=r"'k\*' after revision 1 .* after 2 are") as caught:
                await anext(watch)
        assert (caught.value.prefix, caught.value.revision, caught.value.oldest) == ("k", 1, 2)
        await watch.aclose()
        async with store.watch("k", revision=2) as watch:
            assert [(await anext(watch)).revision for _ in range(10)] == list(range(3, 13))
        async with store.watch(revision=0) as watch:
            with pytest.raises(WatchGapError):
                await anext(watch)
        await store.close()


async def test_a_revision_of_another_life_is_a_gap(store: AsyncStore) -> None:
    """One that this store never reached."""
    async with store.watch(revision=5) as watch:
        with pytest.raises(WatchGapError):
            await anext(watch)


@pytest.mark.parametrize(("revision", "error"), [(-1, ValueError), ("1", TypeError), (True, TypeError)])
async def test_a_revision_is_a_number(store: AsyncStore, revision: object, error: type[Exception]) -> None:
    """From 0."""
    with pytest.raises(error, match="revision"):
        store.watch(revision=revision)  # type: ignore[arg-type]


async def test_it_ends_when_it_is_closed(store: AsyncStore) -> None:
    """Also the step that waits; closing twice is fine."""
    watch = store.watch()
    step = await begun(anext(watch, None), store)
    await watch.aclose()
    async with asyncio.timeout(LONG):
        assert await step is None
    await watch.aclose()
    assert [change async for change in watch] == []
    assert "closed" in repr(watch)


async def test_it_is_one_task_s(store: AsyncStore) -> None:
    """Two that read one watch would each get half."""
    watch = store.watch()
    first = await begun(anext(watch), store)
    with pytest.raises(UsageError, match="another task"):
        await anext(watch)
    await store.set("k", "1")
    assert (await first).key == "k"
    await watch.aclose()


async def test_one_that_is_let_fall_leaves_nothing_at_the_store() -> None:
    """`break` out of a loop over a watch that nobody holds."""
    async with StoreServer(limits=Limits(waiting_calls=10)) as server:
        store = await AsyncStore.connect(server.address, timeout=LONG)
        for n in range(30):
            revision = await store.set(f"k{n}", "x")
            async for event in store.watch(f"k{n}", revision=revision - 1):
                assert event.key == f"k{n}"
                break
            await steps(3)  # it is told to the loop when it is freed
        with pytest.raises(KeyTimeoutError):
            await store.get("nowhere", timeout=0.05)
        await store.close()


async def test_a_group_that_is_not_joined_is_joined_by_the_first_step(place: Place) -> None:
    """The watch of its keys can be made before."""
    store = await place.open()
    group = AsyncStatelessGroup(0, 1, store, group="g")
    watch = group.store.watch(revision=0)
    step = asyncio.ensure_future(anext(watch))
    await steps(20)
    await group.store.set("k", "1")
    assert (await step).value == b"1"
    last = await begun(anext(watch, None), store)
    await group.close()
    assert await last is None
    assert group.store.timeout < math.inf


async def test_changes_come_without_being_asked_for(store: AsyncStore, other: AsyncStore) -> None:
    """An async for hears of what happens later."""
    heard: list[str] = []

    async def listen() -> None:
        async with store.watch("x/") as watch:
            async for change in watch:
                heard.append(change.key)

    listening = await begun(listen(), store)
    await other.multi_set({"x/1": "", "y": "", "x/2": ""})

    async def all_heard() -> bool:
        return heard == ["x/1", "x/2"]

    await until(all_heard)
    listening.cancel()
    await asyncio.wait([listening])
