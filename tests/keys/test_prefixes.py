"""Stores with a prefix."""

from __future__ import annotations

from typing import Any

import pytest

from aiopg import AsyncStore, KeyTimeoutError, QueueEmptyError

from .conftest import begun


async def test_prefixes_nest_in_order(store: AsyncStore) -> None:
    """Nested prefixes in order; the outer first."""
    inner = store.with_prefix("a").with_prefix("b/c").with_prefix("d")
    await inner.set("key", "1")
    assert await store.list_keys() == ["a/b/c/d/key"]
    assert inner.prefix == "a/b/c/d/"
    assert await store.with_prefix("a").get("b/c/d/key") == b"1"


async def test_underlying_and_innermost_are_reachable(store: AsyncStore) -> None:
    """Underlying and innermost store reachable."""
    a = store.with_prefix("a")
    b = a.with_prefix("b")
    assert b.underlying is a
    assert a.underlying is store
    assert b.innermost is a.innermost is store.innermost is store.underlying is store
    assert b.link is store.link


@pytest.mark.parametrize(("prefix", "error"), [(None, ValueError), ("", ValueError), (7, TypeError), (b"a", TypeError)])
async def test_no_prefix_is_refused(store: AsyncStore, prefix: Any, error: type[Exception]) -> None:
    """`None` = ValueError; and what is no text, or empty."""
    with pytest.raises(error, match="prefix"):
        store.with_prefix(prefix)


async def test_a_key_and_its_prefix_share_the_limit(store: AsyncStore) -> None:
    """What counts is the key that the store has."""
    inner = store.with_prefix("p" * 1000)
    await inner.set("k" * 23, "1")
    with pytest.raises(ValueError, match=r"1 to 1024 bytes .*with its prefix.* not 1025"):
        await inner.set("k" * 24, "1")
    with pytest.raises(ValueError, match="at most 1024"):
        inner.with_prefix("p" * 30)


async def test_every_call_goes_through_prefixed(store: AsyncStore) -> None:
    """Extended ops pass through prefixed."""
    inner = store.with_prefix("in")
    watch = store.watch("in/")
    await store.multi_set({"key": "outside", "q": "outside", "n": "7"})
    await inner.set("key", "1")
    assert await inner.get("key") == b"1"
    await inner.multi_set({"a": "2", "b": "3"})
    assert await inner.multi_get(["b", "a"]) == [b"3", b"2"]
    await inner.wait(["a", "b"])
    assert await inner.check(["a", "key"])
    assert not await inner.check("q")
    assert await inner.add("n") == 1
    assert await inner.append("key", "0") == 2
    assert await inner.compare_set("key", "10", "11") == (True, b"11")
    assert await inner.queue_push("q", "x") == 1
    assert (await inner.queue_len("q"), await store.queue_len("q")) == (1, 0)
    assert await inner.queue_pop("q") == b"x"
    with pytest.raises(QueueEmptyError, match="'in/q'"):
        await inner.queue_pop("q", block=False)
    assert await inner.list_keys() == ["a", "b", "key", "n"]
    assert await inner.list_keys("k") == ["key"]
    assert (await inner.num_keys(), await store.num_keys()) == (4, 7)
    assert await inner.delete_key("n")
    assert not await inner.check("n")
    assert await store.get("n") == b"7"
    told = [(await anext(watch)).key for _ in range(7)]
    assert told == ["in/key", "in/a", "in/b", "in/n", "in/key", "in/key", "in/n"]
    await watch.aclose()


async def test_meetings_and_locks_are_behind_the_prefix(store: AsyncStore, other: AsyncStore) -> None:
    """A barrier and a lock of a name are those of the store's whole name."""
    inner = store.with_prefix("in")
    barrier = await begun(inner.barrier("b", 2), store)
    with pytest.raises(KeyTimeoutError, match="1/2"):
        await other.barrier("b", 2, timeout=0.05)
    await other.barrier("in/b", 2)
    await barrier
    async with inner.lock("lock") as lock, store.lock("lock"):
        assert lock.name == "in/lock"
        with pytest.raises(KeyTimeoutError, match="'in/lock'"):
            await other.lock("in/lock").acquire(timeout=0.05)


async def test_a_prefixed_watch_names_keys_without_it(store: AsyncStore) -> None:
    """As list_keys does."""
    inner = store.with_prefix("a").with_prefix("b")
    async with inner.watch("k") as watch:
        await store.multi_set({"k": "no", "a/b/other": "no", "a/b/key": "yes"})
        change = await anext(watch)
        assert (change.key, change.value, change.revision) == ("key", b"yes", 3)


async def test_a_clone_has_the_prefix_and_its_chain(store: AsyncStore) -> None:
    """The same keys over another link, which the clone closes."""
    inner = store.with_prefix("a").with_prefix("b/c")
    clone = await inner.clone()
    await clone.set("key", "1")
    assert await inner.get("key") == b"1"
    assert clone.link is not inner.link
    assert (clone.prefix, clone.underlying.prefix, clone.innermost.prefix) == ("a/b/c/", "a/", "")
    await inner.close()  # of one that shares its link, nothing
    await clone.close()
    with pytest.raises(Exception, match="closed"):
        await clone.get("key")
    assert await inner.get("key") == b"1"
