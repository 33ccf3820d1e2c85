"""What the ranks of the system tests do: `python -m tests.system.programs NAME RANK WORLD_SIZE WHERE LOOP [OPTION...]`.

WHERE is the port for rank 0 to host the store on, or the URL of a store that runs.
Each prints JSON lines; the last one is its result.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
from typing import Any

import uvloop

from aiopg import AsyncStatelessGroup, GroupTimeoutError, PeerLostError


def say(value: Any) -> None:
    """One line for the test."""
    print(json.dumps(value), flush=True)


class Place:
    """Where this rank is."""

    def __init__(self, rank: int, world_size: int, where: str, options: list[str]) -> None:
        self.rank, self.world_size, self.options = rank, world_size, options
        self.port = int(where) if where.isdecimal() else 0
        self.url = None if where.isdecimal() else where

    async def create(self, **options: Any) -> AsyncStatelessGroup:
        """The group that all ranks form: rank 0 hosts its store, or it is formed over the store that runs already."""
        if self.url is not None:
            return await AsyncStatelessGroup.connect(self.url, rank=self.rank, world_size=self.world_size, **options)
        return await AsyncStatelessGroup.create("127.0.0.1", self.port, self.rank, self.world_size, **options)


async def everything(place: Place) -> None:
    """Every operation once; results as a list."""
    n, rank = place.world_size, place.rank
    async with await place.create(store_host=place.options[0] if place.options else "process") as group:
        right, left = (rank + 1) % n, (rank - 1) % n
        results: list[Any] = [
            await group.all_gather({"rank": rank}),
            await group.broadcast("hello" if rank == n - 1 else None, n - 1),
            await group.gather(rank, 0),
            await group.scatter([i * i for i in range(n)] if rank == 0 else None, 0),
            await group.all_to_all([rank * 10 + to for to in range(n)]),
            await group.all_reduce(rank + 1, "sum"),
            await group.reduce(rank + 1, 0, "max"),
        ]
        await group.send(rank, right)
        results.append(await group.recv(left))
        await group.barrier()
        say(results)


async def two_senders(place: Place) -> None:
    """Ranks 0 and 1 both send to rank 2."""
    async with await place.create() as group:
        if place.rank < 2:
            await group.send(f"from {place.rank}", 2)
            say(None)
        else:
            say([await group.recv(0), await group.recv(1)])
        await group.barrier()


async def absent(place: Place) -> None:
    """Rank 1 joins and does nothing until the others' calls have timed out; they say what the errors say."""
    group = await place.create(store_timeout=60)
    if place.rank == 1:
        await group.recv(0)
        say(None)
    else:
        said = []
        calls = (
            lambda: group.barrier(timeout=2),
            lambda: group.all_gather(1, timeout=2, tag="a"),
            lambda: group.broadcast(None, 1, timeout=2, tag="b"),
            lambda: group.recv(1, timeout=2),
        )
        for call in calls:
            started = time.monotonic()
            try:
                await call()
            except GroupTimeoutError as error:
                said.append([time.monotonic() - started, error.op, error.missing, str(error)])
        say(said)
        if place.rank == 0:
            await group.send("done", 1)
    await group.close()


async def leaves_after_barrier(place: Place) -> None:
    """Rank 0 exits, or is killed, the moment its barrier returns; nobody else may lose its release."""
    group = await place.create(store_host=place.options[1] if len(place.options) > 1 else "process")
    how = place.options[0]
    say(getattr(group.store.link, "server_pid", 0))
    await group.barrier()
    if place.rank == 0 and how == "exit":
        os._exit(0)
    if place.rank == 0 and how == "kill":
        os.kill(os.getpid(), 9)
    say("released")
    await group.close()


async def outlives_rank_0(place: Place) -> None:
    """Rank 0 is killed by the test while the others wait; they see PeerLostError(0) and go on with each other."""
    group = await place.create()
    say(getattr(group.store.link, "server_pid", 0))
    if place.rank == 0:
        await group.send("last words", 1)
        say("sent")
        await asyncio.Event().wait()
    started = time.monotonic()
    try:
        await group.barrier()
    except PeerLostError as error:
        lost = list(error.ranks)
    words = await group.recv(0) if place.rank == 1 else None
    other = 3 - place.rank
    await group.send(f"from {place.rank}", other)
    say([lost, words, await group.recv(other), time.monotonic() - started])
    await group.close()


async def ten_thousand(place: Place) -> None:
    """Many collectives; rank 0 says the store's state before and after."""
    group = await place.create()
    say(getattr(group.store.link, "server_pid", 0))
    for turn in range(3):
        for _ in range(int(place.options[turn])):
            await group.barrier()
            await group.all_gather({"rank": place.rank, "turn": turn})
        if place.rank == 0:
            status = await group.store.link.status()
            say([status["rounds"], status["bytes"]])
            sys.stdin.readline()
        await group.barrier()
    await group.close()


async def many_groups(place: Place) -> None:
    """Twenty overlapping groups created at once on one address, each rank in its own order."""
    names = {f"g{i}": [r for r in range(place.world_size) if (i >> r) & 1] for i in range(1, 1 << place.world_size)}
    mine = [(name, ranks) for name, ranks in names.items() if place.rank in ranks][:20]
    mine.sort(key=lambda item: hash((place.rank, item[0])))

    async def one(name: str, ranks: list[int]) -> bool:
        group = await AsyncStatelessGroup.create(
            "127.0.0.1", place.port, ranks.index(place.rank), len(ranks), group=name
        )
        gathered = await group.all_gather(place.rank)
        await group.barrier()
        await group.close()
        return bool(gathered == ranks)

    say(await asyncio.gather(*(one(name, ranks) for name, ranks in mine)))


async def pair_then_four(place: Place) -> None:
    """Ranks 0 and 1 form a group, then all four another one on the same address, both at work at once."""

    async def group_of(world_size: int, name: str) -> list[Any]:
        group = await AsyncStatelessGroup.create("127.0.0.1", place.port, place.rank, world_size, group=name)
        gathered = [await group.all_gather((name, place.rank)) for _ in range(50)][-1]
        await group.barrier()
        await group.close()
        return gathered

    calls = [group_of(4, "four")] + ([group_of(2, "pair")] if place.rank < 2 else [])
    say(await asyncio.gather(*calls))


def hide_identity() -> None:
    """Say nobody instead of who this process is, as on a platform where that cannot be told."""
    from aiopg.client import _client
    from aiopg.processes import ProcessIdentity

    vars(_client)["own_identity"] = lambda: ProcessIdentity(0, 0, 0, "")


def main(programs: dict[str, Any]) -> None:
    """Run one rank of one of these programs; one that is a plain function runs without an event loop."""
    name, rank, world_size, where, loop, *options = sys.argv[1:]
    if os.environ.get("AIOPG_TEST_UNWATCHED"):
        hide_identity()
    place = Place(int(rank), int(world_size), where, options)
    program = programs[name]
    if not inspect.iscoroutinefunction(program):
        program(place)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(program(place))


if __name__ == "__main__":
    main(globals())
