"""The server's journal on disk: a directory of its own, group commit and snapshots.

Theory of operation. What is in the files says `aiopg._core.journal`, in which order they are made and deleted
`_journal_files`; when that is done says this module.

- `append` only queues a record. All records of one pass of the event loop make one batch, which is written by one
  system call; a batch is durable as a whole, and then `on_written` is called. Nothing may leave the server that
  rests on a record which is not yet `written`.
- `fsync="off"`: a batch is written on the loop, or in a thread if it is large, and is then in the kernel's hands. It
  survives the server's death by any signal, and not the host's.
- `fsync="batch"`: a batch is written and synced in a thread; what is appended meanwhile is the next batch. It
  survives a power cut. The loop never waits for a disk.
- `rotate` begins the next log, which costs no more than a record. Then a child process reads what is before that log,
  the snapshot and the complete logs, replays it and writes the next snapshot (`_compactor`). So the state of the server
  is never copied or walked through on its loop. What goes wrong in the child loses nothing, is logged, and is tried
  again when the log is as long again.
- Damage that the child finds in the complete logs does not stop the server: its own state is good. It is told as an
  error, each time, and means that the store cannot be started from this directory again: see to it that its groups come
  to an end, then start it on a new one. Until then the logs stay, and grow.
- At `open` a long log is compacted first, by the server itself: one that is killed again and again would never do it.
- A write that fails ends the journal: what of it reached the disk is not known, and a sync that failed once may say
  yes the next time without having written. `on_failed` is called once, and nothing is written or reported any more.

One server at a time: the directory is locked as long as the journal is open; a dead server holds no lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

from aiopg._core import journal as core
from aiopg._core.frames import Body, body_size
from aiopg.errors import UsageError
from aiopg.server._compactor import CompactionError, Compactor
from aiopg.server._journal_files import JournalFiles, Part, snapshot_size

__all__ = ["Journal"]

LARGE_RECORD = 1024 * 1024
"""To check and write as much takes 2 ms; a record of more is checked, and a batch of more is written, in a thread."""

logger = logging.getLogger("aiopg.server.journal")


class Journal:
    """An open journal. Made by `open`; used on one event loop, whose callbacks it calls.

    Attributes:
        on_written: called on the loop each time after `written` grew.
        on_failed: called on the loop, once, when the disk refused; the server cannot go on with this journal.
        epoch: 16 bytes, one life of the server's state; as old as the directory.
        torn: what was cut off the end of the newest log at open, None if nothing.
        written: position up to which records are durable as the mode promises; 0 at open.
        size: bytes in the logs since the last snapshot that was made or tried, those not yet written too.
        snapshot_bytes: bytes of the last snapshot, 0 if there is none.
        backlog: bytes appended and not yet written. The owner bounds it: it knows who has to wait.
    """

    def __init__(self, files: JournalFiles, recovery: core.Recovery, compactor: Compactor) -> None:
        self.on_written: Callable[[], None] = lambda: None
        self.on_failed: Callable[[OSError], None] = lambda error: None
        self.epoch = files.epoch
        self.torn: core.Torn | None = recovery.torn
        self.written = 0
        self.size = recovery.size
        self.snapshot_bytes = snapshot_size(files.directory, recovery.snapshot)
        self.backlog = 0
        self._files = files
        self._recovery = recovery
        self._compactor = compactor
        self._number = files.number
        count = recovery.count if files.number == recovery.newest else 0
        self._encoder = core.RecordEncoder(self._number, self.epoch, count)
        self._position = 0
        self._parts = [Part(self._number, [])]  # what is to be written; the last one is open
        self._compaction_is_due = False  # it waits until its log has begun
        self._executor = ThreadPoolExecutor(2, "aiopg-journal")  # never more than one batch and one compaction
        self._batch: asyncio.Future[None] | None = None
        self._compaction: asyncio.Future[int] | None = None
        self._flush_is_due = False
        self._failed = False
        self._closed: asyncio.Future[None] | None = None

    @classmethod
    def open(cls, directory: Path, *, fsync: Literal["batch", "off"], compactor: Compactor) -> Journal:
        """Open the journal in `directory`, or begin one there. Blocks: every byte of it is read and checked.

        The directory is made if it is not there, and only its owner may enter it. `compactor` makes the snapshots.

        Raises:
            UsageError: another server has it open; it holds other things than a journal; a newer aiopg wrote it.
            JournalCorruptError: it is damaged. Nothing was changed.
            OSError: it cannot be read or written.
        """
        if fsync not in ("batch", "off"):
            raise ValueError(f'fsync must be "batch" or "off", not {fsync!r}')
        files = JournalFiles(directory, sync=fsync == "batch")
        try:
            recovery = files.compact_if_due(files.recover(), compactor.fold)
            if recovery.torn is not None:
                file, offset, size = recovery.torn
                logger.warning(
                    "%s: cut a torn tail off %s, at byte %d, %d bytes",
                    directory,
                    file,
                    offset,
                    size,
                    extra={"journal": str(directory), "file": str(file), "offset": offset, "size": size},
                )
            return cls(files, recovery, compactor)
        except BaseException:
            files.close()
            raise

    @property
    def snapshot(self) -> bytes | None:
        """Body of the snapshot that was found at open, read from disk; None if there was none.

        Like `records` it is there until the first `rotate`.
        """
        return self._files.snapshot(self._recovery)

    @property
    def records(self) -> Iterator[bytes]:
        """Bodies of the records found at open behind the snapshot, in order, read from disk log by log."""
        return self._files.records(self._recovery)

    @property
    def rotating(self) -> bool:
        """Whether a snapshot is being made."""
        return self._compaction_is_due or self._compaction is not None

    def append(self, pieces: Body) -> int:
        """Queue a record, whose body is `pieces` joined; its position, which counts up from 1.

        It is written in this pass of the loop or when the batch under way is. After a failure it is dropped:
        `written` never gets there. Raises `ValueError` for an empty body or one of 4 GiB, `UsageError` after `close`.
        """
        if self._closed is not None:
            raise UsageError("the journal was closed")
        if not self._failed:
            if pieces and len(pieces[-1]) > LARGE_RECORD:
                self._parts[-1].buffers.append(self._encoder.encode_later(pieces))
                size = core.HEAD_BYTES + body_size(pieces)
            else:
                buffers = self._encoder.encode(pieces)
                self._parts[-1].buffers.extend(buffers)
                size = body_size(buffers)
            self.size += size
            self.backlog += size
            self._schedule()
        self._position += 1
        return self._position

    def rotate(self) -> None:
        """Begin the next log, and have a snapshot made of all that was appended so far.

        Returns at once; `rotating` until the snapshot is on disk and the old files are deleted, or that has failed.
        Raises `UsageError` if a rotation is under way or the journal was closed.
        """
        if self._closed is not None or self.rotating:
            raise UsageError("the journal was closed" if self._closed is not None else "a rotation is under way")
        if self._failed:
            return
        self._parts[-1].buffers.append(self._encoder.seal())
        self._number += 1
        self._encoder = core.RecordEncoder(self._number, self.epoch)
        self._parts.append(Part(self._number, []))
        self._compaction_is_due = True
        self.size = core.HEADER_BYTES
        self._schedule()

    async def close(self) -> None:
        """Write what was appended, give up a snapshot under way, unlock the directory. Closing twice is fine.

        A cancelled close goes on by itself. After a failure it only unlocks.
        """
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_future()
            self._compaction_is_due = False
            self._compactor.stop()
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
        parts, self._parts = self._parts, [Part(self._number, [])]
        position, size = self._position, self.backlog
        if self._files.sync or size > LARGE_RECORD:
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
        if self._compaction_is_due and self._files.number == self._number:
            self._compaction_is_due = False
            run = partial(self._compact, self._number)
            self._compaction = asyncio.get_running_loop().run_in_executor(self._executor, run)
            self._compaction.add_done_callback(self._compaction_ended)
        self._flush()
        self._settle()
        if grew:
            self.on_written()

    def _compact(self, number: int) -> int:
        """In a thread: have the snapshot made; its size."""
        self._compactor.run(self._files.directory, number)
        return snapshot_size(self._files.directory, number)

    def _compaction_ended(self, compaction: asyncio.Future[int]) -> None:
        self._compaction = None
        error = compaction.exception()
        self._settle()
        if error is None:
            self.snapshot_bytes = compaction.result()
        elif not isinstance(error, CompactionError | OSError):
            raise error  # a program error: the loop's exception handler shows it
        elif self._closed is None:
            self._tell(error)

    def _tell(self, error: CompactionError | OSError) -> None:
        extra = {"journal": str(self._files.directory), "reason": str(error)}
        if isinstance(error, CompactionError) and error.damaged:
            logger.error(
                "%s: no server can be started from this journal again, while this one goes on, with all in memory; "
                "end its groups and start on a new directory: %s",
                self._files.directory,
                error,
                extra=extra,
            )
        else:
            logger.error("%s: no snapshot was made, which loses nothing: %s", self._files.directory, error, extra=extra)

    def _fail(self, error: BaseException | None) -> None:
        """Nothing is written any more. None: it failed before, and this is the end of what was under way."""
        first, self._failed = not self._failed, True
        self._parts = [Part(self._number, [])]
        self._compaction_is_due = False
        self._settle()
        if error is not None and not isinstance(error, OSError):
            raise error  # not the disk's doing: the loop's exception handler shows it
        if first and error is not None:
            logger.error(
                "%s: the journal cannot be written: %s",
                self._files.directory,
                error,
                extra={"journal": str(self._files.directory), "reason": str(error)},
            )
            self.on_failed(error)

    def _settle(self) -> None:
        """Let go of everything if closed and nothing is under way."""
        if self._closed is None or self._closed.done() or self._batch or self._compaction or self._is_dirty:
            return
        self._executor.shutdown(wait=False)
        self._files.close()
        self._closed.set_result(None)
