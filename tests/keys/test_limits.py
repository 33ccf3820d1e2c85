"""Bad input and limits: a clear error at once, and the connection goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aiopg import AsyncStore, KeyOperationError, Limits, PayloadTooLargeError, StoreFullError, StoreServer

from .conftest import LONG

KEYED: dict[str, Callable[[AsyncStore, Any], Awaitable[Any]]] = {
    "set": lambda store, key: store.set(key, "x"),
    "multi_set": lambda store, key: store.multi_set({key: "x"}),
    "get": lambda store, key: store.get(key),
    "multi_get": lambda store, key: store.multi_get(["a", key]),
    "wait": lambda store, key: store.wait(["a", key]),
    "check": lambda store, key: store.check([key]),
    "add": lambda store, key: store.add(key),
    "append": lambda store, key: store.append(key, "x"),
    "compare_set": lambda store, key: store.compare_set(key, None, "x"),
    "delete_key": lambda store, key: store.delete_key(key),
    "queue_push": lambda store, key: store.queue_push(key, "x"),
    "queue_pop": lambda store, key: store.queue_pop(key),
    "queue_len": lambda store, key: store.queue_len(key),
    "barrier": lambda store, key: store.barrier(key, 1),
    "lock": lambda store, key: store.lock(key).acquire(),
}


@pytest.mark.parametrize("name", KEYED)
async def test_a_key_is_text_of_1_to_1024_bytes(store: AsyncStore, name: str) -> None:
    """Others are refused at once, with the value; the store goes on."""
    for key, error, text in (
        (7, TypeError, "7"),
        (b"key", TypeError, "b'key'"),
        (None, TypeError, "None"),
        ("", ValueError, "1 to 1024 bytes"),
        ("x" * 1025, ValueError, "1025"),
        ("\u00e4" * 513, ValueError, "1026"),
        ("bad \ud800", ValueError, "proper text"),
    ):
        with pytest.raises(error, match=text):
            await KEYED[name](store, key)
    assert await store.num_keys() == 0


VALUED: dict[str, Callable[[AsyncStore, Any], Awaitable[Any]]] = {
    "set": lambda store, value: store.set("key", value),
    "multi_set": lambda store, value: store.multi_set({"key": value}),
    "append": lambda store, value: store.append("key", value),
    "compare_set expected": lambda store, value: store.compare_set("key", value, "x"),
    "compare_set desired": lambda store, value: store.compare_set("key", None, value),
    "queue_push": lambda store, value: store.queue_push("key", value),
}


@pytest.mark.parametrize("name", VALUED)
async def test_a_value_is_text_or_bytes(store: AsyncStore, name: str) -> None:
    """Others are refused at once, with the value."""
    for value, error in ((7, TypeError), (["x"], TypeError), (1.5, TypeError), ("bad \ud800", ValueError)):
        with pytest.raises(error, match="must be"):
            await VALUED[name](store, value)
    if name != "compare_set expected":
        with pytest.raises(TypeError, match="None"):
            await VALUED[name](store, None)
    assert await store.num_keys() == 0


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda s: s.set("k", "v", ttl=0), ValueError, "ttl must be over 0"),
        (lambda s: s.set("k", "v", ttl=-1), ValueError, "ttl"),
        (lambda s: s.set("k", "v", ttl=float("inf")), ValueError, "finite"),
        (lambda s: s.set("k", "v", ttl=float("nan")), ValueError, "ttl"),
        (lambda s: s.multi_set({"k": "v"}, ttl="1"), TypeError, "ttl"),
        (lambda s: s.get("k", timeout=0), ValueError, "timeout must be over 0"),
        (lambda s: s.get("k", timeout=float("nan")), ValueError, "timeout"),
        (lambda s: s.get("k", timeout="1"), TypeError, "timeout"),
        (lambda s: s.lock("k").acquire(timeout=-1), ValueError, "timeout"),
        (lambda s: s.add("k", 1.0), TypeError, "amount"),
        (lambda s: s.add("k", True), TypeError, "amount"),
        (lambda s: s.add("k", 2**63), ValueError, "64 bits"),
        (lambda s: s.barrier("k", 0), ValueError, "world_size must be at least 1, not 0"),
        (lambda s: s.barrier("k", "2"), TypeError, "world_size"),
        (lambda s: s.barrier("k", 10**6), KeyOperationError, "world_size must be 1 to 16384"),
        (lambda s: s.multi_get([]), ValueError, "1 to 1024 keys, not 0"),
        (lambda s: s.multi_set({}), ValueError, "1 to 1024 keys, not 0"),
        (lambda s: s.wait(["k"] * 1025), ValueError, "1025; split"),
        (lambda s: s.check([f"k{n}" for n in range(1025)]), ValueError, "1025; split"),
        (lambda s: s.multi_set({f"k{n}": "" for n in range(1025)}), ValueError, "1025; split"),
        (lambda s: s.multi_get("key"), TypeError, "not the single 'key'"),
        (lambda s: s.list_keys(7), TypeError, "prefix"),
        (lambda s: s.list_keys("x" * 1025), ValueError, "at most 1024 bytes"),
    ],
)
async def test_what_makes_no_sense_is_said(
    store: AsyncStore, call: Callable[[AsyncStore], Awaitable[Any]], error: type[Exception], text: str
) -> None:
    """World_size 0 = ValueError; and so on. Nothing was changed, and the next call works."""
    with pytest.raises(error, match=text):
        await call(store)
    assert await store.num_keys() == 0


async def test_a_watch_and_a_lock_are_checked_when_they_are_made(store: AsyncStore) -> None:
    """Not only when they are used."""
    for make, error in (
        (lambda: store.watch(7), TypeError),  # type: ignore[arg-type]
        (lambda: store.watch("k", timeout=0), ValueError),
        (lambda: store.lock(""), ValueError),
        (lambda: store.lock("k", timeout=0), ValueError),
    ):
        with pytest.raises(error):
            make()


async def test_others_at_a_barrier_with_another_size_are_refused(store: AsyncStore, other: AsyncStore) -> None:
    """With both numbers; the ones that wait go on."""
    with pytest.raises(TimeoutError):
        await other.barrier("b", 3, timeout=0.02)
    waiting = asyncio.ensure_future(other.barrier("b", 2))
    await asyncio.sleep(0)
    await other.check("x")
    with pytest.raises(KeyOperationError, match="2, not 3"):
        await store.barrier("b", 3)
    await store.barrier("b", 2)
    await waiting


async def test_limits_are_enforced_and_the_connection_is_kept() -> None:
    """Limits enforced with the connection kept: each is named, and what was there stays."""
    limits = Limits(keys=5, value_bytes=1000, queue_items=3)
    async with StoreServer(limits=limits) as server:
        store = await AsyncStore.connect(server.address, timeout=LONG)
        await store.multi_set({f"k{n}": "x" * 1000 for n in range(4)})
        for call in (
            store.set("k0", "x" * 1001),
            store.append("k0", "x"),
            store.compare_set("k0", "x" * 1000, "x" * 1001),
            store.queue_push("q", "x" * 1001),
        ):
            with pytest.raises(PayloadTooLargeError) as caught:
                await call
            assert (caught.value.size, caught.value.limit) == (1001, 1000)
        for _ in range(3):
            await store.queue_push("q", "x")
        with pytest.raises(StoreFullError, match="queue_items = 3"):
            await store.queue_push("q", "x")
        for call in (store.set("k5", "x"), store.add("k5"), store.multi_set({"k0": "y", "k6": "y"})):
            with pytest.raises(StoreFullError, match="keys = 5"):
                await call
        assert await store.list_keys() == ["k0", "k1", "k2", "k3", "q"]
        assert await store.multi_get(["k0", "k3"]) == [b"x" * 1000] * 2
        await store.close()


async def test_what_no_frame_can_carry_is_refused_before_it_is_sent() -> None:
    """PayloadTooLargeError, and nothing else was disturbed."""
    async with StoreServer(limits=Limits(payload_bytes=100_000)) as server:
        store = await AsyncStore.connect(server.address, timeout=LONG)
        for value in VALUED.values():
            with pytest.raises(PayloadTooLargeError, match="100000"):
                await value(store, b"x" * 100_001)
        await store.multi_set({f"k{n}": "x" * 40_000 for n in range(2)})
        await store.set("k2", "x" * 40_000)
        with pytest.raises(PayloadTooLargeError):
            await store.multi_get([f"k{n}" for n in range(3)])
        assert await store.get("k2") == b"x" * 40_000
        await store.close()
