"""`aiopg.integrations.torch.as_store`: the semantics of torch's stores, called from Python and through C++.

A test whose text begins with names in snake case stands for these cases of pytorch's own tests of stores.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.utils import store as elastic

import aiopg
from aiopg import AsyncStatelessGroup, AsyncStore, KeyTimeoutError, StatelessGroup, Store
from aiopg.integrations.torch import as_store
from tests.sync.processes import together
from tests.system.ranks import SLOW, serving

LONG = 20.0
"""Seconds that nothing here takes unless it is broken."""

SHORT = timedelta(milliseconds=100)

_names = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A store of our own in a process of its own."""
    with serving() as (url, _):
        yield url


@pytest.fixture(params=["native", "memory"])
def keys(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Keys that nobody else uses, on a store of each kind."""
    name = f"torch-{next(_names)}"
    url = f"memory://{name}" if request.param == "memory" else request.getfixturevalue("server")
    with Store.connect(url, timeout=LONG) as store:
        yield store.with_prefix(name)


@pytest.fixture(params=["python", "c++"])
def store(request: pytest.FixtureRequest, keys: Store) -> Any:
    """As Python calls it, and as C++ does: through torch's PrefixStore."""
    made = as_store(keys)
    return made if request.param == "python" else dist.PrefixStore("prefix", made)


@contextlib.contextmanager
def times_out(*words: str, seconds: float = 0.1) -> Iterator[None]:
    """The block raises, in time, what torch's stores raise at their deadline, `from` aiopg's; in it these words."""
    began = time.monotonic()
    with pytest.raises(dist.DistStoreError) as caught:
        yield
    assert seconds <= time.monotonic() - began < seconds + LONG / 2
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value.__cause__, KeyTimeoutError)
    for word in words:
        assert word in str(caught.value)


def later(call: Callable[..., object], *arguments: object) -> None:
    """Call this when what is called beside it waits, in all likelihood; the test holds if it does not, too."""
    time.sleep(0.05)
    call(*arguments)


# ---------------------------------------------------------------------------------------------------- the methods


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


# ---------------------------------------------------------------------------------------------------- its life


def test_a_clone_has_a_timeout_of_its_own(store: Any) -> None:
    """clone: same data; usable beside the first one."""
    clone = store.clone()
    gc.collect()
    clone.set_timeout(SHORT)
    assert store.timeout == timedelta(seconds=LONG)
    clone.set("key", "1")
    with times_out("timeout 0.1 s"):
        clone.get("missing")
    assert store.get("key") == b"1"


def test_it_lives_as_long_as_its_store_whoever_holds_it(server: str) -> None:
    """torch's half of it does not keep Python's; and behind `close` nothing of it is kept."""
    held, gone = [], []
    for close in (True, False):
        keys = Store.connect(server)
        store = as_store(keys, prefix="unheld")
        gone.append(weakref.ref(store))
        held.append(dist.PrefixStore("x", store))
        del store
        gc.collect()
        held[-1].set("key", "1")
        assert held[-1].clone().get("key") == b"1"
        if close:
            keys.close()
    held.clear()
    gc.collect()
    assert gone[1]() is not None
    keys.close()
    del keys
    gc.collect()
    assert [one() for one in gone] == [None, None]


def test_a_closed_store_is_said(server: str) -> None:
    """By the error that torch's callers know."""
    keys = Store.connect(server)
    store = dist.PrefixStore("x", as_store(keys))
    keys.close()
    with pytest.raises(dist.DistStoreError, match="was closed"):
        store.get("key")


def test_a_store_that_ends_is_a_network_error() -> None:
    """While a call waits, too."""
    with serving() as (url, pid), Store.connect(url, reconnect_grace=0.2) as keys:
        store = as_store(keys)

        def wait() -> None:
            with pytest.raises(dist.DistNetworkError) as caught:
                store.get("key")
            assert isinstance(caught.value.__cause__, aiopg.StoreLostError)

        together(wait, lambda: later(os.kill, pid, signal.SIGKILL))


def test_many_threads_use_it_at_once(store: Any) -> None:
    """wait_hash_store and its like: who waits holds up nobody, and wakes across threads."""

    def hand_over(turn: int) -> bytes:
        store.set(f"{turn}/there", str(turn))
        store.wait([f"{(turn + 1) % 8}/there", f"{(turn + 5) % 8}/there"])
        told: list[bytes] = store.multi_get([*(f"{other}/there" for other in range(8)), "last"])
        return b"".join(told)

    calls = [lambda turn=turn: hand_over(turn) for turn in range(8)]
    told = together(*calls, lambda: (store.wait(["7/there"]), store.set("last", "!"))[1])
    assert told == [b"01234567!"] * 8 + [None]


def test_a_signal_does_not_end_a_wait(store: Any) -> None:
    """interrupt_doesnt_break_wait: a handler that returns changes nothing; one that raises ends the call."""

    class Raised(Exception):
        pass

    def handle(*_: object) -> None:
        handled.append(1)
        if len(handled) == 3:
            raise Raised

    def send() -> None:
        for turn in range(3):
            while len(handled) < turn:
                time.sleep(0.005)
            time.sleep(0.02)
            signal.pthread_kill(main, signal.SIGUSR1)
            if turn == 1:
                store.set("key", "1")

    handled: list[int] = []
    main, before = threading.get_ident(), signal.signal(signal.SIGUSR1, handle)
    sender = threading.Thread(target=send)
    try:
        sender.start()
        store.wait(["key"])
        with pytest.raises(Raised):
            store.get("missing")
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    assert store.get("key") == b"1"


def test_torch_s_elastic_code_works_over_it(store: Any) -> None:
    """Its barrier, its synchronize, and its rendezvous backend."""

    def gather(rank: int) -> list[bytes]:
        return elastic.synchronize(store, str(rank).encode(), rank, 3, "all/")  # type: ignore[no-any-return]

    assert together(*[lambda rank=rank: gather(rank) for rank in range(3)]) == [[b"0", b"1", b"2"]] * 3
    with pytest.raises(dist.DistStoreError):
        elastic.barrier(store, 3, "barrier/", 0.2)
    ours, theirs = C10dRendezvousBackend(store, "run"), C10dRendezvousBackend(dist.HashStore(), "run")
    for backend in (ours, theirs):
        assert backend.get_state() is None
        _, token, _ = backend.set_state(b"first")
        assert backend.set_state(b"second", token)[2]
        state, _, changed = backend.set_state(b"third", token)
        assert (state, changed) == (b"second", False)


# ---------------------------------------------------------------------------------------------------- arguments


def test_a_url_is_connected_to(server: str) -> None:
    """Or a group's keys are taken."""
    store = as_store(server, prefix="by url", timeout=LONG / 2)
    store.set("key", "1")
    assert isinstance(store, dist.Store)
    assert (store.aiopg_store.timeout, store.timeout) == (LONG / 2, timedelta(seconds=LONG / 2))
    assert repr(store) == f"<TorchStore over <Store {server} prefix 'by url/'>>"
    store.aiopg_store.innermost.close()
    with StatelessGroup.connect(server, rank=0, world_size=1, group="torch") as group:
        private = as_store(group.store)
        private.set("key", "2")
        assert (private.get("key"), private.num_keys()) == (b"2", 1)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(store)


@pytest.mark.parametrize(
    ("timeout", "span"),
    [
        (1.5, timedelta(seconds=1.5)),
        (timedelta(minutes=1), timedelta(minutes=1)),
        (None, timedelta(seconds=LONG)),
        (1e-9, timedelta(milliseconds=1)),
        (math.inf, timedelta(0)),
        (timedelta(0), timedelta(0)),
        (1e300, timedelta(0)),
    ],
)
def test_timeouts(timeout: Any, span: timedelta) -> None:
    """In seconds or as torch has them; none is 0 there; the store's own if it is not given."""
    with Store.connect(f"memory://torch-{next(_names)}", timeout=LONG) as keys:
        store = as_store(keys, timeout=timeout)
        assert store.timeout == span


def test_no_deadline_is_one_that_is_waited_for(keys: Store) -> None:
    """As torch's own have it for a timedelta of 0."""
    store = as_store(keys, timeout=math.inf)
    waits: list[Callable[[], Any]] = [lambda: store.get("key"), lambda: store.wait(["key"], timedelta(0))]
    assert together(*waits, lambda: later(store.set, "key", "1")) == [b"1", None, None]


async def test_what_is_no_store_is_told() -> None:
    """What to give instead."""
    async with await AsyncStore.connect("memory://torch-async") as store:
        with pytest.raises(TypeError, match=re.escape("give it aiopg.Store.connect('memory://torch-async')")):
            as_store(store)  # type: ignore[arg-type]
    async with await AsyncStatelessGroup.connect("memory://torch-group", rank=0, world_size=1) as group:
        blocking = StatelessGroup.connect("memory://torch-group", rank=0, world_size=1, group="blocking")
        for one in (group, blocking):
            with pytest.raises(TypeError, match=r"give it the \.store of a StatelessGroup"):
                as_store(one)  # type: ignore[arg-type]
        blocking.close()
    with pytest.raises(TypeError, match="not 7"):
        as_store(7)  # type: ignore[arg-type]
    for timeout in (0, -1, timedelta(seconds=-1), math.nan):
        with pytest.raises(ValueError, match="timeout must"):
            as_store("memory://never", timeout=timeout)
    with pytest.raises(TypeError, match="timeout must"):
        as_store("memory://never", timeout="5")  # type: ignore[arg-type]


def test_keys_that_are_one_text_are_refused(keys: Store) -> None:
    """They would be taken for their letters; torch refuses them too. And values that are too few."""
    store = as_store(keys)
    for call in (store.wait, store.check, store.multi_get):
        with pytest.raises(TypeError, match="sequence of str"):
            call("key")
    with pytest.raises(TypeError, match="timedelta"):
        store.wait(["key"], 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 keys and 1 values"):
        store.multi_set(["a", "b"], ["1"])
    assert store.num_keys() == 0


def test_no_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line that installs it."""
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'aiopg-group[torch]'")):
        as_store("memory://never")


def test_importing_it_imports_no_torch() -> None:
    """The module can be looked at where there is none."""
    code = "import sys, aiopg.integrations.torch; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("False\n", "")


def test_an_end_without_close_is_quick_and_quiet(server: str) -> None:
    """A program that keeps torch's groups until the interpreter ends, and calls nothing."""
    code = f"""
import torch, torch.distributed as dist
from aiopg.integrations.torch import as_store
dist.init_process_group("gloo", store=as_store({server!r}, prefix="end"), rank=0, world_size=1)
one = torch.ones(1)
dist.all_reduce(one, group=dist.new_group([0]))
print(one.item())
"""
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "1.0\n", "")
    assert time.monotonic() - began < 20 * SLOW
