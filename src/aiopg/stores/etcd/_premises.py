"""What the rooms of one link share: the way to etcd, the lease, and whom to tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from aiopg._core.limits import Limits
from aiopg._core.messages import Event
from aiopg.stores._rooms import Rooms
from aiopg.stores.etcd._client import EtcdClient
from aiopg.stores.etcd._layout import Layout
from aiopg.stores.etcd._lease import Lease

__all__ = ["ENTRY_BYTES", "LEASE_ENDED", "LIMITS", "Breath", "FencedError", "Premises"]

KIB = 1024
MIB = 1024 * KIB

ENTRY_BYTES: Final = MIB
"""As many bytes of commands are in one entry: etcd takes requests of 1.5 MiB, if nobody has told it otherwise."""

LEASE_ENDED: Final = "its lease in etcd has ended"
"""Why a session is over whose key is gone."""

BREATH_SECONDS: Final = 0.005

LIMITS: Final = Limits(
    payload_bytes=64 * MIB,
    group_bytes=256 * MIB,
    store_bytes=256 * MIB,
    value_bytes=512 * KIB,
    kept_changes=1024,
    kept_changes_bytes=MIB,
)
"""All copies of a room's engine have the same, or they would differ. etcd has 2 GiB, if nobody has told it otherwise,
for all that is not compacted yet. A `CompareSet` has two values in one entry. Kept changes are in every snapshot."""


class FencedError(Exception):
    """A session of ours is not in etcd any more: its lease has ended."""


class Breath:
    """For who goes through many entries: others have their turn on the loop now and then."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()

    async def take(self) -> None:
        """Between one entry and the next."""
        if self._loop.time() - self._since > BREATH_SECONDS:
            await asyncio.sleep(0)
            self._since = self._loop.time()


@dataclass(slots=True, eq=False)
class Premises:
    """Of one link."""

    client: EtcdClient
    lease: Lease
    layout: Layout
    loop: asyncio.AbstractEventLoop
    spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], asyncio.Task[None]]
    """Begins a task of the link: it is cancelled when that ends, and its errors end the link."""
    rooms: Rooms
    """Who hears the events."""

    def received(self, event: Event) -> bool:
        """An event for a call of this link. False if that is over: nobody waits for it any more."""
        if self.rooms.calls.is_lost:
            return False
        self.rooms.received(event)
        return True
