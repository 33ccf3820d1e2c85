"""What is on the store when everybody has gone: looked at, and taken away, by one more user."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from aiopg import AsyncStore
from aiopg.errors import AiopgError
from aiopg.stores.native import NativeLink
from tests.simulation.history import Seat
from tests.simulation.key_history import KeyHistory, Use
from tests.simulation.key_workload import make, stranger
from tests.simulation.process import ADDRESS, road

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["audit", "what_remains"]

SECONDS = 2.0
"""All is calm, so a call takes no time to speak of; what takes as long as this is not to be had."""


class _Audit:
    def __init__(self, history: KeyHistory, store: AsyncStore, seat: Seat) -> None:
        self._history, self._store, self._seat = history, store, seat

    async def run(self) -> None:
        """Ask for the lock, read every key, pop every item; then delete all."""
        lock = self._store.lock("lock")
        if (await self._use("lock", "lock", lambda: lock.acquire(timeout=SECONDS))).ok:
            await lock.release()
        for key in await self._store.list_keys():
            if key.startswith("queue/"):
                while (await self._use("pop now", key)).ok:
                    pass
            else:
                await self._use("get", key)
        for key in await self._store.list_keys():
            await self._store.delete_key(key)

    async def _use(self, op: str, key: str, call: Callable[[], Any] | None = None) -> Use:
        use = self._history.use(self._seat, op, key)
        self._history.begin(use, SECONDS)
        await self._history.watch(use, call() if call is not None else make(self._store, use, SECONDS))
        return use


async def audit(world: World) -> None:
    """Look at the store's own keys, and leave none."""
    history, loop = world.history, world.loop
    history.keys.audit = loop.time()
    life = history.life("audit", 5.0)
    try:
        link = await NativeLink.connect_by(ADDRESS, loop.time() + 10.0, grace=5.0, road=partial(road, world, life))
    except TimeoutError as error:
        world.remains.append(f"a store that nobody gets to: {error}")
        return
    epoch = world.epochs[link._client._epoch]
    history.keys.auditor = seat = stranger(life, epoch)
    try:
        await _Audit(history.keys, AsyncStore(link, timeout=SECONDS), seat).run()
    except AiopgError as error:
        world.remains.append(f"a store that does not answer: {error!r}")
    finally:
        life.closed = loop.time()
        await link.close()


def what_remains(engine: Any) -> list[str]:
    """What is left of the store's own keys, and should not."""
    space = engine._groups.common.keys
    parts = {
        "keys": len(space.values),
        "queues": len(space.queues),
        "locks": len(space.locks._locks),
        "meetings": len(space.meetings._meetings),
        "waits": len(space.waits._by_name),
        "followers": len(space.changes.followers),
        "bytes of keys": space.bytes - space.changes.bytes,
    }
    return [f"{what}: {left}" for what, left in parts.items() if left]
