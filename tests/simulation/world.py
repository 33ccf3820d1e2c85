"""A whole cluster in one thread: store, network and members in virtual time, all of it chosen by one seed.

Only what a program cannot choose for itself is replaced while it runs: chance and the identity of the process. All else
is the real server, the real client and the real groups.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import TypeVar
from unittest import mock

import aiopg.client._client
from aiopg import AsyncStatelessGroup, StoreServer
from aiopg.address import Address
from aiopg.processes import ProcessIdentity
from aiopg.server._sessions import Sessions
from aiopg.stores.native import NativeStore
from tests.simulation.faults import Faults
from tests.simulation.loop import SimLoop
from tests.simulation.network import SimNetwork
from tests.simulation.records import History, Process, Seat
from tests.simulation.workload import PATIENCE, Part, make_plan

__all__ = ["ADDRESS", "World", "nobody_in_particular", "play"]

P = TypeVar("P", bound=asyncio.BaseProtocol)

ADDRESS = Address("10.0.0.1", 7000)

_NOBODY = ProcessIdentity(0, 0, 0, "")


@contextmanager
def nobody_in_particular(chance: Random) -> Iterator[None]:
    """While it lasts, all chance comes from `chance`, this process is nobody, and aiopg logs nothing."""
    logger = logging.getLogger("aiopg")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    patches = (
        mock.patch.object(secrets, "token_bytes", chance.randbytes),
        mock.patch.object(random, "uniform", chance.uniform),
        mock.patch.object(os, "getpid", return_value=4711),
        mock.patch.object(socket, "gethostname", return_value="host"),
        mock.patch.object(aiopg.client._client, "own_identity", return_value=_NOBODY),
    )
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()
        logger.setLevel(level)


class World:
    """One run."""

    def __init__(self, loop: SimLoop, chance: Random) -> None:
        self.loop = loop
        self.random = chance
        self.network = SimNetwork(loop, chance)
        self.counts: Counter[str] = Counter()
        self.world_size = chance.choice((2, 2, 3, 3, 4))
        self.grace = 0.4 if chance.random() < 0.15 else 5.0
        self.lives = chance.choice((1, 1, 2))
        self.lazy = chance.choice((0.02, 0.02, 0.2))
        """Share of the calls after which a program does something else for seconds."""
        ttl = 1.0 if chance.random() < 0.12 else 3600.0
        names = ("one", "two") if chance.random() < 0.3 else ("one",)
        share = 1.0 / len(names)
        self.history = History({name: make_plan(chance, self.world_size, share, ttl) for name in names})
        self.sessions: Sessions
        self.server: StoreServer
        self.faults = Faults(self)
        self._live: dict[int, _Life] = {}

    async def run(self) -> None:
        """All of it, until everybody has gone and the store has noticed."""
        self.start_server()
        faults = self.loop.create_task(self.faults.run())
        try:
            await asyncio.gather(*(self._rank(rank) for rank in range(self.world_size)))
        finally:
            faults.cancel()
        await asyncio.wait([faults])
        if not faults.cancelled():
            faults.result()
        await asyncio.sleep(self.grace + 15.0)
        self._look_for_leftovers()
        await self.server.close()
        await asyncio.sleep(1.0)
        self.history.left_over += [str(connection) for connection in self.network.connections]

    def start_server(self) -> None:
        """A store comes up, new and empty."""
        self.server = StoreServer()
        self.sessions = self.server.begin()
        self.network.listen(str(ADDRESS), self.sessions.accept, owner="server")

    def crash_server(self) -> None:
        """The store is killed, and another one comes up at once."""
        self.history.restarts.append(self.loop.time())
        for life in self._live.values():
            life.process.restarts += 1
        self.network.kill("server")
        self.sessions.close("nobody hears this")
        self.start_server()

    @property
    def processes(self) -> list[Process]:
        """Those that live."""
        return [life.process for life in self._live.values()]

    def crash(self, process: Process) -> None:
        """A process is killed, if it lives."""
        life = self._live.pop(process.number, None)
        if life is not None:
            life.crash()

    def hang(self, process: Process) -> bool:
        """Somebody takes a process for hung, and starts another one that takes its rank by force."""
        life = self._live.get(process.number)
        if life is None or life.given_up.is_set():
            return False
        process.replaced_at = self.loop.time()
        life.given_up.set()
        return True

    async def _rank(self, rank: int) -> None:
        """A rank's processes, one after the other; two at once where one is given up."""
        takeover = False
        hung: list[asyncio.Task[None]] = []
        for _ in range(self.lives):
            number = len(self.history.processes)
            process = Process(number, rank, f"rank{rank}.{number}", self.grace)
            self.history.processes.append(process)
            life = self._live[number] = _Life(self, process, takeover)
            task = self.loop.create_task(life.run())
            given_up = self.loop.create_task(life.given_up.wait())
            await asyncio.wait([task, given_up], return_when=asyncio.FIRST_COMPLETED)
            given_up.cancel()
            hung.append(task)
            takeover = process.replaced_at < math.inf or (process.killed_at < math.inf and self.random.random() < 0.5)
            if takeover:
                process.replaced_at = min(process.replaced_at, self.loop.time())
        await asyncio.gather(*hung)
        self.history.retired[rank] = self.loop.time()

    def _look_for_leftovers(self) -> None:
        described, left = self.server.describe(), self.history.left_over
        left += [f"{key}: {described[key]}" for key in ("groups", "rounds", "bytes", "members") if described[key]]
        if len(self.sessions):
            left.append(f"{len(self.sessions)} sessions")
        left += [str(connection) for connection in self.network.connections]


class _Life:
    """A process, while it lives."""

    def __init__(self, world: World, process: Process, takeover: bool) -> None:
        self.world = world
        self.process = process
        self.takeover = takeover
        self.given_up = asyncio.Event()
        self._store: NativeStore | None = None
        self._main: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until it ends or is killed."""
        self._main = self.world.loop.create_task(self._play())
        await asyncio.wait([self._main])
        self.world._live.pop(self.process.number, None)
        if self._store is not None and self.process.killed_at < math.inf:
            await self._store.close()  # of a dead process nobody hears anything; this is to free what it had
        if not self._main.cancelled():
            self._main.result()

    def crash(self) -> None:
        """It is killed: nothing that it does from here on reaches anybody."""
        self.process.killed_at = self.world.loop.time()
        self.world.network.kill(self.process.owner)
        assert self._main is not None
        self._main.cancel()
        if self._store is not None:
            self._store._client.close("it is dead")

    async def _play(self) -> None:
        world, chance = self.world, self.world.random
        deadline = world.loop.time() + PATIENCE
        self._store = await NativeStore.connect_by(ADDRESS, deadline, grace=world.grace, road=self._road)
        abort_after = 0.2 * chance.random() if chance.random() < 0.04 else None
        parts = []
        for name, plan in world.history.plans.items():
            seat = Seat(self.process, name)
            world.history.seats.append(seat)
            group = AsyncStatelessGroup(
                self.process.rank, plan.world_size, self._store, data_expiration_seconds=plan.ttl, group=name
            )
            parts.append(Part(world, seat, group).play(self.takeover, abort_after))
        await asyncio.gather(*parts)
        await self._store.close()

    async def _road(self, address: Address, protocol: Callable[[], P]) -> P:
        transport, made = await self.world.network.connect(str(address), protocol, owner=self.process.owner)
        self.process.connections += 1
        if self.process.connections > 1:
            self.world.counts["came back with calls under way" if self.process.under_way else "came back"] += 1
        receive, waiting = transport.receive, self.process.on_bytes

        def notice(data: bytearray, size: int) -> None:
            callbacks = waiting[:]
            waiting.clear()
            for callback in callbacks:
                callback()
            receive(data, size)

        transport.receive = notice  # type: ignore[method-assign]
        return made


def play(seed: int, log: list[str] | None = None) -> tuple[World, str]:
    """One run, and the hash of all that happened in it. `log`: gets a line for each event of the network.

    Raises `Stuck` if it does not come to an end.
    """
    chance = Random(seed)
    loop = SimLoop(max_seconds=3000.0, max_steps=400_000)
    with nobody_in_particular(chance):
        world = World(loop, chance)
        world.network.log = log
        try:
            loop.run(world.run())
            world.history.left_over += loop.leftovers()
        finally:
            loop.close()
    world.history.left_over += [f"{f.message}: {f.exception!r}" for f in loop.failures]
    return world, world.network.trace
