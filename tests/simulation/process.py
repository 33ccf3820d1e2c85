"""One process of a simulated cluster: a link to the store, and a member in each of its groups."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aiopg import AsyncStore
from aiopg.address import Address
from aiopg.group import AsyncStatelessGroup
from aiopg.stores.native import NativeLink
from tests.simulation.history import Life
from tests.simulation.key_workload import KeyUser, stranger
from tests.simulation.plan import Group
from tests.simulation.workload import Member

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["ADDRESS", "Process", "road"]

P = TypeVar("P", bound=asyncio.BaseProtocol)

ADDRESS = Address("10.0.0.1", 7000)
"""Where the store is."""

LIVES = 3
"""As often a process forms a group again after it lost a peer."""


async def road(world: World, life: Life, address: Address, protocol: Callable[[], P]) -> P:
    """How a process gets to the store."""
    if life.is_dead:
        raise ConnectionRefusedError("nothing of this process runs any more")
    _, made = await world.network.connect(str(address), protocol, owner=life.name)
    return made


class Process:
    """While it runs, and what is left of it."""

    def __init__(self, world: World, slot: int, life: Life, takeover: bool) -> None:
        self.world, self.slot, self.life = world, slot, life
        self._takeover = takeover
        self._tasks: list[asyncio.Task[Any]] = []
        self._store: NativeLink | None = None

    @property
    def is_over(self) -> bool:
        """Whether it died or ended."""
        return self.life.is_dead or self.life.closed < math.inf

    def start(self, delay: float) -> None:
        """Run its program."""
        self._spawn(self._run(delay))

    def die(self) -> None:
        """Nothing of it runs any more."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        if self._store is not None:
            client = self._store._client
            client._over = True  # as after close(), but without a word, and with nothing that is still open
            client._connection = client._last = None
            if client._coming_again is not None:
                client._coming_again.cancel()

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task = self.world.loop.create_task(coroutine)
        self._tasks.append(task)
        return task

    async def _run(self, delay: float) -> None:
        world = self.world
        await asyncio.sleep(delay)
        try:
            self._store = await NativeLink.connect_by(
                ADDRESS, world.loop.time() + 10.0, grace=self.life.grace, road=partial(road, world, self.life)
            )
        except TimeoutError:
            self.life.closed = world.loop.time()
            return
        members = [
            self._spawn(self._member(group, rank))
            for group in world.groups.values()
            for rank, slot in enumerate(group.slots)
            if slot == self.slot
        ]
        if world.keys is not None:
            seat = stranger(self.life, world.epochs[self._store._client._epoch])
            members.append(self._spawn(KeyUser(world, seat, AsyncStore(self._store), place=self.slot).run()))
        if members:
            await asyncio.wait(members)
        self.life.closed = world.loop.time()
        await self._store.close()

    async def _member(self, group: Group, rank: int) -> None:
        world, size = self.world, len(group.slots)
        assert self._store is not None
        for _ in range(LIVES):
            takeover, self._takeover = self._takeover, False
            if world.random.random() < world.plan.mistakes / 4:
                size += 1
            seat = world.history.seat(self.life, group.name, rank, size, group.ttl, takeover)
            seat.epoch = world.epochs[self._store._client._epoch]
            seat_group = AsyncStatelessGroup(
                rank, size, self._store, None, group.ttl,
                group=group.name, store_timeout=world.random.choice((3.0, 10.0)),
            )  # fmt: skip
            member = Member(world, seat, seat_group)
            world.members.append(member)
            await member.run()
            size = len(group.slots)
            if not member.lost_peers or self._store._calls.is_lost:
                return
