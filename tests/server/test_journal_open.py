"""A journal is opened by one server, mended where it was torn and refused where it is damaged; and closed."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aiopg._core.journal import HEADER_BYTES, RecordEncoder
from aiopg.errors import JournalCorruptError, UsageError
from tests.server.journals import (
    LOCKS,
    LOG1,
    LOG2,
    SNAPSHOT2,
    Gate,
    Mode,
    body,
    both_modes,
    count_of,
    opened,
    rotated,
    written,
)


async def test_a_new_directory_gets_an_epoch_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    """One life of the server's state."""
    epochs = []
    for directory in (tmp_path / "a" / "b", tmp_path / "c", tmp_path / "a" / "b"):
        journal = opened(directory, "batch")
        assert (journal.snapshot, list(journal.records), journal.torn, journal.written) == (None, [], None, 0)
        epochs.append(journal.epoch)
        await journal.close()
    assert epochs[0] == epochs[2] != epochs[1]
    assert {len(epoch) for epoch in epochs} == {16}


async def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    """It holds everybody's data: the directory is 0700, also if it was there, and every file 0600."""
    directory = tmp_path / "journal"
    directory.mkdir(mode=0o755)
    journal = opened(directory, "off")
    journal.append((body(1),))
    journal.rotate()
    await rotated(journal)
    await journal.close()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == dict.fromkeys((LOG2, SNAPSHOT2, *LOCKS), 0o600)


async def test_a_second_opener_is_refused(tmp_path: Path) -> None:
    """One server at a time; the lock is free again when the first has closed."""
    journal = opened(tmp_path, "off")
    with pytest.raises(UsageError, match=r"open in another server") as caught:
        opened(tmp_path, "off")
    assert str(tmp_path) in str(caught.value)
    await journal.close()
    await opened(tmp_path, "off").close()


def test_a_directory_of_somebody_else_s_is_left_alone(tmp_path: Path) -> None:
    """Named by mistake it gets neither files nor other permissions."""
    (tmp_path / "thesis.txt").write_text("all of it")
    tmp_path.chmod(0o755)
    with pytest.raises(UsageError, match="holds other things than a journal"):
        opened(tmp_path, "off")
    assert os.listdir(tmp_path) == ["thesis.txt"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@contextmanager
def nobody() -> Iterator[None]:
    """Not root, whom no permission stops."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_directory_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    """The system's own words; also where a file is in the way."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with nobody(), pytest.raises(PermissionError):
        opened(closed / "journal", "off")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        opened(tmp_path / "file", "off")
    with pytest.raises(ValueError, match="fsync must be"):
        opened(tmp_path, "always")  # type: ignore[arg-type]


@both_modes
async def test_a_torn_tail_is_cut_and_reported_and_the_log_goes_on(
    tmp_path: Path, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says at which offset and how many bytes; the next record takes their place."""
    journal = opened(tmp_path, mode)
    journal.append((body(1),))
    journal.append((body(2),))
    await journal.close()
    log = tmp_path / LOG1
    data = log.read_bytes()
    log.write_bytes(data[:-3])
    end = HEADER_BYTES + 12 + len(body(1))
    with caplog.at_level(logging.WARNING, "aiopg.server.journal"):
        journal = opened(tmp_path, mode)
    assert journal.torn == (LOG1, end, len(data) - 3 - end)
    assert f"cut a torn tail off {LOG1}, at byte {end}, {len(data) - 3 - end} bytes" in caplog.text
    assert log.stat().st_size == end
    assert count_of(journal) == 1
    journal.append((body(2),))
    await journal.close()
    assert log.read_bytes() == data


@both_modes
async def test_a_server_that_died_between_two_logs_begins_the_next(tmp_path: Path, mode: Mode) -> None:
    """The old one has its end mark; behind that nothing may be written."""
    journal = opened(tmp_path, mode)
    journal.append((body(1),))
    await journal.close()
    with (tmp_path / LOG1).open("ab") as log:
        log.write(RecordEncoder(1, journal.epoch, 1).seal())
    journal = opened(tmp_path, mode)
    assert count_of(journal) == 1
    journal.append((body(2),))
    await journal.close()
    assert (tmp_path / LOG2).stat().st_size == HEADER_BYTES + 12 + len(body(2))
    journal = opened(tmp_path, mode)
    assert count_of(journal) == 2
    await journal.close()


async def test_a_damaged_journal_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """The error names the file with its directory; the lock is free again."""
    journal = opened(tmp_path, "off")
    for number in (1, 2, 3):
        journal.append((body(number),))
    await journal.close()
    log = tmp_path / LOG1
    data = bytearray(log.read_bytes())
    data[HEADER_BYTES + 14] ^= 1
    log.write_bytes(data)
    for _ in range(2):
        with pytest.raises(JournalCorruptError) as caught:
            opened(tmp_path, "off")
        assert (caught.value.file, caught.value.offset) == (str(log), HEADER_BYTES)
        assert log.read_bytes() == data


async def test_records_are_those_found_at_open_also_while_more_are_written(tmp_path: Path) -> None:
    """They are read from disk when they are asked for."""
    journal = opened(tmp_path, "off")
    journal.append((body(1),))
    await journal.close()
    journal = opened(tmp_path, "off")
    journal.append((body(2),))
    await written(journal, 1)
    assert list(journal.records) == [body(1)]
    await journal.close()


@both_modes
async def test_close_writes_what_was_appended(tmp_path: Path, mode: Mode) -> None:
    """Also to the log that was begun; then nothing more is taken. Closing twice is fine."""
    journal = opened(tmp_path, mode)
    told: list[int] = []
    journal.on_written = lambda: told.append(journal.written)
    journal.append((body(1),))
    journal.rotate()
    journal.append((body(2),))
    await asyncio.gather(journal.close(), journal.close())
    assert told == [2]
    assert not journal.rotating
    with pytest.raises(UsageError, match="was closed"):
        journal.append((body(3),))
    with pytest.raises(UsageError, match="was closed"):
        journal.rotate()
    journal = opened(tmp_path, mode)
    assert count_of(journal) == 2
    await journal.close()


async def test_a_cancelled_close_goes_on_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is not closed under the thread that writes it; the lock is free when all is written."""
    journal = opened(tmp_path, "batch")
    gate = Gate(monkeypatch, "log")
    journal.append((body(1),))
    closing = asyncio.create_task(journal.close())
    await gate.reached.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(UsageError, match="open in another server"):
        opened(tmp_path, "off")
    gate.open()
    await journal.close()
    assert journal.written == 1
    await opened(tmp_path, "off").close()


async def test_what_another_server_left_to_the_kernel_is_synced_at_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed, or had fsync="off"; clients are told again of what is there, and that must be durable now."""
    journal = opened(tmp_path, "off")
    journal.append((body(1),))
    await journal.close()
    synced: list[str] = []
    real = os.fsync

    def fsync(file: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    journal = opened(tmp_path, "batch")
    assert synced == [LOG1, tmp_path.name]
    await journal.close()


async def test_nothing_stays_open(tmp_path: Path) -> None:
    """No file and no thread is left of a journal that was closed, however often it rotated."""
    before, threads = os.listdir("/proc/self/fd"), threading.active_count()
    journal = rotating = opened(tmp_path, "batch")
    for number in range(1, 4):
        journal.append((body(number),))
        journal.rotate()
        await rotated(journal)
    await journal.close()
    journal = opened(tmp_path, "off")
    with pytest.raises(UsageError):
        opened(tmp_path, "off")
    await journal.close()
    assert os.listdir("/proc/self/fd") == before
    async with asyncio.timeout(20):
        while threading.active_count() > threads:  # noqa: ASYNC110 - threads end by themselves
            await asyncio.sleep(0.001)
    assert rotating.written == 3  # it is still held, so nothing was closed by being forgotten
