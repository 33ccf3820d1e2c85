"""A group of several ranks in this process, each with a link of its own to etcd, that works and checks what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from aiopg import AsyncStatelessGroup

from .servers import SLOW

DEADLINE = 60.0 * SLOW
LETTERS = 3

GRACE = 60.0
"""Nobody is to be lost here, however long a busy machine leaves an etcd without a leader."""


class Crowd:
    """Ranks that do turn after turn until the block is left: messages, an all_gather and a barrier in each.

    Everything says who sent it to whom and its number, and is checked: so what was lost, doubled or overtaken shows.

    Args:
        urls: of the store, one for each rank.
        name: of the group.
    """

    def __init__(self, urls: Sequence[str], name: str) -> None:
        self._urls, self._name = urls, name
        self.groups: list[AsyncStatelessGroup] = []
        self.turns = [0] * len(urls)
        """That each rank has done."""
        self._enough = False
        self._moved = asyncio.Event()
        self._tasks: asyncio.TaskGroup

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(DEADLINE):
            self.groups = await asyncio.gather(
                *(
                    AsyncStatelessGroup.connect(
                        url, rank=rank, world_size=len(self._urls), group=self._name, reconnect_grace=GRACE
                    )
                    for rank, url in enumerate(self._urls)
                )
            )
        self._tasks = await asyncio.TaskGroup().__aenter__()
        for group in self.groups:
            self._tasks.create_task(self._work(group))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._enough = True
        try:
            await self._tasks.__aexit__(exc_type, exc, tb)
        finally:
            await asyncio.gather(*(group.close() for group in self.groups))

    async def more_turns(self, count: int) -> None:
        """Until every rank has done so many more."""
        until = [turns + count for turns in self.turns]
        while any(done < goal for done, goal in zip(self.turns, until, strict=True)):
            self._moved.clear()
            await self._moved.wait()

    async def _work(self, group: AsyncStatelessGroup) -> None:
        turn = 0
        while not all(await group.all_gather(self._enough, tag="enough?", timeout=DEADLINE)):
            async with asyncio.TaskGroup() as tasks:
                for other in range(group.world_size):
                    if other != group.rank:
                        tasks.create_task(self._write(group, turn, other))
                        tasks.create_task(self._read(group, turn, other))
                tasks.create_task(self._meet(group, turn))
            turn += 1
            self.turns[group.rank] = turn
            self._moved.set()
        for other in range(group.world_size):
            if other != group.rank:
                await group.send("the last", other, timeout=DEADLINE)
                assert await group.recv(other, timeout=DEADLINE) == "the last"
        await group.barrier(DEADLINE)

    async def _write(self, group: AsyncStatelessGroup, turn: int, other: int) -> None:
        for number in range(LETTERS):
            await group.send([group.rank, other, turn, number], other, timeout=DEADLINE)

    async def _read(self, group: AsyncStatelessGroup, turn: int, other: int) -> None:
        for number in range(LETTERS):
            assert await group.recv(other, timeout=DEADLINE) == [other, group.rank, turn, number]

    async def _meet(self, group: AsyncStatelessGroup, turn: int) -> None:
        parts = [[rank, turn] for rank in range(group.world_size)]
        assert await group.all_gather([group.rank, turn], tag="parts", timeout=DEADLINE) == parts
        await group.barrier(DEADLINE, tag="barrier")
