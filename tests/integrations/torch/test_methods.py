"""`as_store`: the semantics of torch's stores, called from Python and through C++.

A test whose text begins with names in snake case stands for these cases of pytorch's own tests of stores.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

import aiopg
from aiopg import Store
from aiopg.integrations.torch import as_store
from tests.integrations.torch.conftest import LONG, SHORT, later, times_out
from tests.sync.processes import together


def test_set_and_get(store: Any) -> None:
    """set_get_check: set overwrites; str or bytes in, bytes out; odd keys work; empty value is a value."""
    for key in ("key", "-key3", "with spaces", "a/b", "\u00e4"):
        for value in ("text \u00e4", b"\x00\xff", "", "last"):
            assert not store.set(key, value)
            assert store.get(key) == (value.encode() if isinstance(value, str) else value)
        assert store.check([key])
    assert not store.check(["key", "another"])


def test_get_waits_until_the_timeout(store: Any) -> None:
    """Get blocks until the key exists or T; error names the key and the T used (100 ms stays 100 ms)."""
    store.set_timeout(SHORT)
    assert store.timeout == SHORT
    with times_out("get of ", "missing'", "timeout 0.1 s"):
        store.get("missing")
    with times_out("multi_get of ", "missing'", "timeout 0.1 s"):
        store.multi_get(["missing"])
    store.set_timeout(timedelta(seconds=LONG))
    assert together(lambda: store.get("key"), lambda: later(store.set, "key", "1")) == [b"1", None]


def test_wait_is_for_all_keys(store: Any) -> None:
    """simple_wait: wait(keys) = all of them, works if some exist before; its timeout is of this call alone."""
    store.set("a", "1")
    store.wait(["a"])
    with times_out("wait of ", "missing:", "b'", "timeout 0.05 s", seconds=0.05):
        store.wait(["a", "b"], timedelta(milliseconds=50))
    store.set_timeout(SHORT)
    with times_out("timeout 0.1 s"):
        store.wait(["a", "b"])
    waits = [lambda: store.wait(["a", "b"], timedelta(seconds=LONG))] * 2
    assert together(*waits, lambda: later(store.set, "b", "2")) == [None] * 3


def test_a_deadline_that_has_passed_is_one(store: Any) -> None:
    """Programs subtract, as torch's own do; what is there is there all the same."""
    with times_out("wait of ", seconds=0):
        store.wait(["missing"], timedelta(seconds=-5))


def test_after_a_timeout_the_same_client_works(store: Any) -> None:
    """**After a timed-out get/wait the same client works**: set then get returns the new value (no stale reply)."""
    for turn in range(5):
        store.set_timeout(timedelta(milliseconds=30))
        with times_out(seconds=0.03):
            store.get("key")
        with times_out(seconds=0.03):
            store.wait(["key", "other"])
        store.set_timeout(timedelta(seconds=LONG))
        store.set("key", str(turn))
        store.set("another", "x")
        assert (store.get("another"), store.get("key")) == (b"x", str(turn).encode())
        assert store.delete_key("key")


def test_add_counts(store: Any) -> None:
    """Add creates at 0, atomic, negative allowed, value readable as decimal text (`b"21"`)."""
    assert store.add("n", 21) == 21
    assert store.get("n") == b"21"
    assert store.add("n", -30) == -9
    sums: list[list[int]] = together(*[lambda: [store.add("n", 1) for _ in range(50)]] * 4)
    assert sorted(itertools.chain(*sums)) == list(range(-8, 192))


def test_add_to_what_is_no_number_fails_alone(store: Any) -> None:
    """Add on non-integer = error for that call only, connection lives."""
    store.set("key", "x")
    with pytest.raises(dist.DistStoreError, match=r"add of key .*no whole number") as caught:
        store.add("key", 1)
    assert isinstance(caught.value.__cause__, aiopg.KeyOperationError)
    assert store.get("key") == b"x"


def test_delete_and_count(store: Any) -> None:
    """Delete_key returns whether it existed; num_keys right after each step and **without internal keys**."""
    calls: list[Callable[[], object]] = [
        lambda: store.set("a", "1"),
        lambda: store.set("a", "2"),
        lambda: store.add("b", 1),
        lambda: store.append("c", "x"),
        lambda: store.delete_key("a"),
        lambda: store.multi_set(["d", "e"], ["", ""]),
    ]
    counts = [store.num_keys()]
    for call in calls:
        call()
        counts.append(store.num_keys())
    assert counts == [0, 1, 1, 2, 3, 2, 4]
    assert [store.delete_key(key) for key in "abc"] == [False, True, True]
    assert store.num_keys() == 2


def test_compare_set_has_torch_s_shape(store: Any) -> None:
    """compare_set: what torch's own HashStore returns for the same calls, and holds then."""
    theirs = dist.HashStore()
    for held, expected, desired in itertools.product((None, "", "x", "y"), ("", "x"), ("", "z")):
        for one in (store, theirs):
            one.delete_key("key")
            if held is not None:
                one.set("key", held)
        assert store.compare_set("key", expected, desired) == theirs.compare_set("key", expected, desired)
        assert store.check(["key"]) == theirs.check(["key"])
        if theirs.check(["key"]):
            assert store.get("key") == theirs.get("key")


def test_compare_set_has_one_winner(store: Any) -> None:
    """As torch's rpc uses it, to agree on whose token it is."""
    told = together(*[lambda name=name: store.compare_set("token", "", name) for name in ("a", "b", "c", "d")])
    assert {store.get("token")} == set(told)


def test_append_and_multi(store: Any) -> None:
    """append, multi_get, multi_set: append creates or extends; multi_set/multi_get keep order."""
    assert store.has_extended_api()
    store.append("key", "po")
    store.append("key", b"tato" if isinstance(store, dist.PrefixStore) else "tato")
    assert store.get("key") == b"potato"
    store.multi_set(["foo", "bar", "raw"], ["po", "", b"\xff"])
    assert store.multi_get(["bar", "foo", "raw", "foo"]) == [b"", b"po", b"\xff", b"po"]
    store.multi_set(["twice", "once", "twice"], ["1", "2", "3"])
    assert store.multi_get(["twice", "once"]) == [b"3", b"2"]
    assert (store.multi_get([]), store.multi_set([], []), store.wait([]), store.check([])) == ([], None, None, True)


def test_more_keys_than_a_call_of_ours_takes(store: Any) -> None:
    """gloo asks for as many keys at once as there are ranks."""
    names = [f"key {n * 7919 % 2500}" for n in range(2500)]
    store.multi_set(names, names)
    assert store.multi_get(names) == [name.encode() for name in names]
    assert store.check(names)
    assert not store.check([*names, "another"])
    store.wait(names)
    with times_out("missing: ", "another'", seconds=0.5):
        store.wait([*names, "another"], timedelta(seconds=0.5))


def test_barrier(store: Any) -> None:
    """All come, and nobody leaves before."""
    with times_out("x" if isinstance(store, dist.PrefixStore) else "1/2 arrived"):
        store.barrier("x", 2, SHORT)
    assert together(*[lambda: store.barrier("together", 3, timedelta(seconds=LONG))] * 3) == [None] * 3


def test_a_barrier_that_timed_out_is_not_counted(keys: Store) -> None:
    """Who gave up is taken out (in torch's own he is counted, and the next one passes alone); then it works again."""
    store = as_store(keys, timeout=SHORT)
    for _ in range(2):
        with times_out("barrier of ", "1/2 arrived"):
            store.barrier("x", 2)
    assert together(*[lambda: store.barrier("x", 2, timedelta(seconds=LONG))] * 2) == [None, None]
    assert store.num_keys() == 0
    with pytest.raises(ValueError, match="world_size"):
        store.barrier("x", 0)


# ---------------------------------------------------------------------------------------------------- queues


def test_queues(keys: Store) -> None:
    """queues, queues_nonblocking, queues_timeout: FIFO; len 0 and check false when absent or drained."""
    store = as_store(keys)
    assert (store.queue_len("q"), store.check(["q"])) == (0, False)
    for item in ("a", b"\xff", ""):
        store.queue_push("q", item)
    assert (store.queue_len("q"), store.check(["q"])) == (3, True)
    store.wait(["q"])
    assert [store.queue_pop("q"), store.queue_pop("q", False), store.queue_pop("q", block=True)] == [b"a", b"\xff", b""]
    assert (store.queue_len("q"), store.check(["q"])) == (0, False)
    with pytest.raises(dist.QueueEmptyError, match=r"'torch-.*q' is empty") as caught:
        store.queue_pop("q", False)
    assert isinstance(caught.value.__cause__, aiopg.QueueEmptyError)
    store.set_timeout(SHORT)
    with times_out("queue_pop of "):
        store.queue_pop("q")


def test_queues_go_both_ways_between_clones(keys: Store) -> None:
    """queues_bidirectional."""
    here, there = as_store(keys), as_store(keys).clone()

    def answer() -> None:
        for _ in range(20):
            there.queue_push("back", there.queue_pop("forth") + b"!")

    def ask() -> list[bytes]:
        return [(here.queue_push("forth", str(n)), here.queue_pop("back"))[1] for n in range(20)]

    assert together(ask, answer)[0] == [b"%d!" % n for n in range(20)]


# ---------------------------------------------------------------------------------------------------- prefixes


def test_prefixes_nest(keys: Store) -> None:
    """get_underlying_store: nested prefixes in order, underlying and innermost store reachable, `None` refused."""
    store = as_store(keys)
    outer = dist.PrefixStore("outer", store)
    inner = dist.PrefixStore("inner", outer)
    inner.set("key", "1")
    assert store.list_keys() == ["outer/inner/key"]
    assert (store.get("outer/inner/key"), outer.get("inner/key"), inner.num_keys()) == (b"1", b"1", 1)
    assert inner.underlying_store is outer
    assert outer.underlying_store is store
    assert inner._underlying_non_prefix_store is store
    assert store.aiopg_store is keys
    inner.set_timeout(SHORT)
    assert (store.timeout, inner.timeout) == (SHORT, SHORT)
    with pytest.raises(ValueError, match="prefix must be text that is not empty"):
        as_store(keys, prefix="")


def test_our_own_prefix_has_everything(keys: Store) -> None:
    """Extended ops pass through prefixed; torch's own prefix refuses queues and list_keys over a store from Python."""
    store = as_store(keys, prefix="mine")
    store.queue_push("q", "x")
    store.multi_set(["a", "b"], ["1", "2"])
    assert store.list_keys() == ["a", "b", "q"]
    assert keys.list_keys() == ["mine/a", "mine/b", "mine/q"]
    prefixed = dist.PrefixStore("theirs", store)
    assert (prefixed.has_extended_api(), prefixed.num_keys()) == (True, 3)
    for call in (prefixed.list_keys, lambda: prefixed.queue_len("q"), lambda: prefixed.queue_push("q", "x")):
        with pytest.raises(NotImplementedError):
            call()
