"""What the tests of the journal share: records that know their number, journals on disk, and ways to hold one up."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from aiopg._core.journal import Kind, file_name
from aiopg.server._journal_files import compact_files
from aiopg.server.journal import Journal

Mode = Literal["batch", "off"]
MODES: tuple[Mode, ...] = ("batch", "off")
both_modes = pytest.mark.parametrize("mode", MODES)

LOG1, LOG2 = file_name(Kind.LOG, 1), file_name(Kind.LOG, 2)
SNAPSHOT2 = file_name(Kind.SNAPSHOT, 2)
LOCKS = {"journal.lock", "compaction.lock"}
ROOT = Path(__file__).parents[2]


class CountingCompactor:
    """Makes snapshots that are a count of records, in the journal's thread: the files see the same as by a child."""

    def fold(self, snapshot: bytes | None, records: Iterable[bytes]) -> Iterator[bytes]:
        yield str(int(snapshot or 0) + sum(1 for _ in records)).encode()

    def run(self, directory: Path, number: int) -> None:
        compact_files(directory, number, self.fold)

    def stop(self) -> None:
        pass  # it is soon done


def opened(directory: Path, mode: Mode) -> Journal:
    """A journal whose snapshots are counts."""
    return Journal.open(directory, fsync=mode, compactor=CountingCompactor())


def body(number: int) -> bytes:
    """The record that is appended as the `number`th, of a size and content of its own."""
    chance = random.Random(number)
    return number.to_bytes(8, "big") + chance.randbytes(chance.choice((0, 3, 200, 200, 5000, 40_000)))


def count_of(journal: Journal) -> int:
    """How many records the journal stands for; each must be there, in order, as it was."""
    count = int(journal.snapshot or 0)
    for found in journal.records:
        count += 1
        assert found == body(count)
    return count


def reopened(directory: Path, mode: Mode = "off") -> tuple[int, Journal]:
    """What a new server finds; the journal is closed again."""
    journal = opened(directory, mode)
    try:
        return count_of(journal), journal
    finally:
        asyncio.run(journal.close())


def start(module: str, call: str) -> subprocess.Popen[str]:
    """Another process that calls this function of a test file."""
    program = f"from tests.server import {module}; {module}.{call}"
    command = [sys.executable, "-X", "dev", "-c", program]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Gate:
    """Holds up os.fdatasync of files whose name begins with a word, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
        self._open = threading.Event()
        self._loop = asyncio.get_running_loop()
        self.reached = asyncio.Event()
        real = os.fdatasync

        def fdatasync(file: int) -> None:
            if Path(os.readlink(f"/proc/self/fd/{file}")).name.startswith(word) and not self._open.is_set():
                self._loop.call_soon_threadsafe(self.reached.set)
                assert self._open.wait(20)
            real(file)

        monkeypatch.setattr(os, "fdatasync", fdatasync)

    def open(self) -> None:
        """Let all through from here on."""
        self._open.set()


async def written(journal: Journal, position: int) -> None:
    """Wait until the journal says so."""
    done = asyncio.Event()
    before = journal.on_written

    def told() -> None:
        before()
        if journal.written >= position:
            done.set()

    journal.on_written = told
    if journal.written < position:
        async with asyncio.timeout(20):
            await done.wait()
    journal.on_written = before


async def rotated(journal: Journal) -> None:
    """Wait for the end of a rotation; nobody is told of it."""
    async with asyncio.timeout(20):
        while journal.rotating:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)
