"""What `as_store` takes, how long what it makes lives, and what may happen to it meanwhile."""

from __future__ import annotations

import gc
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
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.utils import store as elastic

import aiopg
from aiopg import AsyncStatelessGroup, AsyncStore, StatelessGroup, Store
from aiopg.integrations.torch import as_store
from tests.integrations.torch.conftest import LONG, SHORT, later, names, times_out
from tests.sync.processes import together
from tests.system.ranks import SLOW, serving


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
    with Store.connect(f"memory://torch-{next(names)}", timeout=LONG) as keys:
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


def test_what_was_connected_to_is_closed_where_nothing_comes_of_it() -> None:
    """No thread is left behind an argument that makes no sense."""
    before = threading.active_count()
    for prefix, kind in (("", ValueError), ("x" * 2000, ValueError), (7, TypeError)):
        with pytest.raises(kind, match=r"prefix must|a prefix has"):
            as_store("memory://torch-closed", prefix)  # type: ignore[arg-type]
    assert threading.active_count() == before


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
