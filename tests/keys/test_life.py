"""How a store is opened, cloned and closed, and who may use it."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from aiopg import (
    AddressInUseError,
    AiopgError,
    AsyncStatelessGroup,
    AsyncStore,
    AuthenticationError,
    ForkError,
    GroupClosedError,
    KeyTimeoutError,
    StoreLostError,
    StoreServer,
    StoreUnreachableError,
    Token,
    UsageError,
    WrongThreadError,
)
from aiopg.stores import open_link

from .conftest import LONG, Place, begun, until

TOKEN = "a token that both of them know"


async def test_a_clone_has_a_connection_of_its_own(place: Place) -> None:
    """Clone = own connection, same data; both ends closable in any order."""
    for first in (0, 1):
        store = await place.open()
        both = [store, await store.clone()]
        assert both[0].link is not both[1].link
        await both[0].set("key", str(first))
        assert await both[1].get("key") == str(first).encode()
        await both[first].close()
        with pytest.raises(GroupClosedError):
            await both[first].get("key")
        assert await both[1 - first].get("key") == str(first).encode()
        await both[1 - first].close()
        await both[1 - first].close()


async def test_a_second_store_of_the_same_server(store: AsyncStore, other: AsyncStore) -> None:
    """Multi-tenant second store on the same server: prefixes keep two programs apart."""
    one, two = store.with_prefix("one"), other.with_prefix("two")
    await asyncio.gather(one.set("key", "1"), two.set("key", "2"))
    assert (await one.get("key"), await two.get("key")) == (b"1", b"2")
    assert (await one.list_keys(), await two.list_keys()) == (["key"], ["key"])


async def test_the_server_outlives_its_last_client() -> None:
    """Server outlives last client's op (vllm#18506): keys are there for who comes later."""
    async with StoreServer() as server:
        async with await AsyncStore.connect(server.address) as store:
            await store.set("key", "1")
        async with await AsyncStore.connect(server.address) as store:
            assert await store.get("key") == b"1"


async def test_a_store_over_a_link_of_one_s_own_leaves_it_open(place: Place) -> None:
    """And so does every other one that did not open its link: closing it does nothing."""
    link = await open_link(place.url, timeout=LONG)
    async with AsyncStore(link, timeout=1.0) as store, store.with_prefix("p") as inner:
        await inner.set("key", "1")
    assert await AsyncStore(link).get("p/key") == b"1"
    with pytest.raises(UsageError, match=r"not made by AsyncStore\.connect"):
        await store.clone()
    await link.close()
    with pytest.raises(GroupClosedError):
        await store.get("key")
    with pytest.raises(TypeError, match=r"AsyncStore\.connect"):
        AsyncStore(place.url)  # type: ignore[arg-type]


async def test_over_a_unix_socket_whose_file_goes_with_it(tmp_path: Path) -> None:
    """Cleanup of file or socket on last close; and every kind of call, over it."""
    path = tmp_path / "store"
    async with StoreServer(path=str(path)) as server:
        assert server.address == f"unix://{path}"
        async with await AsyncStore.connect(server.address, timeout=LONG) as store, store.watch() as watch:
            await store.set("key", "1")
            assert (await anext(watch)).value == b"1"
            await store.queue_push("q", "x")
            assert await store.queue_pop("q") == b"x"
            async with store.lock("lock"):
                await asyncio.gather(store.barrier("b", 2), store.barrier("b", 2))
    assert not path.exists()


async def test_its_text_says_where_and_no_secret(tmp_path: Path) -> None:
    """Repr shows ... addresses, ports and no secret."""
    async with StoreServer(token=TOKEN) as server:
        port = server.address.rpartition(":")[2]
        store = await AsyncStore.connect(server.address, token=TOKEN)
        group = await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1, token=TOKEN, group="g")
        inner = store.with_prefix("a").with_prefix("b")
        things = [store, inner, group.store, store.lock("x"), store.watch(), store.link, group]
        for thing in things:
            assert TOKEN not in repr(thing)
            assert "token" not in repr(thing)
        for thing in (store, inner, group.store):
            assert f"127.0.0.1:{port}" in repr(thing)
        assert "'a/b/'" in repr(inner)
        assert "'g'" in repr(group.store)
        assert (store.url, inner.url, group.store.url) == (server.address,) * 3
        await group.close()
        await store.close()


async def test_the_errors_of_stores_share_one_base(store: AsyncStore) -> None:
    """Error classes share one base."""
    await store.set("key", "x")
    for call in (
        store.get("nowhere", timeout=0.01),
        store.queue_pop("nowhere", block=False),
        store.add("key"),
        AsyncStore.connect("aiopg://127.0.0.1:1", timeout=0.05),
    ):
        with pytest.raises(AiopgError):
            await call


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis-but-not://x", "redis-but-not://x"),
        ("127.0.0.1:29400", r"127\.0\.0\.1:29400"),
        ("aiopg://", "host"),
        ("aiopg://host", "port"),
        ("aiopg://host:notaport", "notaport"),
        ("unix://", "path"),
        ("memory://", "memory://name"),
    ],
)
async def test_what_is_wrong_with_a_url_is_named(url: str, named: str) -> None:
    """Wrong or missing URL parts: ValueError naming the part; unknown scheme refused."""
    with pytest.raises(ValueError, match=named):
        await AsyncStore.connect(url, timeout=0.1)


async def test_an_unknown_host_is_named() -> None:
    """Unknown host: network error naming it at T."""
    with pytest.raises(StoreUnreachableError, match=r"no-such-host\.invalid") as caught:
        await AsyncStore.connect("aiopg://no-such-host.invalid:29400", timeout=0.3)
    assert isinstance(caught.value, ConnectionError)


async def test_a_store_that_does_not_come_is_named_at_the_timeout() -> None:
    """Nobody listens there: waited for, and then told."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(StoreUnreachableError, match=str(port)):
            await AsyncStore.connect(f"aiopg://127.0.0.1:{port}", timeout=0.2)
        assert 0.15 < loop.time() - began < 2.0


async def test_an_address_in_use_is_named() -> None:
    """Address in use: network error with the port; port 0 reports the real one."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(AddressInUseError, match=str(port)):
            await StoreServer(port=port).start()
    async with StoreServer(port=0) as server:
        assert int(server.address.rpartition(":")[2]) > 0
        await (await AsyncStore.connect(server.address)).close()


async def test_a_listening_socket_is_taken_over() -> None:
    """Takes over an open listening socket: where a group hosts the store, and its keys are on it."""
    listen = socket.create_server(("127.0.0.1", 0))
    port = listen.getsockname()[1]
    group = await AsyncStatelessGroup.create("127.0.0.1", port, 0, 1, listen_socket=listen, store_host="loop")
    await group.store.shared.set("key", "1")
    async with await AsyncStore.connect(f"aiopg://127.0.0.1:{port}", timeout=LONG) as store:
        assert await store.get("key") == b"1"
    await group.close()


async def test_strangers_do_not_come_in() -> None:
    """A token of the store, and tokens that are for some groups only: they have those groups' keys alone."""
    async with StoreServer(token=TOKEN) as server:
        with pytest.raises(AuthenticationError):
            await AsyncStore.connect(server.address, timeout=LONG)
    async with StoreServer(token=[Token(TOKEN, ("mine/*",))]) as server:
        store = await AsyncStore.connect(server.address, token=TOKEN, timeout=LONG)
        for call in (store.get("key"), store.set("key", "1"), store.list_keys(), store.lock("x").acquire()):
            with pytest.raises(AuthenticationError):
                await call
        group = AsyncStatelessGroup(0, 1, store, group="mine/one")
        await group.store.set("key", "1")
        assert await group.store.get("key") == b"1"
        await group.close()
        await store.close()


async def test_close_is_fine_twice_and_ends_everything(place: Place) -> None:
    """Also of those that share its link."""
    store = await place.open()
    inner = store.with_prefix("a")
    await inner.close()
    await inner.set("key", "1")
    await asyncio.gather(store.close(), store.close())
    await store.close()
    for call in (store.get("a"), inner.get("a"), store.set("a", "1"), store.lock("a").acquire()):
        with pytest.raises(GroupClosedError):
            await call
    with pytest.raises(GroupClosedError):
        store.watch()


async def test_it_belongs_to_its_event_loop(store: AsyncStore) -> None:
    """Another one is refused, and named as the trouble."""
    await store.set("key", "1")
    refused: list[Exception] = []

    def elsewhere() -> None:
        try:
            asyncio.run(store.get("key"))
        except WrongThreadError as error:
            refused.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "another event loop" in str(refused[0])
    assert await store.get("key") == b"1"


async def test_a_forked_child_is_refused(store: AsyncStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has in its hands is the parent's connection."""
    await store.set("key", "1")
    with monkeypatch.context() as patch:
        patch.setattr("aiopg.forks.count", 1000)
        for call in (store.get("key"), store.with_prefix("a").set("key", "1")):
            with pytest.raises(ForkError, match=str(os.getpid())):
                await call
        with pytest.raises(ForkError):
            store.watch()
        await store.close()
    assert await store.get("key") == b"1"


async def test_it_cannot_be_pickled(store: AsyncStore) -> None:
    """Its url can."""
    with pytest.raises(TypeError, match="url"):
        pickle.dumps(store)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"reconnect_grace": 0}, ValueError),
        ({"reconnect_grace": 1e9}, ValueError),
        ({"token": "short"}, ValueError),
    ],
)
async def test_what_makes_no_sense_is_said_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    """Before anything is opened."""
    with pytest.raises(error, match=next(iter(options))):
        await AsyncStore.connect("aiopg://127.0.0.1:1", **options)


async def test_a_store_that_is_coming_up_is_waited_for() -> None:
    """connect() before the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    opening = asyncio.ensure_future(AsyncStore.connect(f"aiopg://127.0.0.1:{port}", timeout=LONG))
    await asyncio.sleep(0.05)
    async with StoreServer(port=port):
        store = await opening
        await store.set("key", "1")
        await store.close()


async def test_all_of_it_survives_a_restart_of_a_store_with_a_journal(tmp_path: Path) -> None:
    """Values, queues, locks, session keys, calls that wait, and watches, which go on without a gap."""
    journal = str(tmp_path / "journal")
    async with StoreServer(journal=journal, fsync="off") as server:
        store, other = [await AsyncStore.connect(server.address, timeout=LONG) for _ in range(2)]
        port = int(server.address.rpartition(":")[2])
        await store.multi_set({"kept": "1", "n": "7"})
        await store.set("mine", "1", session=True)
        await store.queue_push("q", "x")
        lock = store.lock("lock")
        await lock.acquire()
        watch = store.watch()
        waits = [await begun(call, other) for call in (other.get("later"), other.lock("lock").acquire())]
        pop = await begun(store.queue_pop("empty"), store)
    async with StoreServer(port=port, journal=journal, fsync="off"):
        assert await other.multi_get(["kept", "mine"]) == [b"1", b"1"]
        assert await store.add("n") == 8
        assert await other.queue_pop("q") == b"x"
        await store.set("later", "2")
        assert await waits[0] == b"2"
        assert not waits[1].done()
        await lock.release()
        assert await waits[1] > 0
        await other.queue_push("empty", "y")
        assert await pop == b"y"
        assert [((event := await anext(watch)).key, event.revision) for _ in range(2)] == [("n", 4), ("later", 5)]
        await watch.aclose()
        await store.close()
        with pytest.raises(KeyTimeoutError):
            await other.get("mine", timeout=0.05)
        await other.close()


async def test_a_store_without_a_journal_is_lost_with_its_server() -> None:
    """Told by an error and not by an empty store."""
    async with StoreServer() as server:
        store = await AsyncStore.connect(server.address, timeout=LONG, reconnect_grace=0.3)
        port = int(server.address.rpartition(":")[2])
        await store.set("key", "1")
        wait = await begun(store.get("other key"), store)
    async with StoreServer(port=port):
        with pytest.raises(StoreLostError):
            await wait
        with pytest.raises(StoreLostError):
            await store.get("key")
        await store.close()


async def test_keys_with_a_session_go_with_it(store: AsyncStore, place: Place) -> None:
    """session=True: they go when the link that set them is closed, and not before; who sets them anew owns them."""
    going = await place.open()
    await going.multi_set({"gone": "1", "taken": "1", "kept": "1"}, session=True)
    await going.add("gone")
    await store.set("taken", "2", session=True)
    await going.set("kept", "2")
    assert await store.num_keys() == 3
    await going.close()

    async def it_is_gone() -> bool:
        return not await store.check("gone")

    await until(it_is_gone)
    assert await store.list_keys() == ["kept", "taken"]
    with pytest.raises(KeyTimeoutError):
        await store.get("gone", timeout=0.02)


async def test_a_store_in_memory_ends_with_its_last_link(no_task_left: None) -> None:
    """Who opens the name then finds an empty one, whatever lay in the old one, and however long."""
    url = "memory://that ends"
    store, other = await AsyncStore.connect(url), await AsyncStore.connect(url)
    await store.set("key", "x")
    await store.set("other key", "x", ttl=1000)
    await store.close()
    assert await other.num_keys() == 2
    await other.close()
    async with await AsyncStore.connect(url) as anew:
        assert await anew.num_keys() == 0


async def test_a_store_in_memory_has_one_timer_for_all_ends(no_task_left: None) -> None:
    """However many keys come and go before the one that lasts longest, and none when it is closed."""
    loop = asyncio.get_running_loop()
    store = await AsyncStore.connect("memory://with ends")
    timers: list[asyncio.TimerHandle] = []
    call_later = loop.call_later

    def counted(*args: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(call_later(*args, **options))
        return timers[-1]

    loop.call_later = counted  # type: ignore[method-assign, assignment]
    try:
        await store.set("key", "x", ttl=1000)
        for _ in range(5):
            await store.set("other key", "x", ttl=0.01)
            await asyncio.sleep(0.03)
    finally:
        loop.call_later = call_later  # type: ignore[method-assign]

    def under_way() -> list[asyncio.TimerHandle]:
        late = [timer for timer in timers if hasattr(timer, "when")]  # uvloop has no timer for what is due at once
        return [timer for timer in late if timer.when() > loop.time() + 10 and not timer.cancelled()]

    assert len(timers) > 5
    assert len(under_way()) == 1
    await store.close()
    assert not under_way()
