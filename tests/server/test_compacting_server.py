"""A server with a large state goes on serving while its journal is compacted, and is the same after a restart."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path
from typing import Any

import pytest

from aiopg import Limits
from aiopg._core import compaction
from aiopg._core.frames import FrameReceiver
from aiopg._core.messages import Command, Join, Put
from aiopg._core.records import encode_command, encode_open
from aiopg._core.stategraph import dump
from aiopg._core.wire import encode_message
from aiopg.errors import JournalCorruptError
from aiopg.server import StoreServer
from aiopg.server._compactor import ChildCompactor
from aiopg.server._scribe import Scribe
from aiopg.server.journal import Journal
from tests.ages import ageless
from tests.children import children
from tests.server.journals import LOCKS, LOG1, LOG2, SNAPSHOT2

SLOW = float(os.environ.get("AIOPG_TEST_SLOW", "1"))
GROUPS, MESSAGES = 1000, 10_000
LIMITS = Limits(mailbox_messages=MESSAGES // GROUPS)
"""Not the usual ones: the child that makes the snapshot has to be told, or it keeps what was refused."""

BLOCKED_SECONDS = 0.1
"""The rule is a tenth of it; the machines that test are shared."""


async def write_large_state(directory: Path) -> None:
    """A journal of one member of many groups, with messages to itself in each; one more in each is refused."""
    journal = Journal.open(directory, fsync="off", compactor=ChildCompactor(LIMITS, {}))
    session = b"s" * 16
    journal.append(encode_open(session, b"k" * 32, 3600.0, [], ("*",)))
    receiver = FrameReceiver(LIMITS)
    commands: list[Command] = [Join(n + 1, n, f"g{n}", 0, 1, 3600.0, "me") for n in range(GROUPS)]
    commands += [Put(GROUPS + n + 1, n % GROUPS, 0, 0, (b"x" * 200,)) for n in range(MESSAGES + GROUPS)]
    for answered, command in enumerate(commands):
        ((_, _, kind, fields, body),) = receiver.receive_data(b"".join(encode_message(1, 0, command, 4096)))
        journal.append(encode_command(session, answered, kind, fields, body, 100.0))
    await journal.close()


class Ticker:
    """Measures for how long a loop is blocked."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            before, after = time.monotonic(), before
            self.longest = max(self.longest, before - after)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def compacted(server: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server find that its log is long, and wait until there is a snapshot."""
    scribe = server._started()._scribe
    assert isinstance(scribe, Scribe)
    with monkeypatch.context() as patch:
        patch.setattr(compaction, "ROTATE_BYTES", 1)
        scribe.rotate_in_time()
    journal: Any = scribe.journal
    assert journal.rotating
    async with asyncio.timeout(30 * SLOW):
        while journal.rotating:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)
    assert journal.snapshot_bytes > 0


async def test_the_loop_is_not_blocked_by_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 groups with 10,000 messages: whoever else runs on the loop does not notice."""
    await write_large_state(tmp_path)
    async with StoreServer(limits=LIMITS, journal=tmp_path, fsync="off") as server:
        before = server.describe()
        began = time.monotonic()
        pieces = dump(server._exchange, 0.0)
        in_process = time.monotonic() - began
        del pieces
        gc.collect()
        ticker = Ticker()
        await compacted(server, monkeypatch)
        await ticker.stop()
        print(f"blocked for {ticker.longest * 1e3:.1f} ms; a dump takes {in_process * 1e3:.0f} ms")
        assert ticker.longest < BLOCKED_SECONDS * SLOW
        assert ticker.longest < in_process
        assert children(os.getpid()) == []
    async with StoreServer(limits=LIMITS, journal=tmp_path, fsync="off") as server:
        assert set(os.listdir(tmp_path)) == {LOG2, SNAPSHOT2, *LOCKS}
        assert ageless(server.describe()) == ageless(before)
        groups = before["groups"]
        assert isinstance(groups, list)
        assert (len(groups), sum(group["messages"] for group in groups)) == (GROUPS, MESSAGES)


async def test_a_long_log_is_compacted_before_a_server_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may be killed before a child can do it, and the next one too."""
    await write_large_state(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(compaction, "ROTATE_BYTES", 1)
        async with StoreServer(limits=LIMITS, journal=tmp_path, fsync="off") as server:
            assert set(os.listdir(tmp_path)) == {LOG2, SNAPSHOT2, *LOCKS}
            described = server.describe()
    async with StoreServer(limits=LIMITS, journal=tmp_path, fsync="off") as server:
        assert ageless(server.describe()) == ageless(described)
        assert server._exchange.engine.members == GROUPS


async def test_a_server_that_is_closed_begins_no_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if what it wrote last makes the log long."""
    wrong: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: wrong.append(context))
    server = StoreServer(journal=tmp_path, fsync="batch")
    await server.start()
    scribe = server._started()._scribe
    assert scribe is not None
    monkeypatch.setattr(compaction, "ROTATE_BYTES", 1)
    scribe.ticked(1.0)
    await server.close()
    assert wrong == []
    assert [name for name in os.listdir(tmp_path) if name.startswith("log-")] == [LOG1]


async def test_a_journal_that_makes_no_sense_is_refused_and_let_go_of(tmp_path: Path) -> None:
    """Its bytes are good, but no server wrote them; the next one that is started finds it unlocked."""
    journal = Journal.open(tmp_path, fsync="off", compactor=ChildCompactor(LIMITS, {}))
    journal.append((b"nonsense",))
    await journal.close()
    for _ in range(2):
        with pytest.raises(JournalCorruptError, match="record 1 since the snapshot: a record that cannot be replayed"):
            await StoreServer(journal=tmp_path).start()
