"""A store that is killed and started again: with a journal nothing is lost or doubled, without one all are told."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aiopg import AsyncStatelessGroup, PeerLostError, StoreLostError

from .ranks import HAS_TLS

SLOW = float(os.environ.get("AIOPG_TEST_SLOW", "1"))
CRASHES = int(os.environ.get("AIOPG_CRASHES", "6"))
"""`make crash` sets it to 100."""

WORLD_SIZE = 4

JOURNAL_BYTES = 400 * 1024 * 1024
"""The journal stays bounded, also where no life of the server is long: a snapshot is made after 64 MiB of log, and for
a moment there are two of each; one life writes some 100 MiB here."""

FSYNC = pytest.mark.parametrize("fsync", ["off", "batch"])


class Server:
    """`aiopg serve` on one address, as often as it has to be started.

    It is started and waited for in threads, and not by the loop that the members run on: what a loop does with the
    descriptors of a child that is killed is not what is tested here.
    """

    program = ("-m", "aiopg")

    def __init__(self, *options: str) -> None:
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    async def start(self) -> None:
        """Start it; on the address that it had, if it had one."""
        port = self.address.rpartition(":")[2] or "0"
        command = [sys.executable, *self.program, "serve", "--port", port, *self._options]
        self._process = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        async with asyncio.timeout(20 * SLOW):
            self.address = (await asyncio.to_thread(self._process.stdout.readline)).decode().strip()
        assert self.address.startswith("aiopg://")

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    async def stop(self, with_signal: signal.Signals) -> int:
        """End it with a signal; its exit code."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        if process.poll() is None:
            process.send_signal(with_signal)
        code = await asyncio.to_thread(process.wait)
        process.stdout.close()
        return code


@asynccontextmanager
async def serving(*options: str) -> AsyncIterator[Server]:
    """A server that runs, and is gone afterwards."""
    server = Server(*options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(signal.SIGKILL)


async def forming(address: str) -> list[AsyncStatelessGroup]:
    """All ranks of one group."""
    connect = AsyncStatelessGroup.connect
    return list(
        await asyncio.gather(*(connect(address, rank=r, world_size=WORLD_SIZE, group="g") for r in range(WORLD_SIZE)))
    )


async def closed(groups: list[AsyncStatelessGroup]) -> None:
    await asyncio.gather(*(group.close() for group in groups))


class Load:
    """What each rank does until it is told to stop: numbered messages round a ring, and collectives."""

    def __init__(self, groups: list[AsyncStatelessGroup], sizes: random.Random) -> None:
        self.groups = groups
        self.turns = 0
        self._sizes = sizes
        self._stop = False

    def stop(self) -> None:
        """Let each rank end with the turn that it is in."""
        self._stop = True

    async def run(self, rank: int) -> None:
        """One rank's part; raises when anything is lost, doubled or out of order."""
        group, after, before = self.groups[rank], (rank + 1) % WORLD_SIZE, (rank - 1) % WORLD_SIZE
        turn = 0
        while True:
            turn += 1
            blob = bytes(self._sizes.choice((1, 100, 20_000, 200_000)))
            for part in range(3):
                await group.send((rank, turn, part, blob), after, tag=part % 2, timeout=60 * SLOW)
            got = [await group.recv(before, tag=tag, timeout=60 * SLOW) for tag in (0, 0, 1)]
            assert [item[:3] for item in got] == [(before, turn, 0), (before, turn, 2), (before, turn, 1)]
            going_on = not self._stop if rank == 0 else None
            said = await group.broadcast((turn, going_on), src=0, timeout=60 * SLOW)
            assert said[0] == turn
            assert await group.all_gather((rank, turn), timeout=60 * SLOW) == [(r, turn) for r in range(WORLD_SIZE)]
            await group.barrier(timeout=60 * SLOW)
            self.turns += rank == 0
            if not said[1]:
                return


@FSYNC
@pytest.mark.timeout(120 + 12 * CRASHES)
async def test_a_server_with_a_journal_is_killed_and_nothing_is_lost(tmp_path: Path, fsync: str) -> None:
    """kill -9 under load, started again each time: every message once and in order, every collective right."""
    seed = time.time_ns() % 2**32
    print(f"seed {seed}, {CRASHES} crashes")
    chance = random.Random(seed)
    async with serving("--journal", str(tmp_path / "journal"), "--fsync", fsync) as server:
        groups = await forming(server.address)
        load = Load(groups, random.Random(seed))
        async with asyncio.TaskGroup() as tasks:
            for rank in range(WORLD_SIZE):
                tasks.create_task(load.run(rank))
            for _ in range(CRASHES):
                # What is tested is what happens at a moment that nobody chose.
                await asyncio.sleep(chance.uniform(0.05, 0.5))
                await server.stop(signal.SIGKILL)
                await server.start()
            load.stop()
        assert load.turns >= (CRASHES // 2 if HAS_TLS else CRASHES)
        assert sum(file.stat().st_size for file in (tmp_path / "journal").iterdir()) < JOURNAL_BYTES
        status = await groups[0].store.link.status()
        assert (status["rounds"], status["bytes"], status["members"]) == (0, 0, WORLD_SIZE)
        await closed(groups)


async def test_a_server_with_a_journal_that_is_stopped_goes_on_when_it_is_started(tmp_path: Path) -> None:
    """SIGTERM says no goodbye to members that can come again; what waited in the store is still there."""
    async with serving("--journal", str(tmp_path / "journal")) as server:
        groups = await forming(server.address)
        await groups[0].send("before", 1)
        waiting = asyncio.create_task(groups[2].recv(3))
        await groups[1].send("seen", 3)
        assert await groups[3].recv(1) == "seen"
        assert await server.stop(signal.SIGTERM) == 0
        await server.start()
        await groups[3].send("after", 2)
        assert await waiting == "after"
        assert await groups[1].recv(0) == "before"
        await asyncio.gather(*(group.barrier() for group in groups))
        await closed(groups)


async def test_without_a_journal_everybody_is_told(tmp_path: Path) -> None:
    """A store that was started anew has nothing of what it had: StoreLostError at every rank within 3 s, no hang."""
    async with serving() as server:
        groups = await forming(server.address)
        waits = [asyncio.create_task(groups[rank].barrier()) for rank in (0, 1)]
        waits += [asyncio.create_task(groups[rank].recv((rank + 1) % WORLD_SIZE)) for rank in (2, 3)]
        await server.stop(signal.SIGKILL)
        await server.start()
        started = time.monotonic()
        for error in await asyncio.gather(*waits, return_exceptions=True):
            assert isinstance(error, StoreLostError)
            assert "anew" in str(error)
        assert time.monotonic() - started < 3 * SLOW
        await closed(groups)


async def test_a_store_that_is_gone_for_good_is_lost_after_the_grace() -> None:
    """Nobody hangs: patience ends with the grace, and the error says what the last attempt met."""
    async with serving() as server:
        group = await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1, reconnect_grace=1)
        await server.stop(signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(StoreLostError, match="no connection for 1 s; the last attempt met"):
            await group.barrier(timeout=30)
        assert 0.4 < time.monotonic() - started < 1 + SLOW
        await group.close()


async def test_a_member_that_does_not_come_again_after_a_restart_is_lost_to_the_others(tmp_path: Path) -> None:
    """Its session was in the journal; its process died while the store was down, and the pidfd says so at once."""
    program = (
        "import asyncio, sys, aiopg\n"
        "async def main():\n"
        "    group = await aiopg.AsyncStatelessGroup.connect(sys.argv[1], rank=1, world_size=2)\n"
        "    await group.send('last words', 0)\n"
        "    print('sent', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    async with serving("--journal", str(tmp_path / "journal"), "--fsync", "off") as server:
        joining = asyncio.create_task(AsyncStatelessGroup.connect(server.address, rank=0, world_size=2))
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, server.address, stdout=asyncio.subprocess.PIPE
        )
        group = await joining
        assert other.stdout is not None
        assert await other.stdout.readline() == b"sent\n"
        await server.stop(signal.SIGKILL)
        await server.start()
        assert await group.recv(1) == "last words"
        other.kill()
        await other.wait()
        with pytest.raises(PeerLostError):
            await group.recv(1, timeout=10 * SLOW)
        await group.close()


async def test_a_damaged_journal_is_refused_and_named(tmp_path: Path) -> None:
    """Corrupted in the middle: the server does not start, and says which file and where."""
    journal = tmp_path / "journal"
    async with serving("--journal", str(journal), "--fsync", "off") as server:
        groups = await forming(server.address)
        await closed(groups)
        await server.stop(signal.SIGTERM)
    (log,) = journal.glob("log-*")
    damaged = bytearray(log.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    log.write_bytes(damaged)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "aiopg", "serve", "--journal", str(journal), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert log.name in errors.decode()
    assert "offset" in errors.decode() or "byte" in errors.decode()


async def test_a_journal_has_one_server(tmp_path: Path) -> None:
    """A second one on the same directory is refused with a clear error."""
    async with serving("--journal", str(tmp_path)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "aiopg", "serve", "--journal", str(tmp_path), stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        assert process.returncode == 2
        assert str(tmp_path) in errors.decode()
