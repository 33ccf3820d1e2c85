"""The child that makes the snapshots: what it makes, how it fails, and that it never outlives its server."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from aiopg._core.compaction import compact
from aiopg._core.journal import Kind, RecordEncoder, encode_header, file_name
from aiopg.errors import JournalCorruptError
from aiopg.server._compactor import ChildCompactor
from aiopg.server._journal_files import compact_files
from aiopg.server.journal import Journal
from tests.children import child_of, children, gone, has_ended
from tests.core.life import ABOUT, LIMITS, Life
from tests.server.journals import LOCKS, LOG1, LOG2, SNAPSHOT2, Mode, both_modes, rotated, start, written

SLOW = float(os.environ.get("AIOPG_TEST_SLOW", "1"))


def life_records(seed: int, count: int) -> list[bytes]:
    """The records of a random life."""
    life = Life(seed)
    while len(life.records) < count:
        life.step()
    return life.records


def opened(directory: Path, mode: Mode = "off") -> Journal:
    """A journal with a child; the limits are not the usual ones, and its records depend on them."""
    return Journal.open(directory, fsync=mode, compactor=ChildCompactor(LIMITS, ABOUT))


def state_in(directory: Path) -> bytes:
    """What the journal stands for."""
    journal = opened(directory)
    try:
        return b"".join(compact(journal.snapshot, journal.records, LIMITS, ABOUT))
    finally:
        asyncio.run(journal.close())


@contextmanager
def child_held_up(directory: Path) -> Iterator[None]:
    """No child gets further than to the lock of compaction meanwhile."""
    with (directory / "compaction.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@asynccontextmanager
async def compacting(directory: Path, records: list[bytes]) -> AsyncIterator[tuple[Journal, int]]:
    """A journal whose child has been started and waits, and the child."""
    journal = opened(directory)
    with child_held_up(directory):
        for record in records:
            journal.append((record,))
        journal.rotate()
        child = await child_of(os.getpid(), 20 * SLOW)
        yield journal, child


# ------------------------------------------------------------------------------------------- what it makes


@both_modes
async def test_the_snapshot_is_what_a_replay_gives(tmp_path: Path, mode: Mode) -> None:
    """Also the next one, which is made of this one; with the limits of the server, and to the byte."""
    seed = time.time_ns() % 2**32
    print(f"seed {seed}")
    records = life_records(seed, 300)
    journal = opened(tmp_path, mode)
    for number, (begin, end) in enumerate(((0, 120), (120, 300)), 2):
        for record in records[begin:end]:
            journal.append((record,))
        journal.rotate()
        assert journal.rotating
        await rotated(journal)
        names = {file_name(Kind.LOG, number), file_name(Kind.SNAPSHOT, number), *LOCKS}
        assert set(os.listdir(tmp_path)) == names
        assert journal.snapshot_bytes == (tmp_path / file_name(Kind.SNAPSHOT, number)).stat().st_size
    await journal.close()
    journal = opened(tmp_path, mode)
    assert list(journal.records) == []
    assert journal.snapshot == b"".join(compact(None, records, LIMITS, ABOUT))
    await journal.close()


# --------------------------------------------------------------------------------------------- how it fails


async def test_a_child_that_is_killed_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Killed at any moment, again and again: it is told, the next one does the work of all, and nothing is missing."""
    seed = time.time_ns() % 2**32
    print(f"seed {seed}")
    chance = random.Random(seed)
    records = life_records(seed, 700)
    journal = opened(tmp_path)
    for turn in range(7):
        for record in records[100 * turn : 100 * turn + 100]:
            journal.append((record,))
        journal.rotate()
        if turn < 6:
            child = await child_of(os.getpid(), 20 * SLOW)
            await asyncio.sleep(turn and chance.uniform(0, 0.4))  # a moment that nobody chose
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it was faster
        await rotated(journal)
        assert children(os.getpid()) == []
    await journal.close()
    assert "was killed by SIGKILL" in caplog.text
    assert (tmp_path / file_name(Kind.SNAPSHOT, 8)).exists()
    state = await asyncio.to_thread(state_in, tmp_path)
    assert state == b"".join(compact(None, records, LIMITS, ABOUT))


async def test_damage_is_told_and_nothing_is_deleted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The child finds it in a complete log; the server goes on, and the next one is refused as ever."""
    async with compacting(tmp_path, life_records(1, 50)) as (journal, _):
        log = tmp_path / LOG1
        damaged = bytearray(log.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        log.write_bytes(damaged)
    await rotated(journal)
    assert "no server can be started from this journal again" in caplog.text
    assert f"of {log}" in caplog.text
    assert set(os.listdir(tmp_path)) == {LOG1, LOG2, *LOCKS}
    journal.append((b"more",))
    await written(journal, 51)
    await journal.close()
    with pytest.raises(JournalCorruptError, match=LOG1):
        opened(tmp_path)


async def test_records_that_make_no_sense_are_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Their bytes are good, and no server wrote them."""
    journal = opened(tmp_path)
    journal.append((b"nonsense",))
    journal.rotate()
    await rotated(journal)
    assert "no server can be started from this journal again" in caplog.text
    assert "record 1 since the snapshot: a record that cannot be replayed" in caplog.text
    await journal.close()


async def test_a_child_that_cannot_be_started_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no matter of the records."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    before = os.listdir("/proc/self/fd")
    journal = opened(tmp_path)
    journal.append((b"nonsense",))
    journal.rotate()
    await rotated(journal)
    assert "no snapshot was made, which loses nothing: [Errno 2]" in caplog.text
    await journal.close()
    assert os.listdir("/proc/self/fd") == before


def test_only_complete_logs_are_compacted(tmp_path: Path) -> None:
    """A log that is missing, or has no end mark although the next one was begun, is damage."""
    epoch, fold = bytes(16), ChildCompactor(LIMITS, ABOUT).fold
    with pytest.raises(JournalCorruptError, match=f"{LOG1}: it is missing"):
        compact_files(tmp_path, 2, fold)
    log1, log2 = tmp_path / LOG1, tmp_path / LOG2
    log1.write_bytes(encode_header(Kind.LOG, 1, epoch))
    with pytest.raises(JournalCorruptError, match=f"{LOG2}: it is missing"):
        compact_files(tmp_path, 2, fold)
    log2.write_bytes(encode_header(Kind.LOG, 2, epoch))
    with pytest.raises(JournalCorruptError, match=r"byte 40 of .*1: record 1 is bad, and this is no file that may be"):
        compact_files(tmp_path, 2, fold)
    log1.write_bytes(log1.read_bytes() + RecordEncoder(1, epoch).seal())
    log2.write_bytes(encode_header(Kind.LOG, 2, b"e" * 16))
    with pytest.raises(JournalCorruptError, match="its epoch is"):
        compact_files(tmp_path, 2, fold)
    assert set(os.listdir(tmp_path)) == {LOG1, LOG2}
    log2.write_bytes(encode_header(Kind.LOG, 2, epoch))
    compact_files(tmp_path, 2, fold)
    assert set(os.listdir(tmp_path)) == {LOG2, SNAPSHOT2}


# ------------------------------------------------------------------------------- it never outlives its server


async def test_close_ends_the_child(tmp_path: Path) -> None:
    """It is gone when close returns, which does not wait for its work."""
    records = life_records(2, 50)
    async with compacting(tmp_path, records) as (journal, child):
        async with asyncio.timeout(5 * SLOW):
            await journal.close()
        assert gone(child)
        assert not journal.rotating
    state = await asyncio.to_thread(state_in, tmp_path)
    assert state == b"".join(compact(None, records, LIMITS, ABOUT))


def compact_and_wait(directory: str) -> None:
    """A server that begins to make a snapshot, for the test that kills it."""

    async def run() -> None:
        journal = opened(Path(directory))
        for record in life_records(3, 50):
            journal.append((record,))
        print("open", flush=True)
        sys.stdin.readline()
        journal.rotate()
        print(await child_of(os.getpid(), 20 * SLOW), flush=True)
        await asyncio.Event().wait()  # until it is killed

    asyncio.run(run())


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.3])
async def test_a_child_ends_when_its_server_is_killed(tmp_path: Path, seconds: float) -> None:
    """At once: while it starts, and while it is at work. Nobody has to wait before a new server begins."""
    with start("test_compactor", f"compact_and_wait({str(tmp_path)!r})") as process, ExitStack() as held_up:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        held_up.enter_context(child_held_up(tmp_path))
        process.stdin.write("go on\n")
        process.stdin.flush()
        child = int(process.stdout.readline())
        await asyncio.sleep(seconds)
        assert not gone(child)
        process.kill()
        process.wait()
        assert await asyncio.to_thread(has_ended, child, 0.5 * SLOW)
    assert SNAPSHOT2 not in os.listdir(tmp_path)
    began = time.monotonic()
    state = await asyncio.to_thread(state_in, tmp_path)
    assert time.monotonic() - began < SLOW
    assert state == b"".join(compact(None, life_records(3, 50), LIMITS, ABOUT))


async def test_a_server_waits_until_the_child_of_the_last_one_has_ended(tmp_path: Path) -> None:
    """It may take a moment to die; meanwhile it could delete what the server reads."""
    await opened(tmp_path).close()
    loop = asyncio.get_running_loop()
    with child_held_up(tmp_path):
        opening = loop.run_in_executor(None, state_in, tmp_path)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await asyncio.shield(opening)
    async with asyncio.timeout(10 * SLOW):
        await opening


def test_a_child_whose_server_is_gone_before_it_begins_does_nothing(tmp_path: Path) -> None:
    """It would work beside the next server."""
    (tmp_path / LOG1).write_bytes(encode_header(Kind.LOG, 1, bytes(16)) + RecordEncoder(1, bytes(16)).seal())
    (tmp_path / LOG2).write_bytes(encode_header(Kind.LOG, 2, bytes(16)))
    command = [sys.executable, "-m", "aiopg.server.compact", str(tmp_path), "2", '{"limits": {}, "about": {}}']
    alive, life = os.pipe()
    for ended, code in ((True, 1), (False, 0)):
        if ended:
            ran = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
        else:
            ran = subprocess.run(command, stdin=alive, check=False)
        assert ran.returncode == code
        assert (LOG1 in os.listdir(tmp_path)) is ended
    os.close(alive)
    os.close(life)
