"""The last word of a program that ends without closing its link."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiopg.stores.redis._dial import Dialer, ask
from aiopg.stores.redis._nodes import Nodes
from aiopg.stores.redis._room import RedisRoom
from aiopg.stores.redis._script import Script

__all__ = ["say_goodbye"]

GOODBYE_SECONDS = 1.0


async def say_goodbye(dialer: Dialer, nodes: Nodes, script: Script, rooms: Iterable[RedisRoom], reason: str) -> None:
    """End the sessions in these rooms, over new connections, as far as that can be done soon.

    Raises one of `BROKEN`, `AiopgError`, or what a server answered.
    """
    async with asyncio.timeout(GOODBYE_SECONDS):
        for node in nodes:
            leaving = [room for room in rooms if room.node is node]
            if leaving:
                wire = await dialer.open(await node.locate())
                try:
                    for room in leaving:
                        # With what it has received, or the server takes back what was only just handed on.
                        await ask(wire, *script.command(room.prefix, b"run", room.sid, room.header()))
                        await ask(wire, *script.command(room.prefix, b"end", room.sid, reason.encode()))
                finally:
                    await wire.disconnect(nowait=True)
