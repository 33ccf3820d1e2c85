"""The server's journal on disk: a directory of its own, its files, group commit and snapshots.

Theory of operation. What is in the files says `aiopg._core.journal`; how it gets there says this module.

- `append` only queues a record. All records of one pass of the event loop make one batch, which is written by one
  system call; a batch is durable as a whole, and then `on_written` is called. Nothing may leave the server that
  rests on a record which is not yet `written`.
- `fsync="off"`: a batch is written on the loop and is then in the kernel's hands. It survives the server's death by
  any signal, and not the host's.
- `fsync="batch"`: a batch is written and synced in a thread; what is appended meanwhile is the next batch. It
  survives a power cut. The loop never waits for a disk.
- `rotate` begins the next log and writes a snapshot in a thread of its own, so that no batch waits for it. The order
  is what makes a crash at any point harmless: the old log gets its end mark, the next log is there, the snapshot is
  written beside, synced and renamed, the directory is synced, and only then the old files are deleted.
- A write that fails ends the journal: what of it reached the disk is not known, and a sync that failed once may say
  yes the next time without having written. `on_failed` is called once, and nothing is written or reported any more.

One server at a time: the directory is locked (flock) as long as the journal is open; a dead server holds no lock.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from aiopg._core import journal as core
from aiopg._core.frames import Body, Buffer, body_size
from aiopg.errors import JournalCorruptError, UsageError

__all__ = ["Journal"]

logger = logging.getLogger("aiopg.server.journal")

LOCK = "journal.lock"
UNFINISHED = ".unfinished"  # ends the name of a snapshot that is being written

IOV_MAX = 1024
"""Buffers that Linux takes in one system call."""


class _Part(NamedTuple):
    """Buffers for one log, in order."""

    number: int
    buffers: list[Buffer]


class Journal:
    """An open journal. Made by `open`; used on one event loop, whose callbacks it calls.

    Attributes:
        on_written: called on the loop each time after `written` grew.
        on_failed: called on the loop, once, when the disk refused; the server cannot go on with this journal.
        epoch: 16 bytes, one life of the server's state; as old as the directory.
        torn: what was cut off the end of the newest log at open, None if nothing.
        written: position up to which records are durable as the mode promises; 0 at open.
        size: bytes in the logs since the last snapshot, those not yet written too.
        backlog: bytes appended and not yet written. The owner bounds it: it knows who has to wait.
    """

    def __init__(self, files: _Files, recovery: core.Recovery) -> None:
        self.on_written: Callable[[], None] = lambda: None
        self.on_failed: Callable[[OSError], None] = lambda error: None
        self.epoch = files.epoch
        self.torn: core.Torn | None = recovery.torn
        self.written = 0
        self.size = recovery.size
        self.backlog = 0
        self._files = files
        self._recovery = recovery
        self._number = files.number
        count = recovery.count if files.number == recovery.newest else 0
        self._encoder = core.RecordEncoder(self._number, self.epoch, count)
        self._position = 0
        self._parts = [_Part(self._number, [])]  # what is to be written; the last one is open
        self._snapshot: Sequence[Buffer] | None = None  # waits until its log has begun
        self._executor = ThreadPoolExecutor(2, "aiopg-journal")  # never more than one batch and one snapshot
        self._batch: asyncio.Future[None] | None = None
        self._rotation: asyncio.Future[None] | None = None
        self._flush_is_due = False
        self._failed = False
        self._closed: asyncio.Future[None] | None = None

    @classmethod
    def open(cls, directory: Path, *, fsync: Literal["batch", "off"]) -> Journal:
        """Open the journal in `directory`, or begin one there. Blocks: every byte of it is read and checked.

        The directory is made if it is not there, and only its owner may enter it.

        Raises:
            UsageError: another server has it open; it holds other things than a journal; a newer aiopg wrote it.
            JournalCorruptError: it is damaged. Nothing was changed.
            OSError: it cannot be read or written.
        """
        if fsync not in ("batch", "off"):
            raise ValueError(f'fsync must be "batch" or "off", not {fsync!r}')
        files = _Files(directory, sync=fsync == "batch")
        try:
            recovery = files.recover()
            if recovery.torn is not None:
                logger.warning("%s: cut a torn tail off %s, at byte %d, %d bytes", directory, *recovery.torn)
            return cls(files, recovery)
        except BaseException:
            files.close()
            raise

    @property
    def snapshot(self) -> bytes | None:
        """Body of the snapshot that was found at open, read from disk; None if there was none.

        Like `records` it is there until the first `rotate`.
        """
        with self._files.named():
            return core.read_snapshot(self._recovery, self._files.read)

    @property
    def records(self) -> Iterator[bytes]:
        """Bodies of the records found at open behind the snapshot, in order, read from disk log by log."""
        with self._files.named():
            yield from core.read_records(self._recovery, self._files.read)

    @property
    def rotating(self) -> bool:
        """Whether a snapshot is being written."""
        return self._snapshot is not None or self._rotation is not None

    def append(self, pieces: Body) -> int:
        """Queue a record, whose body is `pieces` joined; its position, which counts up from 1.

        It is written in this pass of the loop or when the batch under way is. After a failure it is dropped:
        `written` never gets there. Raises `ValueError` for an empty body or one of 4 GiB, `UsageError` after `close`.
        """
        if self._closed is not None:
            raise UsageError("the journal was closed")
        if not self._failed:
            buffers = self._encoder.encode(pieces)
            size = body_size(buffers)
            self.size += size
            self.backlog += size
            self._parts[-1].buffers.extend(buffers)
            self._schedule()
        self._position += 1
        return self._position

    def rotate(self, snapshot: Iterable[Buffer]) -> None:
        """Begin the next log with a snapshot: the state after all that was appended so far, nobody will change it.

        Returns at once; `rotating` until it is on disk and the old files are deleted. Raises `UsageError` if a
        rotation is under way or the journal was closed.
        """
        if self._closed is not None or self.rotating:
            raise UsageError("the journal was closed" if self._closed is not None else "a rotation is under way")
        if self._failed:
            return
        self._parts[-1].buffers.append(self._encoder.seal())
        self._number += 1
        self._encoder = core.RecordEncoder(self._number, self.epoch)
        self._parts.append(_Part(self._number, []))
        self._snapshot = tuple(snapshot)
        self.size = core.HEADER_BYTES
        self._schedule()

    async def close(self) -> None:
        """Write what was appended, finish a rotation under way, unlock the directory. Closing twice is fine.

        A cancelled close goes on by itself. After a failure it only unlocks.
        """
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_future()
            self._flush()
            self._settle()
        await asyncio.shield(self._closed)

    # ------------------------------------------------------------------------------------------------ inside

    def _schedule(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Write what is queued, unless a batch is under way: then its end does."""
        self._flush_is_due = False
        if self._batch is not None or not self._is_dirty:
            return
        parts, self._parts = self._parts, [_Part(self._number, [])]
        position, size = self._position, self.backlog
        if self._files.sync:
            self._batch = asyncio.get_running_loop().run_in_executor(self._executor, self._files.commit, parts)
            self._batch.add_done_callback(partial(self._batch_ended, position, size))
            return
        try:
            self._files.commit(parts)
        except OSError as error:
            self._fail(error)
        else:
            self._committed(position, size)

    @property
    def _is_dirty(self) -> bool:
        return not self._failed and (len(self._parts) > 1 or bool(self._parts[0].buffers))

    def _batch_ended(self, position: int, size: int, batch: asyncio.Future[None]) -> None:
        self._batch = None
        error = batch.exception()
        if self._failed or error is not None:
            self._fail(error)
        else:
            self._committed(position, size)

    def _committed(self, position: int, size: int) -> None:
        """The batch up to `position` is durable. The owner is told last: what he does, or raises, disturbs nothing."""
        grew = position > self.written
        self.written = position
        self.backlog -= size
        if self._snapshot is not None and self._files.number == self._number:
            snapshot, self._snapshot = self._snapshot, None
            write = partial(self._files.write_snapshot, self._number, snapshot)
            self._rotation = asyncio.get_running_loop().run_in_executor(self._executor, write)
            self._rotation.add_done_callback(self._rotation_ended)
        self._flush()
        self._settle()
        if grew:
            self.on_written()

    def _rotation_ended(self, rotation: asyncio.Future[None]) -> None:
        self._rotation = None
        if (error := rotation.exception()) is not None:
            self._fail(error)
        self._settle()

    def _fail(self, error: BaseException | None) -> None:
        """Nothing is written any more. None: it failed before, and this is the end of what was under way."""
        first, self._failed = not self._failed, True
        self._parts = [_Part(self._number, [])]
        self._snapshot = None
        self._settle()
        if error is not None and not isinstance(error, OSError):
            raise error  # not the disk's doing: the loop's exception handler shows it
        if first and error is not None:
            logger.error("%s: the journal cannot be written: %s", self._files.directory, error)
            self.on_failed(error)

    def _settle(self) -> None:
        """Let go of everything if closed and nothing is under way."""
        if self._closed is None or self._closed.done() or self._batch or self._rotation or self._is_dirty:
            return
        self._executor.shutdown(wait=False)
        self._files.close()
        self._closed.set_result(None)


class _Files:
    """The directory and its files. Everything blocks; `commit` and `write_snapshot` may run at the same time."""

    def __init__(self, directory: Path, *, sync: bool) -> None:
        self.directory = directory
        self.sync = sync
        self.epoch = b""
        self.number = 0  # of the log that is written to
        self._log = -1
        self._lock = self._make_and_lock()

    def recover(self) -> core.Recovery:
        """Read all, then make ready to write: nothing is changed if it raises `JournalCorruptError`."""
        with self.named():
            recovery = core.recover(os.listdir(self.directory), self.read)
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
        self._delete_before(recovery.first)
        return recovery

    def commit(self, parts: list[_Part]) -> None:
        """Write a batch, and sync it if that is the mode."""
        for number, buffers in parts:
            if number != self.number:
                self._begin(number)
            _write(self._log, buffers)
        if self.sync:
            os.fdatasync(self._log)

    def write_snapshot(self, number: int, pieces: Iterable[Buffer]) -> None:
        """Write a snapshot, whose log is there, then delete all that is older. It is synced in either mode."""
        path = self.directory / core.file_name(core.Kind.SNAPSHOT, number)
        unfinished = path.with_name(path.name + UNFINISHED)
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            for buffers in core.encode_snapshot(number, self.epoch, pieces):
                _write(file, list(buffers))
                os.fdatasync(file)
        finally:
            os.close(file)
        os.rename(unfinished, path)
        _sync_directory(self.directory)
        self._delete_before(number)

    def read(self, name: str) -> bytes:
        """The whole content of a file."""
        return (self.directory / name).read_bytes()

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors from in here name the file with its directory."""
        try:
            yield
        except JournalCorruptError as error:
            raise JournalCorruptError(str(self.directory / error.file), error.offset, error.reason) from error

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
        lock = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.chmod(self.directory, 0o700)
        except OSError as error:
            os.close(lock)
            if error.errno != errno.EWOULDBLOCK:
                raise
            raise UsageError(f"the journal in {self.directory} is open in another server") from error
        return lock

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

    def _delete_before(self, number: int) -> None:
        """Delete what is older than snapshot `number`, and snapshots that were never finished."""
        for name in os.listdir(self.directory):
            parsed = core.parse_name(name.removesuffix(UNFINISHED))
            if parsed is not None and (parsed[1] < number or name.endswith(UNFINISHED)):
                (self.directory / name).unlink(missing_ok=True)


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
