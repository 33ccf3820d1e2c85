"""A blocking store: what `tests/keys` asks of `AsyncStore`, as far as threads and signals change it."""

from __future__ import annotations

import inspect
import itertools
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aiopg import (
    AsyncStore,
    GroupClosedError,
    KeyTimeoutError,
    QueueEmptyError,
    StatelessGroup,
    Store,
    StoreUnreachableError,
    UsageError,
    WrongThreadError,
)
from aiopg.keys import Lock, Watch
from aiopg.sync import BlockingLock, BlockingWatch
from tests.sync.processes import HOST, LONG, together, until, when_waiting


@pytest.fixture
def store(url: str, no_thread_left: None) -> Iterator[Store]:
    """A store, open."""
    with Store.connect(url, timeout=LONG) as store:
        yield store


@pytest.fixture
def other(url: str, store: Store) -> Iterator[Store]:
    """The same over another link."""
    with Store.connect(url, timeout=LONG) as store:
        yield store


def test_its_methods_are_those_of_the_async_store() -> None:
    """The same names, parameters and defaults; only await is gone."""
    for theirs, ours in ((AsyncStore, Store), (Lock, BlockingLock)):
        names = {name for name in dir(theirs) if not name.startswith("_")} - {"link"}
        attributes = {"timeout", "prefix", "name"}
        assert names - attributes == {name for name in dir(ours) if not name.startswith("_")} - attributes
        for name in names:
            function = inspect.getattr_static(theirs, name)
            if inspect.isroutine(function) or isinstance(function, classmethod):
                parameters = [inspect.signature(getattr(cls, name)).parameters for cls in (theirs, ours)]
                assert list(parameters[0].values()) == list(parameters[1].values()), name
                assert not inspect.iscoroutinefunction(getattr(ours, name))
    assert hasattr(Watch, "aclose")
    assert hasattr(BlockingWatch, "close")


def test_values_and_queues(store: Store, other: Store) -> None:
    """Each call once."""
    assert store.set("a", "1") == 1
    assert other.get("a") == b"1"
    assert store.multi_set({"b": "2", "c": b"3"}) == 3
    assert other.multi_get(["c", "b"]) == [b"3", b"2"]
    store.wait(["a", "b"])
    assert store.check("a")
    assert (store.add("n", 21), store.get("n"), store.add("n", -1)) == (21, b"21", 20)
    assert store.append("a", "0") == 2
    assert store.compare_set("a", None, "x") == (False, b"10")
    assert store.compare_set("a", "10", "x") == (True, b"x")
    assert store.delete_key("a")
    assert (store.list_keys(), store.num_keys(), store.list_keys("b")) == (["b", "c", "n"], 3, ["b"])
    assert store.queue_push("q", "x") == 1
    assert (other.queue_len("q"), other.queue_pop("q")) == (1, b"x")
    with pytest.raises(QueueEmptyError):
        other.queue_pop("q", block=False)
    together(lambda: store.barrier("b", 2), lambda: other.barrier("b", 2))
    with pytest.raises(KeyTimeoutError, match=r"get of 'nowhere' .*timeout 0.05 s"):
        store.get("nowhere", timeout=0.05)


def test_wait_wakes_across_threads(store: Store, other: Store) -> None:
    """Wakes across threads, clients and prefixes."""
    waits = [
        lambda: store.wait(["p/x", "y"]),
        lambda: store.with_prefix("p").get("x"),
        lambda: other.get("y"),
        lambda: other.multi_get(["y", "p/x"]),
    ]

    def set_both() -> None:
        other.with_prefix("p").set("x", "1")
        store.set("y", "2")

    assert together(*waits, lambda: when_waiting(store, set_both))[:-1] == [None, b"1", b"2", [b"2", b"1"]]


def test_a_signal_during_a_wait_does_not_end_it(store: Store, other: Store) -> None:
    """A signal during wait does not end it."""
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:

        def disturb() -> None:
            os.kill(os.getpid(), signal.SIGUSR1)
            until(lambda: seen)
            other.set("key", "1")

        thread = threading.Thread(target=lambda: when_waiting(other, disturb))
        thread.start()
        store.wait("key", timeout=LONG)
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


def test_prefixes_nest(store: Store) -> None:
    """Nested prefixes in order, underlying and innermost store reachable."""
    a = store.with_prefix("a")
    b = a.with_prefix("b")
    b.set("key", "1")
    assert store.list_keys() == ["a/b/key"]
    assert b.underlying is a
    assert b.innermost is a.underlying is store
    assert (b.prefix, b.timeout, b.url) == ("a/b/", LONG, store.url)
    with pytest.raises(ValueError, match="prefix"):
        store.with_prefix("")


def test_a_clone_has_a_thread_of_its_own(store: Store) -> None:
    """Both ends closable in any order."""
    inner = store.with_prefix("a").with_prefix("b")
    clone = inner.clone()
    clone.set("key", "1")
    assert inner.get("key") == b"1"
    assert (clone.prefix, clone.underlying.prefix, clone.innermost.prefix) == ("a/b/", "a/", "")
    inner.close()
    clone.underlying.close()
    assert clone.get("key") == b"1"
    clone.close()
    with pytest.raises(GroupClosedError):
        clone.get("key")
    assert inner.get("key") == b"1"
    second = store.clone()
    store.close()
    assert second.get("a/b/key") == b"1"
    second.close()


def test_a_watch_is_an_iterator(store: Store, other: Store) -> None:
    """Each step blocks; it ends when it is closed."""
    with store.watch("x") as watch:
        store.check("x")
        together(
            lambda: other.multi_set({"x1": "", "y": "", "x2": ""}),
            lambda: [next(watch).key for _ in range(2)],
        )
        other.set("x3", "")
        assert next(watch).key == "x3"
    assert list(watch) == []
    with pytest.raises(KeyTimeoutError):
        next(store.watch("x", timeout=0.02))
    assert [change.key for change in itertools.islice(store.watch(revision=0), 4)] == ["x1", "y", "x2", "x3"]


def test_a_watch_that_waits_ends_when_it_or_its_store_is_closed(url: str) -> None:
    """By another thread."""
    store, other = Store.connect(url), Store.connect(url)
    watch = store.watch()

    def close_soon(close: Callable[[], None]) -> None:
        until(lambda: watch._watch._waits)
        close()

    assert together(lambda: list(watch), lambda: close_soon(watch.close))[0] == []
    watch = store.watch()
    assert together(lambda: list(watch), lambda: close_soon(store.close))[0] == []
    watch.close()
    other.close()


def test_a_lock_is_a_context_manager(store: Store, other: Store) -> None:
    """One thread at a time, over links and threads; numbers grow."""
    numbers: list[int] = []
    inside = threading.Lock()

    def work(store: Store) -> None:
        for _ in range(20):
            with store.lock("lock") as lock:
                assert inside.acquire(blocking=False)
                numbers.append(lock.number)
                inside.release()

    together(*(lambda one=one: work(one) for one in (store, other) * 2))
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 80
    lock = store.lock("lock")
    assert lock.acquire() > numbers[-1]
    with pytest.raises(KeyTimeoutError):
        other.lock("lock", timeout=0.02).acquire()
    assert lock.is_held
    lock.release()
    with pytest.raises(UsageError, match="not held"):
        lock.release()
    assert (lock.name, lock.is_held) == ("lock", False)


def test_threads_that_read_one_watch_take_turns(store: Store, other: Store) -> None:
    """Each change goes to one of them."""
    with store.watch() as watch:
        store.check("x")

        def read() -> list[int]:
            return [next(watch).revision for _ in range(30)]

        def write() -> None:
            for n in range(90):
                other.set("k", str(n))

        *told, _ = together(read, read, read, write)
        assert sorted(revision for part in told for revision in part) == list(range(1, 91))


def test_a_lock_that_was_granted_when_ctrl_c_came_is_let_go(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt falls behind the end of the call and before its return, where no program can see it."""
    lock, call = store.lock("lock"), store._runner.call

    def interrupted(make: Callable[[], Any]) -> None:
        call(make)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store._runner, "call", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()
    assert other.lock("lock", timeout=LONG).acquire() > 0
    assert not lock.is_held


def test_the_store_of_a_blocking_group(pair: list[StatelessGroup], url: str) -> None:
    """group.store: private to the group's incarnation, on the group's loop thread."""
    threads = threading.active_count()
    pair[0].store.set("key", "1")
    assert pair[1].store.get("key") == b"1"
    pair[0].store.shared.set("key", "2")
    with Store.connect(url) as store:
        assert store.get("key") == b"2"
    assert threading.active_count() == threads
    assert repr(pair[0].store).startswith("<Store memory://")
    pair[0].store.close()
    with pair[0].store.lock("lock") as lock:
        assert lock.number > 0
    inner = pair[1].store.with_prefix("p")
    inner.set("key", "3")
    pair[1].close()
    for call in (pair[1].store.num_keys, inner.num_keys, lambda: inner.lock("x"), lambda: inner.watch()):
        with pytest.raises(GroupClosedError, match="was closed at rank 1"):
            call()
    assert pair[0].store.get("p/key") == b"3"


def test_a_call_that_waits_ends_when_another_thread_closes_the_store(url: str) -> None:
    """With GroupClosedError, whatever it waits for."""
    store, other = Store.connect(url), Store.connect(url)
    other.lock("lock").acquire()

    def wait(call: Callable[[], object]) -> None:
        with pytest.raises(GroupClosedError):
            call()

    calls = [lambda: store.get("key"), lambda: store.queue_pop("q"), lambda: store.lock("lock").acquire()]
    together(*(lambda call=call: wait(call) for call in calls), lambda: when_waiting(other, store.close))
    store.close()
    other.close()


async def test_it_works_inside_a_running_event_loop(store: Store) -> None:
    """Which it blocks."""
    store.set("key", "1")
    assert store.get("key") == b"1"


def test_a_call_from_its_own_loop_thread_is_refused(store: Store) -> None:
    """It would wait for itself."""

    async def inside() -> None:
        for call in (store.num_keys, store.close, store.watch, store.clone, lambda: store.lock("x")):
            with pytest.raises(WrongThreadError, match="loop thread"):
                call()

    store._runner.call(inside)
    assert store.num_keys() == 0


def test_what_could_not_be_opened_leaves_no_thread(port: int) -> None:
    """Nor does what makes no sense."""
    before = threading.active_count()
    with pytest.raises(StoreUnreachableError, match=str(port)):
        Store.connect(f"aiopg://{HOST}:{port}", timeout=0.1)
    for arguments in ({"url": "x://y"}, {"url": "memory://x", "timeout": 0}, {"url": "memory://x", "token": "short"}):
        with pytest.raises(ValueError, match=r"."):
            Store.connect(**arguments)
    assert threading.active_count() == before
    with pytest.raises(TypeError, match="connect"):
        Store()


def test_it_cannot_be_pickled(store: Store) -> None:
    """Its url can."""
    with pytest.raises(TypeError, match="url"):
        pickle.dumps(store)
    assert store.url in repr(store)
