"""The journal writes what comes in one pass of the loop as one batch, and says when that is durable."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from pathlib import Path

import pytest

from aiopg._core.journal import HEADER_BYTES
from aiopg.server.journal import LARGE_RECORD
from tests.server.journals import Gate, Mode, body, both_modes, opened, reopened, written


@both_modes
async def test_the_records_of_one_pass_are_one_batch(
    tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One system call writes them, and the owner is told once."""
    journal = opened(tmp_path, mode)
    writes: list[int] = []
    real = os.writev

    def writev(file: int, buffers: list[bytes]) -> int:
        writes.append(len(buffers))
        return real(file, buffers)

    monkeypatch.setattr(os, "writev", writev)
    told: list[int] = []
    journal.on_written = lambda: told.append(journal.written)
    assert [journal.append((body(n),)) for n in range(1, 101)] == list(range(1, 101))
    assert (told, journal.written, writes) == ([], 0, [])
    assert journal.size - HEADER_BYTES <= journal.backlog
    await written(journal, 100)
    assert told == [100]
    assert len(writes) == 1
    assert journal.backlog == 0
    await journal.close()
    assert (await asyncio.to_thread(reopened, tmp_path))[0] == 100


@both_modes
async def test_short_writes_and_thousands_of_pieces_are_written_whole(
    tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes 1024 buffers at once, and may take less of them than it was given."""
    chance = random.Random(7)
    real = os.write
    journal = opened(tmp_path, mode)

    def writev(file: int, buffers: list[bytes]) -> int:
        assert 0 < len(buffers) <= 1024
        data = b"".join(buffers)
        return real(file, data[: chance.randint(1, len(data))])

    monkeypatch.setattr(os, "writev", writev)
    large = chance.randbytes(60_000)
    pieces = tuple(large[at : at + 11] for at in range(0, len(large), 11))
    for _ in range(3):
        journal.append(pieces)
        journal.append((b"small",))
    await journal.close()
    monkeypatch.undo()
    journal = opened(tmp_path, mode)
    assert list(journal.records) == [large, b"small"] * 3
    await journal.close()


async def test_a_batch_is_told_only_when_it_is_synced_and_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is appended meanwhile is the next batch."""
    journal = opened(tmp_path, "batch")
    gate = Gate(monkeypatch, "log")
    told: list[int] = []
    journal.on_written = lambda: told.append(journal.written)
    journal.append((body(1),))
    await gate.reached.wait()
    for number in range(2, 50):
        journal.append((body(number),))
        await asyncio.sleep(0)
    assert (told, journal.written) == ([], 0)
    assert journal.backlog > 0
    gate.open()
    await written(journal, 49)
    assert told == [1, 49]
    await journal.close()


async def test_what_an_owner_raises_does_not_stop_the_journal(tmp_path: Path) -> None:
    """The loop's handler gets it; the next batch is written."""
    journal = opened(tmp_path, "batch")
    loop = asyncio.get_running_loop()
    seen: asyncio.Future[Exception] = loop.create_future()
    loop.set_exception_handler(lambda loop, context: seen.set_result(context["exception"]))

    def fail() -> None:
        journal.on_written = done.set
        raise ZeroDivisionError

    done = asyncio.Event()
    journal.on_written = fail
    journal.append((body(1),))
    await asyncio.sleep(0)  # the first batch is under way
    journal.append((body(2),))
    async with asyncio.timeout(20):
        assert type(await seen) is ZeroDivisionError
        await done.wait()
    assert journal.written == 2
    await journal.close()


@both_modes
async def test_a_large_record_is_checked_and_written_beside_the_loop(
    tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its place among small ones, those that come meanwhile too."""
    journal = opened(tmp_path, mode)
    large = random.Random(1).randbytes(LARGE_RECORD + 1)
    threads: set[threading.Thread] = set()
    real = os.writev

    def writev(file: int, buffers: list[bytes]) -> int:
        if sum(map(len, buffers)) > LARGE_RECORD:
            threads.add(threading.current_thread())
        return real(file, buffers)

    monkeypatch.setattr(os, "writev", writev)
    for number in range(3):
        journal.append((b"%d" % number,))
        journal.append((b"head", large))
    await asyncio.sleep(0)
    journal.append((b"meanwhile", large))
    await written(journal, 7)
    journal.append((b"last",))
    await journal.close()
    assert threads
    assert threading.main_thread() not in threads
    journal = opened(tmp_path, mode)
    expected = [found for number in range(3) for found in (b"%d" % number, b"head" + large)]
    assert list(journal.records) == [*expected, b"meanwhile" + large, b"last"]
    await journal.close()
