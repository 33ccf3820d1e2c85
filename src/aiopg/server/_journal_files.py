"""The files of a journal's directory: opening, locking, writing, compacting. Everything here blocks.

Who may do what, and when:

- A server holds the lock of the directory (flock on `journal.lock`) as long as its journal is open, and writes logs.
- Its child (`compact`) writes the snapshot that stands for the complete logs, and deletes these. It touches no log that
  is written to. It works only while it holds the lock of compaction, and once it holds that it looks whether its server
  lives: so a server that has the first lock, and then waits until nobody has the second, is alone. That is no long
  wait: a child ends with its server (`_compactor`).
- The order is what makes a crash at any point harmless: the old log gets its end mark, the next log is there, the
  snapshot is written beside, synced and renamed, the directory is synced, and only then the old files are deleted.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from aiopg._core import journal as core
from aiopg._core.compaction import is_due
from aiopg._core.frames import Buffer
from aiopg.errors import JournalCorruptError, UsageError

__all__ = ["Fold", "JournalFiles", "Part", "compact_files", "lock_compaction", "named", "snapshot_size"]

logger = logging.getLogger("aiopg.server.journal")

LOCK = "journal.lock"
COMPACTION_LOCK = "compaction.lock"
UNFINISHED = ".unfinished"  # ends the name of a snapshot that is being written

CHILD_SECONDS = 10.0
"""How long the child of a server that was killed may take to end. It is killed with it, but may have to wait for a
write to a slow disk."""

IOV_MAX = 1024
"""Buffers that Linux takes in one system call."""

Fold: TypeAlias = Callable[[bytes | None, Iterable[bytes]], Iterable[Buffer]]
"""Body of the snapshot, in pieces, that stands for another one (None: the beginning) and the records behind it."""


Unmade: TypeAlias = Callable[[], tuple[Buffer, ...]]
"""Makes the buffers of a record, when it is written."""


class Part(NamedTuple):
    """Buffers for one log, in order."""

    number: int
    buffers: list[Buffer | Unmade]


class JournalFiles:
    """The directory of an open journal, and the log that is written to."""

    def __init__(self, directory: Path, *, sync: bool) -> None:
        self.directory = directory
        self.sync = sync
        self.epoch = b""
        self.number = 0  # of the log that is written to
        self._log = -1
        self._lock = self._make_and_lock()
        try:
            self._wait_for_child()
        except BaseException:
            self.close()
            raise

    def recover(self) -> core.Recovery:
        """Read all, then make ready to write: nothing is changed if it raises `JournalCorruptError`."""
        with named(self.directory):
            recovery = core.recover(os.listdir(self.directory), _reader(self.directory))
        self.epoch = recovery.epoch or secrets.token_bytes(16)
        for number in range(recovery.first, recovery.newest + 1):
            self.number = number
            self._open_log()
            if number == recovery.newest:
                os.ftruncate(self._log, recovery.end)
            if self.sync:
                # A server that was killed, or had fsync="off", left it to the kernel; from now on we promise it.
                os.fsync(self._log)
        number = max(recovery.newest + recovery.sealed, 1)
        if number != self.number or not recovery.end:
            self._begin(number)
        _sync_directory(self.directory)
        _delete_before(self.directory, recovery.first)
        return recovery

    def commit(self, parts: list[Part]) -> None:
        """Write a batch, and sync it if that is the mode."""
        for number, buffers in parts:
            if number != self.number:
                self._begin(number)
            _write(self._log, [made for buffer in buffers for made in (buffer() if callable(buffer) else (buffer,))])
        if self.sync:
            os.fdatasync(self._log)

    def compact_if_due(self, recovery: core.Recovery, fold: Fold) -> core.Recovery:
        """If the logs are long, make a snapshot before anything else; what the directory holds then.

        A server that is killed again and again may never live as long as a child takes.
        """
        if not is_due(recovery.size, snapshot_size(self.directory, recovery.snapshot)):
            return recovery
        if self.number == recovery.newest:
            seal = core.RecordEncoder(self.number, self.epoch, recovery.count).seal()
            self.commit([Part(self.number, [seal]), Part(self.number + 1, [])])
        try:
            compact_files(self.directory, self.number, fold)
        except OSError as error:
            logger.error(
                "%s: no snapshot could be made, the log stays long: %s",
                self.directory,
                error,
                extra={"journal": str(self.directory), "reason": str(error)},
            )
        return replace(self.recover(), torn=recovery.torn)

    def snapshot(self, recovery: core.Recovery) -> bytes | None:
        """See `core.read_snapshot`."""
        return _read_snapshot(self.directory, recovery)

    def records(self, recovery: core.Recovery) -> Iterator[bytes]:
        """See `core.read_records`."""
        return _read_records(self.directory, recovery)

    def close(self) -> None:
        """Close the log and unlock the directory."""
        if self._log >= 0:
            os.close(self._log)
        os.close(self._lock)

    def _make_and_lock(self) -> int:
        try:
            self.directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            names = os.listdir(self.directory)
            if names and not any(name == LOCK or core.parse_name(name) for name in names):
                # Somebody's directory, named by mistake: it must not get our files and our permissions.
                raise UsageError(f"{self.directory} holds other things than a journal; name a new directory") from None
        else:
            _sync_directory(self.directory.parent)
        lock = _open_lock(self.directory / LOCK)
        try:
            if not _try_lock(lock):
                raise UsageError(f"the journal in {self.directory} is open in another server")
            os.chmod(self.directory, 0o700)
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _wait_for_child(self) -> None:
        """See the module's docstring. Raises `UsageError` if the child of another server does not end."""
        patience = time.monotonic() + CHILD_SECONDS
        lock = _open_lock(self.directory / COMPACTION_LOCK)
        try:
            while not _try_lock(lock):
                if time.monotonic() > patience:
                    raise UsageError(f"a process left by a server that was killed is at work in {self.directory}")
                time.sleep(0.005)
        finally:
            os.close(lock)

    def _begin(self, number: int) -> None:
        """Make log `number` and write to it from here on."""
        if self.sync and self._log >= 0:
            os.fdatasync(self._log)
        self.number = number
        self._open_log()
        _write(self._log, [core.encode_header(core.Kind.LOG, number, self.epoch)])
        if self.sync:
            os.fdatasync(self._log)
            _sync_directory(self.directory)

    def _open_log(self) -> None:
        path = self.directory / core.file_name(core.Kind.LOG, self.number)
        before, self._log = self._log, os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if before >= 0:
            os.close(before)


# --------------------------------------------------------------------------------------------- compaction


def compact_files(directory: Path, number: int, fold: Fold) -> None:
    """Make snapshot `number` of what is before log `number`, which has been begun, and delete what it stands for.

    It is synced whatever the mode of the journal. Raises `JournalCorruptError`, `OSError` and what `fold` raises; then
    at most an unfinished file is left, which is deleted by the next who gets so far.
    """
    recovery = _find_complete(directory, number)
    assert recovery.epoch is not None
    pieces = fold(_read_snapshot(directory, recovery), _read_records(directory, recovery))
    _write_snapshot(directory, number, recovery.epoch, pieces)
    _delete_before(directory, number)


def _find_complete(directory: Path, number: int) -> core.Recovery:
    """What is before log `number`: nothing of that log itself, and each log before it has to have its end mark.

    The logs are not read here, as `core.recover` does: whoever makes a snapshot of them reads and checks them once.
    """
    found = [parsed for parsed in map(core.parse_name, os.listdir(directory)) if parsed is not None]
    logs = {log for kind, log in found if kind is core.Kind.LOG}
    snapshots = [snapshot for kind, snapshot in found if kind is core.Kind.SNAPSHOT and snapshot < number]
    with named(directory):
        snapshot, epoch, damage = core.choose_snapshot(snapshots, _reader(directory))
        first = max(snapshot, 1)
        missing = next((log for log in range(first, number + 1) if log not in logs), None)
        if missing is not None:
            raise damage or JournalCorruptError(core.file_name(core.Kind.LOG, missing), 0, "it is missing")
        with (directory / core.file_name(core.Kind.LOG, number)).open("rb") as log:
            epoch = core.FileReader(core.Kind.LOG, number, log.read(core.HEADER_BYTES), epoch).epoch
    return core.Recovery(epoch, snapshot, first, newest=number)


def lock_compaction(directory: Path) -> int:
    """Get the lock of compaction; an open file, which has it as long as it is open."""
    lock = _open_lock(directory / COMPACTION_LOCK)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def snapshot_size(directory: Path, number: int) -> int:
    """Bytes of a snapshot's file; 0 for number 0, which is none."""
    return (directory / core.file_name(core.Kind.SNAPSHOT, number)).stat().st_size if number else 0


@contextmanager
def named(directory: Path) -> Iterator[None]:
    """Errors from in here name the file with its directory."""
    try:
        yield
    except JournalCorruptError as error:
        raise JournalCorruptError(str(directory / error.file), error.offset, error.reason) from error


def _reader(directory: Path) -> core.Read:
    return lambda name: (directory / name).read_bytes()


def _read_snapshot(directory: Path, recovery: core.Recovery) -> bytes | None:
    with named(directory):
        return core.read_snapshot(recovery, _reader(directory))


def _read_records(directory: Path, recovery: core.Recovery) -> Iterator[bytes]:
    with named(directory):
        yield from core.read_records(recovery, _reader(directory))


def _write_snapshot(directory: Path, number: int, epoch: bytes, pieces: Iterable[Buffer]) -> None:
    path = directory / core.file_name(core.Kind.SNAPSHOT, number)
    unfinished = path.with_name(path.name + UNFINISHED)
    file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        for buffers in core.encode_snapshot(number, epoch, pieces):
            _write(file, list(buffers))
            os.fdatasync(file)
    finally:
        os.close(file)
    os.rename(unfinished, path)
    _sync_directory(directory)


def _delete_before(directory: Path, number: int) -> None:
    """Delete what is older than snapshot `number`, and snapshots that were never finished."""
    for name in os.listdir(directory):
        parsed = core.parse_name(name.removesuffix(UNFINISHED))
        if parsed is not None and (parsed[1] < number or name.endswith(UNFINISHED)):
            (directory / name).unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------- system


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_lock(lock: int) -> bool:
    """Whether the lock could be had."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        return False
    return True


def _sync_directory(directory: Path) -> None:
    """What was made, renamed or deleted in it is on disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(file: int, buffers: list[Buffer]) -> None:
    """Write all of it. `buffers` is used up."""
    start = 0
    while start < len(buffers):
        count = os.writev(file, buffers[start : start + IOV_MAX])
        while start < len(buffers) and count >= len(buffers[start]):
            count -= len(buffers[start])
            start += 1
        if count:
            buffers[start] = memoryview(buffers[start])[count:]
