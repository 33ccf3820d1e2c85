"""Deadlines of calls on keys."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

import pytest

from aiopg import AiopgError, AsyncStore, KeyTimeoutError, Limits, Outcome, PeerError, StoreServer
from aiopg.testing import FaultProxy

from .conftest import LONG, Place, begun

Call = Callable[[AsyncStore, "float | None"], Awaitable[object]]

WAITING: dict[str, Call] = {
    "get": lambda store, timeout: store.get("key", timeout=timeout),
    "multi_get": lambda store, timeout: store.multi_get(["there", "key"], timeout=timeout),
    "wait": lambda store, timeout: store.wait(["there", "key"], timeout=timeout),
    "queue_pop": lambda store, timeout: store.queue_pop("key", timeout=timeout),
    "barrier": lambda store, timeout: store.barrier("key", 2, timeout=timeout),
    "lock": lambda store, timeout: store.lock("key").acquire(timeout=timeout),
    "watch": lambda store, timeout: anext(store.watch("key", timeout=timeout or store.timeout)),
}

ALL: dict[str, Call] = WAITING | {
    "set": lambda store, timeout: store.set("key", "x", timeout=timeout),
    "multi_set": lambda store, timeout: store.multi_set({"key": "x"}, timeout=timeout),
    "check": lambda store, timeout: store.check("key", timeout=timeout),
    "add": lambda store, timeout: store.add("key", timeout=timeout),
    "append": lambda store, timeout: store.append("key", "x", timeout=timeout),
    "compare_set": lambda store, timeout: store.compare_set("key", None, "x", timeout=timeout),
    "delete_key": lambda store, timeout: store.delete_key("key", timeout=timeout),
    "list_keys": lambda store, timeout: store.list_keys("key", timeout=timeout),
    "num_keys": lambda store, timeout: store.num_keys(timeout=timeout),
    "queue_push": lambda store, timeout: store.queue_push("key", "x", timeout=timeout),
    "queue_len": lambda store, timeout: store.queue_len("key", timeout=timeout),
}


@pytest.mark.parametrize("name", WAITING)
async def test_the_error_names_the_key_and_the_timeout(store: AsyncStore, other: AsyncStore, name: str) -> None:
    """Error names the key and the T used (100 ms stays 100 ms, not the connect timeout)."""
    await other.lock("key").acquire()
    await other.set("there", "1")
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(KeyTimeoutError, match=rf"^{name} of .*'key' timed out .* \(timeout 0.1 s\)") as caught:
        await WAITING[name](store, 0.1)
    took, error = loop.time() - began, caught.value
    assert 0.09 <= took < 1.1
    assert error.timeout == pytest.approx(0.1)
    assert error.keys[-1] == "key"
    assert isinstance(error, TimeoutError)
    assert isinstance(error, PeerError)
    if name in ("multi_get", "wait"):
        assert error.missing == ("key",)
        assert "missing: 'key'" in str(error)
    if name != "watch":
        assert error.outcome is Outcome.NOT_APPLIED


async def test_the_store_s_own_timeout_holds_where_none_is_given(place: Place) -> None:
    """timeout= of the store is the default of each call; one of the call comes before it; inf is none."""
    store, other = await place.open(timeout=0.05), await place.open()
    await other.set("there", "1")
    await other.lock("key").acquire()
    results = await asyncio.gather(*(call(store, None) for call in WAITING.values()), return_exceptions=True)
    assert all(isinstance(result, KeyTimeoutError) and result.timeout < 0.1 for result in results), results
    calls = [asyncio.ensure_future(call(store, math.inf)) for call in WAITING.values()]
    with pytest.raises(KeyTimeoutError):
        await store.get("nowhere", timeout=0.15)
    assert not any(call.done() for call in calls)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)


async def test_after_a_timeout_the_same_client_works(store: AsyncStore) -> None:
    """**after a timed-out get/wait the same client works**: set then get returns the new value (no stale reply)."""
    for n in range(20):
        key = f"key {n}"
        with pytest.raises(KeyTimeoutError):
            await (store.wait(key, timeout=0.005) if n % 2 else store.get(key, timeout=0.005))
        await store.set(key, str(n))
        assert await store.get(key) == str(n).encode()
        assert await store.get(key, timeout=0.05) == str(n).encode()


async def test_a_key_that_comes_in_the_last_moment_is_got_or_is_there(store: AsyncStore, other: AsyncStore) -> None:
    """Whichever is first, the deadline or the key: nothing is lost, and nobody gets what is another's."""
    for n in range(30):
        pop = asyncio.ensure_future(store.queue_pop("q", timeout=0.01))
        await asyncio.sleep(0.008 + n % 5 * 0.001)
        await other.queue_push("q", str(n))
        try:
            got = await pop
        except KeyTimeoutError:
            got = await store.queue_pop("q", block=False)
        assert got == str(n).encode()


async def test_a_barrier_says_how_many_came(store: AsyncStore, other: AsyncStore) -> None:
    """Missing clients: error at T saying `k/n joined`; who timed out has not come."""
    with pytest.raises(KeyTimeoutError, match=r"barrier of 'b' .*; 2/3 arrived") as caught:
        await asyncio.gather(other.barrier("b", 3, timeout=0.3), store.barrier("b", 3, timeout=0.05))
    assert (caught.value.arrived, caught.value.expected) == (2, 3)
    with pytest.raises(KeyTimeoutError, match="1/3"):
        await store.barrier("b", 3, timeout=0.35)  # by then the other one has gone, too
    for _ in range(3):  # and it can be used again
        await asyncio.gather(*(one.barrier("b", 3) for one in (store, other, store)))


async def test_every_call_ends_in_time_where_the_store_is_silent() -> None:
    """The outcome is unknown then, and the connection's return settles everything."""
    async with StoreServer() as server, FaultProxy(server.address, seed=2) as proxy:
        store = await AsyncStore.connect(proxy.address, timeout=LONG)
        proxy.stall()
        loop = asyncio.get_running_loop()
        began = loop.time()
        results = await asyncio.gather(*(call(store, 0.1) for call in ALL.values()), return_exceptions=True)
        assert loop.time() - began < 1.1
        for name, error in zip(ALL, results, strict=True):
            assert isinstance(error, KeyTimeoutError), name
            assert error.op == name
            assert name == "watch" or error.outcome is Outcome.UNKNOWN
        proxy.resume()
        await store.set("key", "1")
        assert await store.get("key") == b"1"
        await store.close()


async def test_a_call_that_was_never_sent_was_not_applied() -> None:
    """As many as a link keeps wait for a silent store: what comes behind them waits here, and its error says so."""
    async with StoreServer() as server, FaultProxy(server.address, seed=2) as proxy:
        store = await AsyncStore.connect(proxy.address, timeout=LONG)
        proxy.stall()
        sets = [asyncio.ensure_future(store.set("key", "x")) for _ in range(Limits().outbox_frames)]
        await asyncio.sleep(0)
        with pytest.raises(KeyTimeoutError) as caught:
            await store.add("number", timeout=0.1)
        assert caught.value.outcome is Outcome.NOT_APPLIED
        proxy.resume()
        await asyncio.gather(*sets)
        assert await store.add("number") == 1
        await store.close()


async def test_a_long_wait_is_warned_of(
    store: AsyncStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the keys that are missing."""
    monkeypatch.setattr("aiopg.stores._calls.WARN_SECONDS", 0.02)
    await store.set("a", "1")
    with caplog.at_level(logging.WARNING, "aiopg.store"), pytest.raises(KeyTimeoutError):
        await store.wait(["a", "b"], timeout=0.15)
    assert caplog.messages
    assert {"wait of 'a', 'b' waits for 0 s; missing: 'b'"} == set(caplog.messages)


async def test_asyncio_s_own_timeout_ends_a_call_too(store: AsyncStore) -> None:
    """asyncio.timeout round a call: its builtin error, and the call is taken back."""
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.05):
            await store.queue_pop("q")
    assert not isinstance(caught.value, AiopgError)
    assert await store.queue_push("q", "x") == 1


async def test_close_ends_what_waits(place: Place) -> None:
    """Calls that wait raise GroupClosedError."""
    store, other = await place.open(), await place.open()
    await other.lock("key").acquire()
    names = [name for name in WAITING if name != "watch"]
    waits = [await begun(WAITING[name](store, LONG), store) for name in names]
    watch = await begun(anext(store.watch(), None), store)
    await store.close()
    results = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["GroupClosedError"] * len(names)
    assert await watch is None
