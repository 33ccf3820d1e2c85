"""Queues."""

from __future__ import annotations

import asyncio
import logging

import pytest

from aiopg import AsyncStore, KeyTimeoutError, Limits, QueueEmptyError, StoreServer
from aiopg.keys import LinkSpace
from aiopg.stores.memory import MemoryHub, MemoryLink
from aiopg.testing import FaultProxy

from .conftest import LONG, Place, begun, steps, until


async def test_queues_are_first_in_first_out(store: AsyncStore, other: AsyncStore) -> None:
    """Queues FIFO; len 0 and check false when absent or drained."""
    assert (await store.queue_len("q"), await store.check("q")) == (0, False)
    assert [await store.queue_push("q", str(n)) for n in range(5)] == [1, 2, 3, 4, 5]
    assert (await other.queue_len("q"), await other.check("q")) == (5, True)
    assert [await other.queue_pop("q") for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    assert (await store.queue_len("q"), await store.check("q"), await store.num_keys()) == (0, False, 0)
    assert await store.queue_push("q", b"") == 1
    assert await store.queue_pop("q") == b""


async def test_pop_without_block_raises_when_empty(store: AsyncStore) -> None:
    """Pop(block=False) raises QueueEmpty."""
    for _ in range(2):
        with pytest.raises(QueueEmptyError, match="queue 'q' is empty") as caught:
            await store.queue_pop("q", block=False)
        assert isinstance(caught.value, LookupError)
        assert caught.value.key == "q"
        await store.queue_push("q", "x")
        assert await store.queue_pop("q", block=False) == b"x"


async def test_a_blocking_pop_honours_its_timeout(store: AsyncStore) -> None:
    """Blocking pop honours T."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(KeyTimeoutError, match="queue_pop of 'q' timed out") as caught:
        await store.queue_pop("q", timeout=0.1)
    assert 0.09 <= loop.time() - began < 1.0
    assert caught.value.keys == ("q",)
    await store.queue_push("q", "x")
    assert await store.queue_pop("q") == b"x"


async def test_one_push_wakes_exactly_one_waiter(store: AsyncStore, other: AsyncStore) -> None:
    """One push wakes exactly one waiter; the one that waited longest."""
    pops = [await begun(one.queue_pop("q"), one) for one in (store, other, store)]
    for n, pop in enumerate(pops):
        assert await other.queue_push("q", str(n)) == 0
        assert await pop == str(n).encode()
        await asyncio.gather(store.check("x"), other.check("x"))
        assert [one.done() for one in pops] == [place <= n for place in range(3)]


async def test_an_item_that_cannot_be_put_back_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """Its pop was cancelled when it was on its way, and the store has no room for it any more."""
    hub = MemoryHub(Limits(store_bytes=4000))
    store, other = (AsyncStore._over(LinkSpace(MemoryLink(hub)), LONG) for _ in range(2))
    pop = await begun(store.queue_pop("q"), store)
    calls = [
        asyncio.ensure_future(other.queue_push("q", b"x" * 1000)),
        asyncio.ensure_future(other.set("k", b"x" * 2900)),
    ]
    await asyncio.sleep(0)
    pop.cancel()
    await asyncio.gather(*calls)
    with pytest.raises(asyncio.CancelledError):
        await pop
    with caplog.at_level(logging.WARNING, "aiopg.store"):
        assert await store.queue_len("q") == 0
    assert any("'q'" in text and "is lost" in text and "store_bytes" in text for text in caplog.messages), (
        caplog.messages
    )
    await store.link.close()
    await other.link.close()


async def test_a_cancelled_waiter_passes_it_on(store: AsyncStore, other: AsyncStore) -> None:
    """A cancelled waiter passes it on, cancelled at whatever moment round the push."""
    for count in range(12):
        first = await begun(store.queue_pop("q"), store)
        second = await begun(other.queue_pop("q"), other)
        push = asyncio.ensure_future(store.queue_push("q", "x"))
        await steps(count)
        first.cancel()
        await asyncio.wait([first])
        if first.cancelled():
            assert await second == b"x"
        else:
            assert first.result() == b"x"
            await store.queue_push("q", "y")
            assert await second == b"y"
        await push
        assert await store.queue_len("q") == 0


async def test_two_ways_between_clones(store: AsyncStore) -> None:
    """Two-way exchange between clones."""
    clone = await store.clone()

    async def echo() -> None:
        for _ in range(50):
            await clone.queue_push("back", b"<" + await clone.queue_pop("forth") + b">")

    echoing = asyncio.ensure_future(echo())
    for n in range(50):
        await store.queue_push("forth", str(n))
        assert await store.queue_pop("back") == f"<{n}>".encode()
    await echoing
    await clone.close()


async def test_who_pops_and_closes_at_once_has_its_item(place: Place) -> None:
    """An item that came is its consumer's, also if the consumer's next step is to close: nobody else gets it."""
    keeper = await place.open()
    for n in range(5):
        async with await place.open() as consumer:
            await keeper.queue_push("q", str(n))
            assert await consumer.queue_pop("q") == str(n).encode()
        async with await place.open() as consumer:  # the store hears of the goodbye before it greets another
            assert await consumer.queue_len("q") == 0
        assert await keeper.queue_len("q") == 0


async def test_a_pop_lost_to_a_cut_is_not_lost_from_the_queue() -> None:
    """A pop lost to a cut is not lost from the queue: resumed, it brings its item; lost for good, it is back."""
    async with StoreServer() as server, FaultProxy(server.address, seed=5) as proxy:
        cut = await AsyncStore.connect(proxy.address, timeout=LONG, reconnect_grace=0.3)
        whole = await AsyncStore.connect(server.address, timeout=LONG)
        for n in range(30):
            pop = asyncio.ensure_future(cut.queue_pop("q"))
            await asyncio.sleep(0.001 * (n % 4))
            push = asyncio.ensure_future(whole.queue_push("q", str(n)))
            await steps(n % 5)
            proxy.cut()
            assert await pop == str(n).encode()
            await push
        for n in range(10):
            await whole.queue_push("q", str(n))
        proxy.blackhole()
        lost = [asyncio.ensure_future(cut.queue_pop("q")) for _ in range(3)]
        await steps(5)
        proxy.refuse()
        proxy.cut()
        results = await asyncio.gather(*lost, return_exceptions=True)
        assert all(isinstance(result, Exception) for result in results)

        async def all_are_back() -> bool:
            return await whole.queue_len("q") == 10

        await until(all_are_back)
        assert [await whole.queue_pop("q") for _ in range(10)] == [str(n).encode() for n in range(10)]
        await cut.close()
        await whole.close()


async def test_an_item_in_the_hands_of_a_lost_link_goes_back_to_the_head() -> None:
    """What the store has answered and nobody has read is the head of the queue again when the link is lost."""
    async with StoreServer() as server, FaultProxy(server.address, seed=5) as proxy:
        lost = await AsyncStore.connect(proxy.address, timeout=LONG, reconnect_grace=0.3)
        whole = await AsyncStore.connect(server.address, timeout=LONG)
        for n in range(3):
            await whole.queue_push("q", str(n))
        proxy.stall()  # bytes stand still both ways, and the pop is not yet there
        pop = asyncio.ensure_future(lost.queue_pop("q"))
        await steps(3)
        proxy.refuse()
        proxy.cut()
        with pytest.raises(Exception, match="lost"):
            await pop
        assert [await whole.queue_pop("q") for _ in range(3)] == [b"0", b"1", b"2"]
        await lost.close()
        await whole.close()
