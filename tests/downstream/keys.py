"""Keys of a store, awaited and blocking."""

from __future__ import annotations

import asyncio
import threading

from aiopg import AsyncStatelessGroup, AsyncStore, KeyEvent, Store, StoreServer


async def awaited(url: str) -> None:
    async with await AsyncStore.connect(url, timeout=10) as store:
        team = store.with_prefix("team")
        watch = team.watch()
        revision: int = await team.set("leader", "rank 0", ttl=60, session=True)
        event: KeyEvent = await anext(watch)
        assert (event.kind, event.key, event.value, event.revision) == ("set", "leader", b"rank 0", revision)
        await watch.aclose()
        swapped, held = await store.compare_set("epoch", None, b"1")
        assert (swapped, held, await store.add("epoch", 2)) == (True, b"1", 3)
        await store.queue_push("jobs", b"one")
        async with store.lock("deploy") as lock:
            number: int = lock.number
            print(number, await store.queue_pop("jobs"), await store.list_keys())
    async with await AsyncStatelessGroup.rendezvous(url, 1, metadata={"host": "a"}) as group:
        keys: AsyncStore = group.store
        await keys.set("private", b"")
        print(group.metadata, await keys.num_keys(), await keys.shared.num_keys())


def blocking(url: str) -> None:
    with Store.connect(url) as store:
        store.multi_set({"a": b"1", "b": "2"})
        values: list[bytes] = store.multi_get(["b", "a"])
        print(values, store.check(["a", "c"]), store.delete_key("a"))
        store.barrier("alone", 1)


async def main() -> None:
    async with StoreServer() as server:
        await awaited(server.address)
        thread = threading.Thread(target=blocking, args=(server.address,))
        thread.start()
        await asyncio.to_thread(thread.join)


asyncio.run(main())
