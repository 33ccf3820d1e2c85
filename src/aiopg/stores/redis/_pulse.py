"""What keeps a link's sessions while its event loop does not come to it: a thread that renews their leases.

A program may hold its loop up for a minute, and a payload may take as long on a slow road: neither is a death. So a
thread beside the loop looks whether the rooms were called in time, and says for those that were not that they live. It
has connections of its own, for the time in which it needs them. It knows nothing of commands and events, and when the
process dies or is stopped, it does too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from redis.exceptions import ResponseError

from aiopg.errors import AiopgError
from aiopg.loops import LoopThread
from aiopg.stores.redis._address import Host
from aiopg.stores.redis._dial import BROKEN, Dialer, Wire, ask
from aiopg.stores.redis._room import RedisRoom
from aiopg.stores.redis._script import Script

__all__ = ["Pulse"]


class Pulse:
    """The thread of one link."""

    def __init__(
        self, dialer: Dialer, rooms: Callable[[], Iterable[RedisRoom]], script: Callable[[], Script], grace: float
    ) -> None:
        """`rooms`: those of the link; called in the thread."""
        self._dialer = dialer
        self._rooms = rooms
        self._script = script
        self._grace = grace
        self._loop = asyncio.get_running_loop()
        self._thread = LoopThread("aiopg pulse")
        self._thread.submit(self._run())

    def stop(self) -> None:
        """End it; never waits."""
        self._thread.stop(0)

    async def _run(self) -> None:
        wires: dict[Host | None, Wire] = {}
        try:
            while not self._loop.is_closed():
                await asyncio.sleep(self._grace / 6)
                late = self._late()
                if late:
                    await self._speak(late, wires)
                elif wires:
                    await _part(wires)
        finally:
            await _part(wires)

    def _late(self) -> list[RedisRoom]:
        """Rooms that should have been called since, and were not."""
        now = asyncio.get_running_loop().time()
        return [room for room in self._rooms() if room.is_open and room.renewed_at + self._grace / 2 < now]

    async def _speak(self, rooms: list[RedisRoom], wires: dict[Host | None, Wire]) -> None:
        """Say that these live, as far as the server is reached now."""
        milliseconds = b"%d" % int(self._grace * 1000)
        try:
            async with asyncio.timeout(self._grace / 3):
                for room in rooms:
                    where = room.node.where
                    if where not in wires:
                        wires[where] = await self._dialer.open(where)
                    await ask(wires[where], *self._script().command(room.prefix, b"beat", room.sid, milliseconds))
        except (*BROKEN, AiopgError, ResponseError):
            await _part(wires)  # the loop finds out what is wrong, when it comes to it


async def _part(wires: dict[Host | None, Wire]) -> None:
    while wires:
        _, wire = wires.popitem()
        await wire.disconnect(nowait=True)
