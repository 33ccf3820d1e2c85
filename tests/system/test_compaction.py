"""A store whose journal is compacted all the time, killed, with its child or without it, and under load."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aiopg._core.journal import Kind, parse_name
from tests.children import child_of, children, gone, has_ended
from tests.system.test_restart import CRASHES, FSYNC, SLOW, WORLD_SIZE, Load, Server, closed, forming

ROTATE_BYTES = 200_000
"""So little that some child is always at work."""

ROTATIONS = 8


class CompactingServer(Server):
    """One that makes a snapshot as soon as there is next to nothing to make it of."""

    program = (
        "-c",
        f"from aiopg._core import compaction; compaction.ROTATE_BYTES = {ROTATE_BYTES}; import sys; "
        "from aiopg.cli import main; sys.exit(main())",
    )


@asynccontextmanager
async def serving(*options: str) -> AsyncIterator[CompactingServer]:
    """A server that runs, and is gone afterwards."""
    server = CompactingServer(*options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(signal.SIGKILL)


@asynccontextmanager
async def working(server: Server, sizes: random.Random) -> AsyncIterator[Load]:
    """Four ranks that send and call collectives, and check what comes, to the end."""
    groups = await forming(server.address)
    load = Load(groups, sizes)
    async with asyncio.TaskGroup() as tasks:
        for rank in range(WORLD_SIZE):
            tasks.create_task(load.run(rank))
        yield load
        load.stop()
    status = await groups[0].store.link.status()
    assert (status["rounds"], status["bytes"], status["members"]) == (0, 0, WORLD_SIZE)
    await closed(groups)


def kill(pid: int) -> None:
    """If it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def numbers(directory: Path, kind: Kind) -> list[int]:
    """Of the logs or the snapshots that are there."""
    parsed = [parse_name(name) for name in os.listdir(directory)]
    return [found[1] for found in parsed if found is not None and found[0] is kind]


def sizes(directory: Path) -> dict[str, int]:
    """Of all files that are there."""
    found: dict[str, int] = {}
    for entry in os.scandir(directory):
        try:
            found[entry.name] = entry.stat().st_size
        except FileNotFoundError:
            pass  # deleted meanwhile
    return found


@FSYNC
@pytest.mark.timeout(120 + 24 * CRASHES)
async def test_a_server_its_child_or_both_are_killed_while_a_snapshot_is_made(tmp_path: Path, fsync: str) -> None:
    """Every message once and in order, every collective right; each child ends with its server, and none is left."""
    seed = time.time_ns() % 2**32
    print(f"seed {seed}, {CRASHES} times each")
    chance = random.Random(seed)
    directory = tmp_path / "journal"
    victims = ["child", "server", "both"] * CRASHES
    chance.shuffle(victims)
    async with serving("--journal", str(directory), "--fsync", fsync) as server:
        async with working(server, chance):
            for victim in victims:
                child = await child_of(server.pid, 20 * SLOW)
                await asyncio.sleep(chance.uniform(0, 0.3))  # a moment that nobody chose
                if victim != "server":
                    kill(child)
                if victim != "child":
                    await server.stop(signal.SIGKILL)
                    await server.start()
                    assert await asyncio.to_thread(gone, child)
        assert await server.stop(signal.SIGTERM) == 0
        assert await asyncio.to_thread(children, server.pid) == []
    assert max(numbers(directory, Kind.LOG)) > CRASHES


class Small(random.Random):
    """Chooses no large messages: this is no test of the disk."""

    def choice(self, options: Any) -> Any:
        return super().choice(options[:-1])


async def test_the_journal_stays_short_under_load(tmp_path: Path) -> None:
    """There is what one child works on and what came meanwhile, and never more."""
    seed = time.time_ns() % 2**32
    print(f"seed {seed}")
    directory = tmp_path / "journal"
    written = dict[str, int]()
    async with serving("--journal", str(directory), "--fsync", "off") as server:
        async with working(server, Small(seed)):
            async with asyncio.timeout(50 * SLOW):
                while max(logs := numbers(directory, Kind.LOG)) < ROTATIONS:
                    assert len(logs) <= 2
                    assert len(numbers(directory, Kind.SNAPSHOT)) <= 2
                    written |= sizes(directory)
                    await asyncio.sleep(0.005)
        for child in await asyncio.to_thread(children, server.pid):
            assert await asyncio.to_thread(has_ended, child, 20 * SLOW)
        left = sum(sizes(directory).values())
    print(f"{left} of {sum(written.values())} bytes are left")
    assert left < sum(written.values()) / 2
