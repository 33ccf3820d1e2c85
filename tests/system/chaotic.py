"""The load of `test_chaos`: what each rank sends, and checks; see `programs`.

Everything is a function of the seed: what rank `src` sends to rank `dst` in a turn (`letters`), and what each
collective carries (`part`). So whoever receives knows what must come, and in which order; and equality with that says
that nothing was lost, doubled, reordered or changed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

from aiopg import AsyncStatelessGroup, StatelessGroup

from .programs import Place, main, say

Tag: TypeAlias = int | str

TAGS: tuple[Tag, ...] = (0, 1, -7, "text")
LARGEST = 300_000
DEADLINE = 30.0
GRACE = 15.0
THREADS = 32


class Letter(NamedTuple):
    """A message: its tag, and what it says."""

    tag: Tag
    text: list[Any]


def content(*name: object) -> bytes:
    """The bytes of that name, 1 to `LARGEST`, small ones as often as large ones."""
    chance = random.Random(repr(name))
    return chance.randbytes(int(LARGEST ** chance.random()))


def letters(seed: int, turn: int, src: int, dst: int) -> Iterator[Letter]:
    """What one rank sends to another in a turn, in order."""
    chance = random.Random(repr((seed, turn, src, dst)))
    for number in range(chance.randint(1, 3)):
        yield Letter(chance.choice(TAGS), [src, turn, number, content(seed, turn, src, dst, number)])


def part(seed: int, turn: int, rank: int) -> list[Any]:
    """What a rank gives to a collective in a turn."""
    return [rank, turn, content(seed, turn, rank)]


class Threaded:
    """A blocking group for the load: each call in a thread of its own."""

    def __init__(self, group: StatelessGroup) -> None:
        self._group = group
        self.rank, self.world_size = group.rank, group.world_size

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._group, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            return await asyncio.to_thread(method, *arguments, **options)

        return call


class Load:
    """The turns of one rank."""

    def __init__(self, group: AsyncStatelessGroup | Threaded, seed: int) -> None:
        self._group, self._seed = group, seed
        self.received = self.collectives = 0

    async def turn(self, turn: int) -> None:
        """All of it at once."""
        rank = self._group.rank
        others = [other for other in range(self._group.world_size) if other != rank]
        async with asyncio.TaskGroup() as tasks:
            for other in others:
                tasks.create_task(self._send(turn, other))
                for tag in TAGS:
                    tasks.create_task(self._receive(turn, other, tag))
            tasks.create_task(self._collect(turn))

    async def _send(self, turn: int, other: int) -> None:
        for tag, text in letters(self._seed, turn, self._group.rank, other):
            await self._group.send(text, other, tag=tag, timeout=DEADLINE)

    async def _receive(self, turn: int, other: int, tag: Tag) -> None:
        for letter in letters(self._seed, turn, other, self._group.rank):
            if letter.tag == tag:
                text = await self._group.recv(other, tag=tag, timeout=DEADLINE)
                assert text == letter.text, (text[:3], letter.text[:3], tag)
                self.received += 1

    async def _collect(self, turn: int) -> None:
        group, n = self._group, self._group.world_size
        parts = [part(self._seed, turn, rank) for rank in range(n)]
        await group.barrier(DEADLINE, tag="barrier")
        assert await group.all_gather(parts[group.rank], tag="gather", timeout=DEADLINE) == parts
        source = turn % n
        given = parts[source] if group.rank == source else None
        assert await group.broadcast(given, source, tag="news", timeout=DEADLINE) == parts[source]
        self.collectives += 3


async def chaotic(place: Place) -> None:
    """Turn after turn, until the test has said that it is enough; a line when the load went round so often."""
    logging.getLogger("aiopg.group").setLevel(logging.ERROR)  # a long wait is no fault here, only one that fails
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS))
    seed, least_turns = map(int, place.options)
    group: AsyncStatelessGroup | Threaded
    if place.rank == place.world_size - 1:
        group = Threaded(await asyncio.to_thread(connect_blocking, place))
    else:
        group = await place.create(reconnect_grace=GRACE)
    load = Load(group, seed)
    say("ready")
    stop = asyncio.Event()
    loop.add_reader(0, stop.set)  # not by a thread that reads: a rank that fails would wait for it
    turn = 0
    while not all(await group.all_gather(stop.is_set(), tag="enough?", timeout=DEADLINE)):
        await load.turn(turn)
        turn += 1
        if turn == least_turns:
            say("worked")
    loop.remove_reader(0)
    os.set_blocking(0, True)  # which uvloop had changed
    sys.stdin.readline()
    await group.barrier(DEADLINE)
    say({"turns": turn, "received": load.received, "collectives": load.collectives})
    sys.stdin.readline()
    await group.close()


def connect_blocking(place: Place) -> StatelessGroup:
    """The one rank that blocks."""
    assert place.url is not None
    return StatelessGroup.connect(place.url, rank=place.rank, world_size=place.world_size, reconnect_grace=GRACE)


if __name__ == "__main__":
    main(globals())
