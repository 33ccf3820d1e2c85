"""What goes wrong in a run, and when: the plan's faults at random moments."""

from __future__ import annotations

import asyncio
import errno
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.disk import SLOW_SECONDS, SNAPSHOT_SECONDS
from tests.simulation.transport import Connection, SimTransport

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Faults"]


class Faults:
    """Makes the faults of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._network = world.network
        self._random: Random = world.random

    async def run(self) -> None:
        """All of them; returns when the last one was made."""
        plan, random = self._world.plan, self._random
        names = list(plan.weights)
        times = sorted(random.random() * plan.horizon for _ in range(plan.faults))
        begun = self._network.loop.time()
        for time, name in zip(times, random.choices(names, list(plan.weights.values()), k=plan.faults), strict=True):
            await asyncio.sleep(max(0.0, begun + time - self._network.loop.time()))
            self._world.counts[f"fault: {name}"] += 1
            getattr(self, name)()

    def cut(self) -> None:
        """A connection breaks."""
        if (connection := self._any()) is not None:
            self._network.cut(connection)

    def storm(self) -> None:
        """Connections break, and what takes their place breaks too."""

        def again(times: int) -> None:
            self.cut()
            if times:
                self._network.loop.call_later(0.02 * self._random.random(), again, times - 1)

        again(self._random.randint(2, 12))

    def half_open(self) -> None:
        """A connection brings nothing any more, and nobody is told for a while."""
        if (connection := self._any()) is not None:
            self._network.half_open(connection, self._random.choice((0.05, 0.5, 2.0, 8.0)))

    def stall(self) -> None:
        """A connection brings nothing for a while."""
        if (connection := self._any()) is not None:
            self._network.stall(connection, self._random.choice((0.02, 0.3, 3.0)))

    def freeze(self) -> None:
        """One end of a connection does nothing for a while."""
        if (connection := self._any()) is not None:
            end = self._random.choice((connection.client, connection.server))
            self._network.freeze(end, self._random.choice((0.02, 0.3, 3.0)))

    def pause_member(self) -> None:
        """A member's process does nothing for a while."""
        if (process := self._world.any_process()) is not None:
            self._network.pause(process.life.name, self._random.choice((0.1, 1.0, 4.0)))

    def pause_server(self) -> None:
        """The store does nothing for a while."""
        seconds = self._random.choice((0.1, 1.0, 4.0))
        now = self._network.loop.time()
        self._world.history.paused.append((now, now + seconds))
        self._network.pause("server", seconds)

    def refuse(self) -> None:
        """The store is not reached for a while."""
        self._network.refuse(self._world.address, self._random.choice((0.1, 0.6, 2.5)))
        self.cut()

    def away(self) -> None:
        """One member, or all, lose their connections and do not come again in time, or just in time."""
        seconds = self._random.choice(self._world.plan.graces) * self._random.choice((0.7, 1.0, 1.3))
        self._network.refuse(self._world.address, seconds)
        for connection in self._network.connections:
            if self._random.random() < 0.7:
                self._network.cut(connection)

    def kill(self) -> None:
        """A process dies; another one takes its place, or not."""
        if (process := self._world.any_process()) is not None:
            self._world.kill(process)
            if self._random.random() < 0.8:
                self._world.come_back(process, self._random.choice((0.0, 0.1, 1.0, 6.0)))

    def crash(self) -> None:
        """The store's process dies and is started again."""
        self._world.crash(self._random.choice((0.0, 0.2, 1.5)))

    def crash_at_snapshot(self) -> None:
        """The same, when it has begun to make a snapshot."""
        world, random = self._world, self._random
        delay = random.choice((0.0, 0.2, 1.5))
        if (journal := world.lives.journal) is not None:
            most = random.choice((0.0, *SNAPSHOT_SECONDS))
            journal.on_rotation = lambda: world.loop.call_later(most * random.random(), world.crash, delay)

    def disk_fails(self) -> None:
        """The store's disk is full, or broken; somebody notices and starts the store again."""
        self._world.fail_disk(self._random.choice((0.0, 0.2, 1.5)))

    def slow_disk(self) -> None:
        """The store's disk takes its time for a while."""
        if (journal := self._world.lives.journal) is not None:
            seconds, now = self._random.choice((0.5, 3.0)), self._network.loop.time()
            journal.be_slow(seconds)
            self._world.history.slow.append((now, now + seconds + 2 * SLOW_SECONDS))

    def intrude(self) -> None:
        """A process joins in the place of one that lives; now and then just when that one is away."""
        if (process := self._world.any_process()) is not None:
            if self._random.random() < 0.5:
                for end in self._network.endpoints(process.life.name):
                    self._network.cut(end.connection)
                self._network.refuse(self._world.address, 0.05)
            self._world.come_back(process, self._random.choice((0.0, 0.06)), takeover=self._random.random() < 0.5)

    def ambush(self) -> None:
        """A connection breaks; the next one is reset in the very moment in which something comes over it."""
        process = self._world.any_process()
        if process is None:
            return
        network, owner = self._network, process.life.name
        left = self._random.randint(1, 6)

        def spring(end: SimTransport) -> None:
            end.lose(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
            network.loop.call_soon(network.cut, end.connection, 0, 0)

        def heard(end: SimTransport) -> None:
            nonlocal left
            left -= 1
            if left:
                network.when_heard(owner, heard)
            elif self._random.random() < 0.5:
                network.loop.call_soon(spring, end)
            else:
                spring(end)

        for end in network.endpoints(owner):
            network.cut(end.connection)
        network.when_heard(owner, heard)

    def _any(self) -> Connection | None:
        connections = self._network.connections
        return self._random.choice(connections) if connections else None
