"""The servers of a link: one, or on a cluster each that serves a room of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

from redis.crc import key_slot
from redis.exceptions import MovedError, ResponseError

from aiopg.errors import AiopgError, StoreUnreachableError
from aiopg.stores.redis._address import Host
from aiopg.stores.redis._dial import BROKEN, Dialer
from aiopg.stores.redis._node import Node
from aiopg.stores.redis._room import RedisRoom

__all__ = ["Nodes"]


class Nodes:
    """Which server each room is at. Each server has a task, in the group that `serve` is given."""

    def __init__(self, dialer: Dialer, grace: float, on_lost: Callable[[AiopgError], None]) -> None:
        self._dialer = dialer
        self._grace = grace
        self._on_lost = on_lost
        self._clustered = dialer.address.kind == "cluster"
        self._slots: dict[int, Host] = {}
        self._nodes: dict[Host | None, Node] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    async def connect(self, prefix: bytes, deadline: float) -> None:
        """Reach the server of one room. Raises one of `BROKEN` at `deadline` (loop time), `AiopgError` at once."""
        pause = 0.05
        while self._clustered:
            try:
                await self._learn()
                break
            except StoreUnreachableError:
                raise
            except BROKEN:
                if asyncio.get_running_loop().time() + pause >= deadline:
                    raise
                await asyncio.sleep(pause)
        await self.of(prefix).connect(deadline)

    def serve(self, tasks: asyncio.TaskGroup) -> None:
        """Run the servers' tasks in this group from now on."""
        self._tasks = tasks
        for where, node in self._nodes.items():
            tasks.create_task(self._run(where, node), name=f"Redis at {where}")

    def of(self, prefix: bytes) -> Node:
        """The server of a room."""
        where = self._slots.get(key_slot(prefix)) if self._clustered else None
        node = self._nodes.get(where)
        if node is None:
            locate = self._dialer.find_primary if where is None else partial(_stays, where)
            on_down = self._look_anew if self._clustered else None
            node = self._nodes[where] = Node(self._dialer, locate, self._grace, self._on_lost, on_down)
            if self._tasks is not None:
                self._tasks.create_task(self._run(where, node), name=f"Redis at {where}")
        return node

    def moved(self, room: RedisRoom, error: MovedError) -> None:
        """A server said that the room is at another one."""
        self.note(error)
        room.move(self.of(room.prefix))

    def note(self, error: MovedError) -> None:
        """A server said where a slot is."""
        self._slots[error.slot_id] = (error.host, int(error.port))

    def stop(self) -> None:
        """They are about to be cancelled."""
        for node in self._nodes.values():
            node.stop()

    async def close(self) -> None:
        """Part from all, also from those whose task was cancelled before it began."""
        for node in list(self._nodes.values()):
            await node.close()
        await asyncio.sleep(0)  # so that the transports are closed when this returns

    async def _run(self, where: Host | None, node: Node) -> None:
        await node.run()
        if self._nodes.get(where) is node:
            del self._nodes[where]

    async def _look_anew(self) -> None:
        """A node is not reached: its slots may be at another one now."""
        try:
            await self._learn()
        except (*BROKEN, AiopgError, ResponseError):
            return
        for node in list(self._nodes.values()):
            for room in node.listeners:
                if isinstance(room, RedisRoom) and (here := self.of(room.prefix)) is not node:
                    room.move(here)

    async def _learn(self) -> None:
        self._slots = await self._dialer.find_slots([host for host in self._nodes if host is not None])


async def _stays(where: Host) -> Host:
    return where
