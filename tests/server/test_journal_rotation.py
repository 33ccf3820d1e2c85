"""The journal begins a new log and has a snapshot made, and nothing waits for that."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from aiopg._core.journal import HEADER_BYTES, Kind, file_name
from aiopg.errors import UsageError
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


@both_modes
async def test_appends_go_on_while_a_snapshot_is_written(
    tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are durable before the snapshot is, in the next log; the old files stay until it is there."""
    journal = opened(tmp_path, mode)
    gate = Gate(monkeypatch, "snapshot")
    for number in range(1, 11):
        journal.append((body(number),))
    journal.rotate()
    assert journal.rotating
    assert journal.size == HEADER_BYTES
    with pytest.raises(UsageError, match="a rotation is under way"):
        journal.rotate()
    for number in range(11, 16):
        journal.append((body(number),))
    await gate.reached.wait()
    journal.append((body(16),))
    await written(journal, 16)
    assert journal.rotating
    assert {LOG1, LOG2, SNAPSHOT2 + ".unfinished"} < set(os.listdir(tmp_path))
    gate.open()
    await rotated(journal)
    assert set(os.listdir(tmp_path)) == {LOG2, SNAPSHOT2, *LOCKS}
    assert journal.size == (tmp_path / LOG2).stat().st_size
    await journal.close()
    journal = opened(tmp_path, mode)
    assert (journal.snapshot, count_of(journal)) == (b"10", 16)
    await journal.close()


async def test_a_snapshot_is_begun_only_when_its_log_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if a batch for the old log was under way when the rotation began, and the disk is slow."""
    journal = opened(tmp_path, "batch")
    gate = Gate(monkeypatch, "log")
    journal.append((body(1),))
    await gate.reached.wait()
    snapshot_begun, real = threading.Event(), os.fdatasync
    seen: list[bool] = []

    def fdatasync(file: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{file}")).name
        if name == LOG1:
            snapshot_begun.wait(0.2)  # the time that a snapshot which does not wait for its log has to show itself
        elif name.startswith(SNAPSHOT2):
            seen.append((tmp_path / LOG2).exists())
            snapshot_begun.set()
        real(file)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    journal.rotate()
    gate.open()
    await rotated(journal)
    await journal.close()
    assert seen
    assert all(seen)


async def test_old_files_are_deleted_only_when_the_snapshot_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut between any two of these steps finds either the old or the new."""
    journal = opened(tmp_path, "batch")
    journal.append((body(1),))
    await written(journal, 1)
    steps: list[tuple[str, str]] = []

    def record(call: str) -> None:
        real = getattr(os, call)

        def wrapper(target: Any, *rest: Any, **options: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)
            steps.append((call, Path(path).name))
            return real(target, *rest, **options)

        monkeypatch.setattr(os, call, wrapper)

    for call in ("writev", "fdatasync", "fsync", "rename", "unlink"):
        record(call)
    journal.rotate()
    await rotated(journal)
    monkeypatch.undo()
    unfinished = SNAPSHOT2 + ".unfinished"
    assert steps == [
        ("writev", LOG1),
        ("fdatasync", LOG1),
        ("writev", LOG2),
        ("fdatasync", LOG2),
        ("fsync", tmp_path.name),
        ("fdatasync", LOG2),
        *[("writev", unfinished), ("fdatasync", unfinished)] * 3,
        ("rename", unfinished),
        ("fsync", tmp_path.name),
        ("unlink", LOG1),
    ]
    await journal.close()


@both_modes
async def test_many_rotations_leave_one_log_and_one_snapshot(tmp_path: Path, mode: Mode) -> None:
    """Nothing piles up; the position goes on counting over logs."""
    journal = opened(tmp_path, mode)
    for number in range(1, 6):
        assert journal.append((body(number),)) == number
        journal.rotate()
        await rotated(journal)
    names = {file_name(Kind.LOG, 6), file_name(Kind.SNAPSHOT, 6), *LOCKS}
    assert set(os.listdir(tmp_path)) == names
    await journal.close()
    journal = opened(tmp_path, mode)
    assert count_of(journal) == 5
    assert set(os.listdir(tmp_path)) == names
    await journal.close()
