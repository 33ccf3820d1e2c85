"""What goes wrong in a simulated cluster, and when. Whatever it does to a process, it adds to its `exposure`."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

from tests.simulation.network import Connection
from tests.simulation.records import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Faults"]

KINDS = ("cut", "cut", "cut", "burst", "half_open", "stall", "freeze", "refuse", "crash", "hang", "ambush", "restart")
WEIGHTS = (9, 9, 9, 5, 4, 4, 3, 4, 5, 3, 5, 0.6)

CUT_SECONDS = 0.06
"""What one cut may cost a process until it is back: pauses between attempts."""


class Faults:
    """The source of all trouble in one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random

    async def run(self) -> None:
        """Make some trouble, and end."""
        random = self._random
        many = random.choice((0, 1, 2, 3, 4, 6))
        largest = random.choice((0.01, 0.05, 0.3))
        for _ in range(many):
            await asyncio.sleep(largest * random.random())
            (kind,) = random.choices(KINDS, WEIGHTS)
            if await self._make(kind):
                self._world.counts[kind] += 1

    async def _make(self, kind: str) -> bool:
        """Whether there was something to break."""
        world, random = self._world, self._random
        if kind == "restart":
            world.crash_server()
            return True
        if kind in ("crash", "hang", "ambush"):
            processes = world.processes
            if not processes:
                return False
            process = random.choice(processes)
            if kind == "ambush":
                self._cut_off(process.owner, "cut")
                self._lie_in_wait(process, random.randint(1, 4))
                return True
            if kind == "crash":
                world.crash(process)
                return True
            if world.lives == 1 or not world.hang(process):
                return False
            if random.random() < 0.5:
                self._cut_off(process.owner, "half_open")
            return True
        if kind == "burst":
            for _ in range(random.randint(2, 5)):
                self._cut_some()
                await asyncio.sleep(0.02 * random.random())
            return True
        if kind == "refuse":
            self._refuse()
            self._cut_some()
            return True
        connections = world.network.connections
        if not connections:
            return False
        self._break(kind, random.choice(connections))
        return True

    def _break(self, kind: str, connection: Connection) -> None:
        world, random = self._world, self._random
        seconds = random.choice((0.01, 0.3, 2.0)) * random.random()
        if kind == "cut":
            world.network.cut(connection)
            seconds = CUT_SECONDS
        elif kind == "half_open":
            world.network.half_open(connection, seconds)
            seconds += CUT_SECONDS
        elif kind == "stall":
            world.network.stall(connection, seconds)
        else:
            world.network.freeze(random.choice((connection.client, connection.server)), seconds)
        self._expose(connection.client.owner, seconds)

    def _cut_some(self) -> None:
        for connection in self._world.network.connections:
            if self._random.random() < 0.5:
                self._break("cut", connection)

    def _refuse(self) -> None:
        seconds = self._random.choice((0.05, 0.3, 1.5))
        self._world.network.refuse("aiopg://10.0.0.1:7000", seconds)
        for process in self._world.history.processes:
            # The pauses between attempts double: as much again may go by before one is made.
            self._expose(process.owner, 2 * seconds + CUT_SECONDS)

    def _cut_off(self, owner: str, how: str) -> None:
        for endpoint in self._world.network.endpoints(owner):
            self._break(how, endpoint.connection)

    def _lie_in_wait(self, process: Process, receipts: int) -> None:
        """Break its connection with the last of so many receipts: it hears of both in one pass, or nearly."""

        def came() -> None:
            if receipts > 1:
                self._lie_in_wait(process, receipts - 1)
            else:
                self._world.loop.call_soon(self._reset, process)

        process.on_bytes.append(came)

    def _reset(self, process: Process) -> None:
        self._expose(process.owner, CUT_SECONDS)
        for endpoint in self._world.network.endpoints(process.owner):
            self._world.network.cut(endpoint.connection)
            endpoint.lose(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    def _expose(self, owner: str, seconds: float) -> None:
        for process in self._world.history.processes:
            if process.owner == owner:
                process.exposure += seconds
