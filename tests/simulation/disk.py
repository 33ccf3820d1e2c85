"""A store's journal on a disk in memory, in virtual time: what is on it after a crash is a matter of luck.

Theory of operation. Files, records and recovery are those of `aiopg._core.journal`; what is here is what the product
has threads and system calls for. A change of the disk is a list of steps (append to a file, rename, delete) in an order
that the product enforces by its syncs. It takes a random time and then is there as a whole. When the server dies, each
change under way is there up to a random place, any byte of it included: what was promised as written is whole, what was
not may be there, in part, or not at all. Now and then the rest of a torn append is zeros, where a file had grown before
its bytes came; but not within the header that begins a file, which is part of one sector. Batches are in order; a
snapshot is written beside them.

With `sync` a batch is under way for a while, and what is appended meanwhile is the next one; without, a batch is
written in the pass of the loop after the one that appended it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import NamedTuple, TypeAlias

from aiopg._core import journal as core
from aiopg._core.frames import Body, Buffer, body_size
from tests.simulation.loop import SimLoop

__all__ = ["SLOW_SECONDS", "SNAPSHOT_SECONDS", "Disk", "DiskJournal"]

UNFINISHED = ".unfinished"

SYNC_SECONDS = ((0.6, 0.0001, 0.002), (0.9, 0.002, 0.02), (1.0, 0.02, 0.3))
"""How long a batch takes: share of batches up to this one, least and largest time."""

SLOW_SECONDS = 0.25
"""So much longer while the disk is slow."""

SNAPSHOT_SECONDS = (0.001, 0.1)


class Append(NamedTuple):
    """Bytes at the end of a file, which is made if it is not there."""

    name: str
    data: bytes


class Rename(NamedTuple):
    """A file gets another name."""

    name: str
    to: str


class Delete(NamedTuple):
    """A file is gone."""

    name: str


Step: TypeAlias = Append | Rename | Delete
Note: TypeAlias = Callable[[object, str], None]
Fold: TypeAlias = Callable[[bytes | None, Iterable[bytes]], Sequence[Buffer]]
"""Makes the body of a snapshot, in pieces, that stands for another one and the records behind it."""


class Disk:
    """The files of one journal; they outlive the server."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.files: dict[str, bytearray] = {}

    def read(self, name: str) -> bytes:
        """The whole content of a file."""
        return bytes(self.files[name])

    def make(self, steps: Iterable[Step]) -> None:
        """Make a change, all of it."""
        for step in steps:
            match step:
                case Append(name, data):
                    self.files.setdefault(name, bytearray()).extend(data)
                case Rename(name, to):
                    self.files[to] = self.files.pop(name)
                case Delete(name):
                    self.files.pop(name, None)

    def make_some(self, steps: list[Step]) -> None:
        """The server died while this change was made."""
        random = self._random
        steps = _deletions_in_any_order(steps, random)
        place = random.randint(0, len(steps))
        self.make(steps[:place])
        if place < len(steps) and isinstance(torn := steps[place], Append):
            has_zeros = random.random() < 0.2
            kept = torn.data[: 0 if has_zeros and torn.name not in self.files else _cut(len(torn.data), random)]
            zeros = bytes(random.randint(0, len(torn.data) - len(kept)) if has_zeros else 0)
            self.make([Append(torn.name, kept + zeros)])


def _cut(size: int, random: Random) -> int:
    """A place in so many bytes; the ends, where records begin and headers are, more often than the rest."""
    draw = random.random()
    if draw < 0.3:
        return random.randint(0, min(size, 60))
    return size - random.randint(0, min(size, 60)) if draw < 0.5 else random.randint(0, size)


def _deletions_in_any_order(steps: list[Step], random: Random) -> list[Step]:
    """No sync comes between deletions."""
    deletions = [step for step in steps if isinstance(step, Delete)]
    random.shuffle(deletions)
    return [step for step in steps if not isinstance(step, Delete)] + list(deletions)


class DiskJournal:
    """What a server keeps on a disk: the same face as `aiopg.server.journal.Journal`."""

    def __init__(self, loop: SimLoop, disk: Disk, random: Random, fold: Fold, *, sync: bool, note: Note) -> None:
        """Opens what is there, as after any crash; `fold` makes snapshots. Raises `JournalCorruptError`."""
        self._loop, self._disk, self._random, self._sync, self._note = loop, disk, random, sync, note
        self._fold = fold
        recovery = self._recovery = core.recover(list(disk.files), disk.read)
        self.on_written: Callable[[], None] = lambda: None
        self.on_failed: Callable[[OSError], None] = lambda error: None
        self.on_rotation: Callable[[], object] = lambda: None
        """Called when a snapshot begins to be written."""
        self.when_failed: Callable[[], object] | None = None
        """If set, the disk refuses the next batch; called when the owner was told."""
        self.epoch = recovery.epoch or random.randbytes(16)
        self.torn = recovery.torn
        self.was_there = recovery.newest > 0
        """Whether the disk held a journal at open."""
        self.has_snapshot = recovery.snapshot > 0
        self.written = 0
        self.size = recovery.size
        self.snapshot_bytes = len(self.snapshot or b"")
        self.backlog = 0
        self._position = 0
        self._pending: list[Step] = []
        self._batch: list[Step] | None = None
        self._compaction_is_due = False
        self._rotation: list[Step] | None = None
        self._flush_is_due = False
        self._slow_until = 0.0
        self._failed = False
        self._dead = False
        self._make_ready()

    @property
    def snapshot(self) -> bytes | None:
        """Body of the snapshot that was found at open; None if there was none."""
        return core.read_snapshot(self._recovery, self._disk.read)

    @property
    def records(self) -> Iterator[bytes]:
        """Bodies of the records found at open behind the snapshot, in order."""
        return core.read_records(self._recovery, self._disk.read)

    @property
    def rotating(self) -> bool:
        """Whether a snapshot is being written."""
        return self._compaction_is_due or self._rotation is not None

    def append(self, pieces: Body) -> int:
        """Queue a record; its position, which counts up from 1. After a failure it is dropped."""
        if not self._failed:
            self._queue(self._encoder.encode(pieces))
        self._position += 1
        return self._position

    def rotate(self) -> None:
        """Begin the next log, and have a snapshot made of what was before."""
        assert not self.rotating
        if self._failed:
            return
        self._queue((self._encoder.seal(),))
        self._begin_log(self._number + 1)
        self._compaction_is_due = True
        self.size = core.HEADER_BYTES

    async def close(self) -> None:
        """Write what was appended, at once."""
        if not self._dead:
            self._disk.make([*(self._batch or ()), *self._pending, *(self._rotation or ())])
            self._dead = True

    def be_slow(self, seconds: float) -> None:
        """For so long each batch takes its time."""
        self._slow_until = self._loop.time() + seconds

    def die(self) -> None:
        """The server is killed."""
        if self._dead:
            return
        self._dead = True
        # Of what waits for the batch under way nothing is there; a batch that is not under way was being written.
        self._disk.make_some(self._pending if self._batch is None else self._batch)
        if self._rotation is not None:
            self._disk.make_some(self._rotation)
        self._note("disk", "dies")

    # ------------------------------------------------------------------------------------------------ inside

    def _make_ready(self) -> None:
        """Cut off what is torn, delete what is not needed, go on with the newest log or begin the next."""
        recovery, files = self._recovery, self._disk.files
        for name in list(files):
            parsed = core.parse_name(name.removesuffix(UNFINISHED))
            if name.endswith(UNFINISHED) or (parsed is not None and parsed[1] < recovery.first):
                del files[name]
        self._number = max(recovery.newest, 1)
        log = core.file_name(core.Kind.LOG, self._number)
        if log in files:
            del files[log][recovery.end :]
        self._encoder = core.RecordEncoder(self._number, self.epoch, recovery.count)
        if recovery.sealed or not recovery.end:
            self._begin_log(self._number + recovery.sealed)
            self._disk.make(self._pending)
            self._pending = []
        self.backlog = 0

    def _begin_log(self, number: int) -> None:
        self._number = number
        self._encoder = core.RecordEncoder(number, self.epoch)
        self._queue((core.encode_header(core.Kind.LOG, number, self.epoch),))

    def _queue(self, buffers: tuple[Buffer, ...]) -> None:
        self._pending.append(Append(core.file_name(core.Kind.LOG, self._number), b"".join(buffers)))
        self.size += body_size(buffers)
        self.backlog += body_size(buffers)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write what is queued, unless a batch is under way: then its end does."""
        self._flush_is_due = False
        if self._dead or self._batch is not None or not self._pending:
            return
        self._batch, self._pending = self._pending, []
        if self._sync:
            self._loop.call_later(self._seconds(), self._committed, self._position)
        else:
            self._committed(self._position)

    def _committed(self, position: int) -> None:
        if self._dead:
            return
        batch, self._batch = self._batch, None
        assert batch is not None
        if self.when_failed is not None:
            self._fail(batch, self.when_failed)
            return
        self._disk.make(batch)
        size = sum(len(step.data) for step in batch if isinstance(step, Append))
        self._note("disk", f"holds {position} {size}")
        self.backlog -= size
        grew, self.written = position > self.written, position
        if self._compaction_is_due and core.file_name(core.Kind.LOG, self._number) in self._disk.files:
            self._begin_snapshot()
        self._flush()
        if grew:
            self.on_written()

    def _fail(self, batch: list[Step], then: Callable[[], object]) -> None:
        self._failed = True
        self._disk.make_some(batch)
        self._pending, self._compaction_is_due = [], False
        self._note("disk", "fails")
        self.on_failed(OSError(errno.ENOSPC, "No space left on device"))
        then()

    def _begin_snapshot(self) -> None:
        old = [name for name in self._disk.files if (parsed := core.parse_name(name)) and parsed[1] < self._number]
        found, read = core.recover(old, self._disk.read), self._disk.read
        pieces = self._fold(core.read_snapshot(found, read), core.read_records(found, read))
        self.snapshot_bytes = sum(map(len, pieces))
        name = core.file_name(core.Kind.SNAPSHOT, self._number)
        parts = core.encode_snapshot(self._number, self.epoch, pieces)
        written = [Append(name + UNFINISHED, b"".join(part)) for part in parts]
        self._rotation = [*written, Rename(name + UNFINISHED, name), *map(Delete, old)]
        self._compaction_is_due = False
        self._loop.call_later(self._random.uniform(*SNAPSHOT_SECONDS), self._rotated)
        self.on_rotation()

    def _rotated(self) -> None:
        if not self._dead and self._rotation is not None:
            self._disk.make(self._rotation)
            self._rotation = None
            self._note("disk", f"holds snapshot {self._number}")

    def _seconds(self) -> float:
        draw = self._random.random()
        least, largest = next((least, largest) for share, least, largest in SYNC_SECONDS if draw <= share)
        return self._random.uniform(least, largest) + (SLOW_SECONDS if self._loop.time() < self._slow_until else 0.0)
