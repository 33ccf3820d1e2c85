"""A disk that refuses ends the journal; a snapshot that fails does not."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aiopg._core.journal import Kind, file_name
from aiopg.server._compactor import CompactionError
from aiopg.server.journal import Journal
from tests.server.journals import (
    LOCKS,
    LOG1,
    LOG2,
    SNAPSHOT2,
    CountingCompactor,
    Gate,
    Mode,
    body,
    both_modes,
    count_of,
    opened,
    reopened,
    rotated,
    written,
)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process grows over it: what a full disk looks like (Python ignores the signal)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@both_modes
async def test_a_full_disk_ends_the_journal(tmp_path: Path, mode: Mode, caplog: pytest.LogCaptureFixture) -> None:
    """The owner is told once; nothing more is written or promised, and all that was promised is there."""
    journal = opened(tmp_path, mode)
    failures: list[OSError] = []
    failed = asyncio.Event()

    def fail(error: OSError) -> None:
        failures.append(error)
        failed.set()

    journal.on_failed = fail
    count = 0
    with file_size_limit(300_000):
        async with asyncio.timeout(20):
            while not failed.is_set():
                count += 1
                journal.append((body(count),))
                await asyncio.sleep(0)
        promised, backlog = journal.written, journal.backlog
        size = (tmp_path / LOG1).stat().st_size
    # The disk has room again; what lies at the end of the file is not known any more.
    for _ in range(5):
        count += 1
        assert journal.append((body(count),)) == count
        journal.rotate()
        await asyncio.sleep(0.001)
    await journal.close()
    assert (len(failures), journal.written, journal.rotating) == (1, promised, False)
    assert journal.backlog == backlog, "what is never written must not be kept"
    assert size == (tmp_path / LOG1).stat().st_size
    assert LOG2 not in os.listdir(tmp_path)
    assert "the journal cannot be written" in caplog.text
    journal = opened(tmp_path, mode)
    assert 0 < promised <= count_of(journal) < count
    await journal.close()


async def test_a_snapshot_that_fails_loses_nothing_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The logs that it would stand for stay; the next one stands for them too, and takes the remains away."""
    journal = opened(tmp_path, "batch")
    journal.on_failed = lambda error: pytest.fail(f"the journal failed: {error}")

    def rename(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        journal.append((body(1),))
        journal.rotate()
        await rotated(journal)
    assert "no snapshot was made, which loses nothing: [Errno 28]" in caplog.text
    assert set(os.listdir(tmp_path)) == {LOG1, LOG2, SNAPSHOT2 + ".unfinished", *LOCKS}
    assert journal.snapshot_bytes == 0
    journal.append((body(2),))
    await written(journal, 2)
    journal.rotate()
    await rotated(journal)
    assert set(os.listdir(tmp_path)) == {file_name(Kind.LOG, 3), file_name(Kind.SNAPSHOT, 3), *LOCKS}
    assert journal.snapshot_bytes == (tmp_path / file_name(Kind.SNAPSHOT, 3)).stat().st_size
    await journal.close()
    journal = opened(tmp_path, "batch")
    assert (journal.snapshot, count_of(journal)) == (b"2", 2)
    await journal.close()


async def test_damage_found_when_a_snapshot_is_made_is_told_and_the_journal_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server is good as long as it lives: nothing is deleted, and what comes is written."""
    compactor = CountingCompactor()
    journal = Journal.open(tmp_path, fsync="off", compactor=compactor)

    def run(directory: Path, number: int) -> None:
        raise CompactionError("it is damaged", damaged=True)

    compactor.run = run  # type: ignore[method-assign]
    journal.append((body(1),))
    journal.rotate()
    journal.append((body(2),))
    await rotated(journal)
    assert "no server can be started from this journal again" in caplog.text
    assert "it is damaged" in caplog.text
    assert {record.levelname for record in caplog.records} == {"ERROR"}
    journal.append((body(3),))
    await journal.close()
    assert (await asyncio.to_thread(reopened, tmp_path))[0] == 3


async def test_nothing_is_told_any_more_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that waits for its log is not made, and what is appended is never written."""
    journal = opened(tmp_path, "batch")
    gate = Gate(monkeypatch, "log")
    failed = asyncio.Event()
    journal.on_failed = lambda error: failed.set()
    journal.append((body(1),))
    await gate.reached.wait()
    journal.rotate()
    journal.append((body(2),))
    with file_size_limit(1):
        gate.open()
        async with asyncio.timeout(20):
            await failed.wait()
    assert not journal.rotating
    journal.append((body(3),))
    await journal.close()
    assert journal.written == 1
    assert not (tmp_path / SNAPSHOT2).exists()


async def test_a_sync_that_fails_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one may say yes without having written; so there is no next one."""
    journal = opened(tmp_path, "batch")
    calls: list[int] = []

    def fdatasync(file: int) -> None:
        calls.append(file)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    failed: asyncio.Future[OSError] = asyncio.get_running_loop().create_future()
    journal.on_failed = failed.set_result
    journal.append((body(1),))
    async with asyncio.timeout(20):
        assert (await failed).errno == 5
    journal.append((body(2),))
    await journal.close()
    assert (journal.written, len(calls)) == (0, 1)
