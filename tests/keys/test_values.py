"""Values by name."""

from __future__ import annotations

import asyncio

import pytest

from aiopg import AsyncStore, KeyOperationError, KeyTimeoutError, PayloadTooLargeError

from .conftest import LONG, Place, begun, until


async def test_set_overwrites_and_gives_bytes(store: AsyncStore) -> None:
    """Set overwrites; str or bytes in, bytes out."""
    await store.set("key", "text \u00e4")
    assert await store.get("key") == "text \u00e4".encode()
    for value in (b"bytes", bytearray(b"array"), memoryview(b"view"), memoryview(b"sxtxexp")[::2], "\x00"):
        await store.set("key", value)
        got = await store.get("key")
        assert (type(got), got) == (bytes, value.encode() if isinstance(value, str) else bytes(value))


@pytest.mark.parametrize("key", ["-key3", "with spaces", " ", "a/b", "\x00", "\u00e4\U0001f600", "x" * 1024])
async def test_odd_keys_work(store: AsyncStore, key: str) -> None:
    """Odd keys (`-key3`, with spaces) work."""
    await store.set(key, key)
    assert await store.get(key) == key.encode()
    assert await store.list_keys() == [key]
    assert await store.delete_key(key)


async def test_an_empty_value_is_a_value(store: AsyncStore) -> None:
    """Empty value is a value."""
    assert not await store.check("key")
    await store.set("key", "")
    assert (await store.get("key"), await store.check("key"), await store.num_keys()) == (b"", True, 1)
    assert await store.compare_set("key", "", "x") == (True, b"x")
    assert await store.append("other", b"") == 0
    assert await store.multi_get(["other", "key"]) == [b"", b"x"]


async def test_get_blocks_until_the_key_exists(store: AsyncStore, other: AsyncStore) -> None:
    """Get blocks until the key exists."""
    get = await begun(store.get("key"), store)
    await other.set("another", "x")
    assert not get.done()
    await other.set("key", "value")
    assert await get == b"value"


async def test_wait_is_for_all_keys_and_some_may_be_there(store: AsyncStore, other: AsyncStore) -> None:
    """Wait(keys) = all of them, works if some exist before (pytorch#53840) and wakes across ... clients."""
    await other.set("a", "1")
    wait = await begun(store.wait(["a", "b", "c"]), store)
    await other.set("c", "3")
    assert not await other.check("b")
    assert not wait.done()
    await other.set("b", "2")
    await wait
    await store.wait(["a", "b", "c"])
    await store.wait("a")


async def test_wait_wakes_across_prefixes(store: AsyncStore, other: AsyncStore) -> None:
    """Wakes across threads, clients and prefixes."""
    inner = store.with_prefix("a")
    waits = [await begun(call, store) for call in (inner.wait(["x", "y"]), store.wait("a/x"), inner.get("x"))]
    await other.set("a/x", "1")
    await other.with_prefix("a").set("y", "2")
    assert await asyncio.gather(*waits) == [None, None, b"1"]


async def test_check_is_true_only_if_all_exist(store: AsyncStore) -> None:
    """Check(keys) never blocks, true only if all exist; also true for a non-empty queue."""
    await store.set("a", "1")
    assert await store.check("a")
    assert await store.check(["a", "a"])
    assert not await store.check(["a", "b"])
    await store.queue_push("q", "x")
    assert await store.check("q")
    assert await store.check(["a", "q"])
    await store.queue_pop("q")
    assert not await store.check(["a", "q"])


async def test_wait_works_for_queues_and_mixes(store: AsyncStore, other: AsyncStore) -> None:
    """Wait works for queues and for key + queue mixes."""
    queue = await begun(store.wait("q"), store)
    mix = await begun(store.wait(["q", "key"]), store)
    await other.queue_push("q", "x")
    await queue
    assert not mix.done()
    await other.set("key", "1")
    await mix
    with pytest.raises(KeyTimeoutError, match="missing: 'q'"):  # get is for keys alone
        await store.multi_get(["key", "q"], timeout=0.05)


async def test_add_counts_from_0_and_is_text(store: AsyncStore, other: AsyncStore) -> None:
    """Add creates at 0, atomic, negative allowed, value readable as decimal text (`b"21"`)."""
    assert await store.add("n", 21) == 21
    assert await store.get("n") == b"21"
    assert await store.add("n", -30) == -9
    assert await store.add("n", 0) == -9
    assert await store.add("n") == -8
    await store.set("n", "100")
    sums = await asyncio.gather(*(one.add("n") for _ in range(50) for one in (store, other)))
    assert sorted(sums) == list(range(101, 201))


async def test_add_on_what_is_no_number_fails_alone(store: AsyncStore) -> None:
    """Add on non-integer = error for that call only, connection lives."""
    for value in ("x", "", "1.5", "9" * 30):
        await store.set("key", value)
        with pytest.raises(KeyOperationError, match="add of key 'key'") as caught:
            await store.add("key")
        assert (caught.value.key, await store.get("key")) == ("key", value.encode())
    await store.set("most", str(2**63 - 1))
    with pytest.raises(KeyOperationError, match="64 bits"):
        await store.add("most")
    assert await store.add("most", -1) == 2**63 - 2


async def test_delete_key_says_whether_it_existed(store: AsyncStore, other: AsyncStore) -> None:
    """Delete_key returns whether it existed; get after delete blocks again."""
    await store.set("key", "1")
    assert await store.delete_key("key")
    assert not await store.delete_key("key")
    get = await begun(store.get("key"), store)
    assert not get.done()
    await other.set("key", "2")
    assert await get == b"2"
    await store.queue_push("q", "x")
    assert await store.delete_key("q")
    assert await store.queue_len("q") == 0


async def test_num_keys_is_right_after_each_step(store: AsyncStore) -> None:
    """Num_keys right after each step and **without internal keys** (TCPStore counts one extra)."""
    counts = [await store.num_keys()]
    for call in (
        store.set("a", "1"), store.set("a", "2"), store.add("b"), store.append("c", "x"), store.queue_push("q", "x"),
        store.queue_push("q", "y"), store.delete_key("a"), store.queue_pop("q"), store.queue_pop("q"),
        store.barrier("meeting", 1), store.multi_set({"d": "", "e": ""}),
    ):  # fmt: skip
        await call
        counts.append(await store.num_keys())
    assert counts == [0, 1, 1, 2, 3, 4, 4, 3, 3, 2, 2, 4]
    async with store.lock("lock"):
        assert await store.list_keys() == ["b", "c", "d", "e"]


async def test_compare_set_swaps_what_is_expected(store: AsyncStore) -> None:
    """Compare_set: ... Native API: `(swapped, current or None)`; unequal leaves the value; equal swaps."""
    assert await store.compare_set("key", "x", "1") == (False, None)
    assert await store.compare_set("key", "", "1") == (False, None)
    assert not await store.check("key")
    assert await store.compare_set("key", None, "1") == (True, b"1")
    assert await store.compare_set("key", None, "2") == (False, b"1")
    assert await store.compare_set("key", "2", "3") == (False, b"1")
    assert await store.compare_set("key", b"1", "2") == (True, b"2")
    assert await store.get("key") == b"2"


async def test_compare_set_has_one_winner(store: AsyncStore, other: AsyncStore) -> None:
    """Of many who set what is not there, one does, and all learn whose value it is."""
    calls = [one.compare_set("leader", None, str(n)) for n in range(10) for one in (store, other)]
    results = await asyncio.gather(*calls)
    assert sum(done for done, _ in results) == 1
    assert {held for _, held in results} == {await store.get("leader")}


async def test_append_creates_or_extends(store: AsyncStore) -> None:
    """Append creates or extends."""
    assert await store.append("key", "po") == 2
    assert await store.append("key", b"tato") == 6
    assert await store.get("key") == b"potato"


async def test_multi_set_and_multi_get_keep_order(store: AsyncStore) -> None:
    """Multi_set/multi_get keep order."""
    names = [f"key {n * 7919 % 1024}" for n in range(1024)]
    revision = await store.multi_set({name: name for name in names})
    assert revision == 1024
    assert await store.multi_get(names) == [name.encode() for name in names]
    assert await store.multi_get(names[::-2]) == [name.encode() for name in names[::-2]]
    assert await store.multi_get([names[3]] * 3) == [names[3].encode()] * 3
    assert await store.list_keys("key 1") == sorted(name for name in names if name.startswith("key 1"))


async def test_multi_set_is_atomic(store: AsyncStore, other: AsyncStore) -> None:
    """Multi_set atomic (torch's applies key by key)."""
    names = [f"key {n}" for n in range(20)]
    await store.multi_set(dict.fromkeys(names, "0"))

    async def write() -> None:
        for turn in range(1, 30):
            await other.multi_set(dict.fromkeys(names, str(turn)))

    writing = asyncio.ensure_future(write())
    while not writing.done():
        assert len(set(await store.multi_get(names))) == 1
    await writing
    with pytest.raises(PayloadTooLargeError):
        await store.multi_set({"key 0": b"new", "key 1": b"x" * (17 * 2**20)})
    assert await store.multi_get(["key 0", "key 1"]) == [b"29", b"29"]


async def test_multi_get_waits_for_all(store: AsyncStore, other: AsyncStore) -> None:
    """The values are those of one moment, in which all keys are there."""
    get = await begun(store.multi_get(["b", "a"]), store)
    await other.set("a", "old")
    await other.set("a", "1")
    await other.set("b", "2")
    assert await get == [b"2", b"1"]


async def test_a_key_with_a_ttl_goes_in_time(store: AsyncStore) -> None:
    """ttl= seconds after its set a key is gone, and not before; a later set decides anew, a change does not."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await store.multi_set({"short": "1", "renewed": "1", "changed": "1"}, ttl=0.2)
    await store.set("renewed", "2")
    await store.append("changed", "2")
    await store.set("long", "1", ttl=LONG)
    assert await store.num_keys() == 4

    async def one_is_gone() -> bool:
        return not await store.check("short")

    await until(one_is_gone)
    assert loop.time() - began >= 0.19
    assert await store.list_keys() == ["long", "renewed"]
    assert (await store.get("renewed"), await store.check("changed")) == (b"2", False)


async def test_revisions_grow_by_one(store: AsyncStore, other: AsyncStore) -> None:
    """set and multi_set return the revision of their last change."""
    assert await store.set("a", "1") == 1
    assert await other.multi_set({"a": "2", "b": "2"}) == 3
    await store.queue_push("q", "no key")
    await store.delete_key("a")
    assert await other.set("c", "3") == 5


async def test_what_one_sends_first_is_first(place: Place) -> None:
    """Calls that are made at once take effect in the order in which they were made."""
    store = await place.open()
    await asyncio.gather(*(store.append("text", str(n % 10)) for n in range(500)))
    assert await store.get("text") == b"0123456789" * 50
