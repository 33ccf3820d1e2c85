"""The journal's files: bytes on disk <-> records. The bodies of records are opaque here.

Theory of operation. A journal is a directory of numbered files. A log holds records in the order in which they were
written; a snapshot with number N holds the state at the beginning of log N, so that older logs are not needed. Logs
count from 1, and before log 1 there is nothing. All integers are big-endian, all checksums crc32 as in zlib::

    log-%016d       header | record ... | end mark, once the next log is begun
    snapshot-%016d  header | record ... | end mark       its body is that of all its records, joined

    header    offset 0   magic         8 bytes, "aiopgLOG" or "aiopgSNP"
                     8   version       u32, 2
                    12   file number   u64, as in the name
                    20   epoch         16 bytes, one life of the server's state, the same in all files
                    36   checksum      u32 of bytes 0 to 35
    record    offset 0   body length   u32, at least 1
                     4   checksum      u32 of (epoch, file number u64, body length u32, record number u64)
                     8   checksum      u32 of the body, begun with the one before
                    12   body
    end mark  a record without body; nothing follows it

Records are numbered from 1 within their file; the number is not stored but checked, as are epoch and file number: a
record is good only in its own place.

Rules for reading, in this order:

1. A header that is wrong, a file of another number or epoch, a log missing between two that are there: damage.
2. In a log that is followed by another, and in a snapshot, anything but good records up to the end mark: damage.
3. In the newest log, a bad record with a good one of a later number in its place or anywhere behind it: damage. Where
   the first checksum is right the length can be trusted, and what it spans is not searched.
4. In the newest log, a bad record with no such record behind it: a torn tail. The server was killed in the middle of a
   write, or the power failed before the last bytes were on disk. It is cut off. A newest log shorter than its header,
   or of zeros only, was never begun, which is the same.

Damage is never mended or skipped: `JournalCorruptError`. So whoever reads gets all that was written but a torn tail, or
nothing. A damaged snapshot is passed over if an older one and all logs since are still there: they say the same.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeAlias
from zlib import crc32

from aiopg._core.frames import JOIN_BELOW, Body, Buffer, body_size
from aiopg.errors import JournalCorruptError, UsageError

__all__ = [
    "HEADER_BYTES",
    "FileReader",
    "Kind",
    "Recovery",
    "RecordEncoder",
    "Torn",
    "choose_snapshot",
    "encode_header",
    "encode_snapshot",
    "file_name",
    "parse_name",
    "read_records",
    "read_snapshot",
    "recover",
]

VERSION = 2
HEADER_BYTES = 40
HEAD_BYTES = 12

SNAPSHOT_RECORD_BYTES = 4 * 1024 * 1024
"""A snapshot is written and synced in parts of this size, so that no log's sync has to wait for more of it."""

_HEADER = struct.Struct(">8sIQ16s")
_HEAD = struct.Struct(">III")
_NUMBERED = struct.Struct(">IQ")
_LONGEST = 2**32 - 1

Read: TypeAlias = Callable[[str], bytes]
"""The content of the file of this name."""


class Kind(enum.Enum):
    """The two kinds of files; the value is the first word of their names."""

    LOG = "log"
    SNAPSHOT = "snapshot"


_MAGIC = {Kind.LOG: b"aiopgLOG", Kind.SNAPSHOT: b"aiopgSNP"}


class Torn(NamedTuple):
    """What was cut off: the last `bytes` bytes of `file`, from `offset` on."""

    file: str
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a directory holds, and where its journal goes on.

    Attributes:
        epoch: None where no file says it, and the journal is new.
        snapshot: number of the snapshot to begin from; 0: from nothing.
        first, newest: the logs to replay, both included; newest 0: there is none.
        count: records in the newest log.
        end: bytes of the newest log that are good; 0: not even its header.
        sealed: whether the newest log has its end mark, so that the next is to be begun.
        size: good bytes in all logs to replay.
        torn: what is to be cut off the newest log.
    """

    epoch: bytes | None = None
    snapshot: int = 0
    first: int = 1
    newest: int = 0
    count: int = 0
    end: int = 0
    sealed: bool = False
    size: int = 0
    torn: Torn | None = None


# ------------------------------------------------------------------------------------------------ writing


def file_name(kind: Kind, number: int) -> str:
    """Name of a file of the journal."""
    return f"{kind.value}-{number:016d}"


def parse_name(name: str) -> tuple[Kind, int] | None:
    """Kind and number of a file of the journal; None for any other name."""
    match = re.fullmatch(r"(log|snapshot)-([0-9]{16})", name)
    return (Kind(match[1]), int(match[2])) if match is not None and int(match[2]) else None


def encode_header(kind: Kind, number: int, epoch: bytes) -> bytes:
    """The first bytes of a file."""
    header = _HEADER.pack(_MAGIC[kind], VERSION, number, epoch)
    return header + crc32(header).to_bytes(4, "big")


def _salt(number: int, epoch: bytes) -> int:
    """Where the first checksum of each record of a file begins."""
    return crc32(epoch + number.to_bytes(8, "big"))


class RecordEncoder:
    """Encodes the records of one file, after the `count` that it holds already."""

    def __init__(self, number: int, epoch: bytes, count: int = 0) -> None:
        self._salt = _salt(number, epoch)
        self._count = count

    def encode(self, pieces: Body) -> tuple[Buffer, ...]:
        """The buffers of the next record, in order; one single buffer where it is small.

        Raises `ValueError` for an empty body or one of 4 GiB; then no number was used.
        """
        size = self._begin(pieces)
        return self._encode(self._count, size, pieces)

    def encode_later(self, pieces: Body) -> Callable[[], tuple[Buffer, ...]]:
        """The same for later, and for any thread: the record has its number now. Raises what that raises, now."""
        size = self._begin(pieces)
        return partial(self._encode, self._count, size, pieces)

    def _begin(self, pieces: Body) -> int:
        size = body_size(pieces)
        if not 0 < size <= _LONGEST:
            raise ValueError(f"a record has 1 to {_LONGEST} bytes, not {size}")
        self._count += 1
        return size

    def _encode(self, number: int, size: int, pieces: Body) -> tuple[Buffer, ...]:
        checksum = head_checksum = self._head_checksum(number, size)
        for piece in pieces:
            checksum = crc32(piece, checksum)
        head = _HEAD.pack(size, head_checksum, checksum)
        return (b"".join((head, *pieces)),) if size <= JOIN_BELOW else (head, *filter(len, pieces))

    def seal(self) -> bytes:
        """The end mark: the file is complete."""
        self._count += 1
        head_checksum = self._head_checksum(self._count, 0)
        return _HEAD.pack(0, head_checksum, head_checksum)

    def _head_checksum(self, number: int, size: int) -> int:
        """Also where the body's checksum begins: a body is good in its own place only."""
        return crc32(_NUMBERED.pack(size, number), self._salt)


def encode_snapshot(number: int, epoch: bytes, pieces: Iterable[Buffer]) -> Iterator[tuple[Buffer, ...]]:
    """A whole snapshot file, part by part, in order."""
    encoder = RecordEncoder(number, epoch)
    yield (encode_header(Kind.SNAPSHOT, number, epoch),)
    for part in _split(pieces, SNAPSHOT_RECORD_BYTES):
        # One copy here is cheaper than writing thousands of small pieces one by one.
        yield encoder.encode((part[0] if len(part) == 1 else b"".join(part),))
    yield (encoder.seal(),)


def _split(pieces: Iterable[Buffer], most: int) -> Iterator[list[Buffer]]:
    """The same bytes in parts of `most` bytes, the last one shorter."""
    part: list[Buffer] = []
    room = most
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            part.append(rest[:room])
            room, rest = room - len(part[-1]), rest[room:]
            if not room:
                yield part
                part, room = [], most
    if part:
        yield part


# ------------------------------------------------------------------------------------------------ reading


class FileReader:
    """Reads one file in memory: iterate over `records` to the end, then the attributes are right.

    Only a newest log may have a torn tail. Raises `JournalCorruptError` for all else that is wrong.

    Attributes:
        epoch: the epoch in its header.
        end: offset behind the last good record.
        count: good records, without the end mark.
        sealed: whether it has its end mark.
        torn: what is to be cut off.
    """

    def __init__(self, kind: Kind, number: int, data: bytes, epoch: bytes | None, *, newest: bool = False) -> None:
        self._name = file_name(kind, number)
        self._data, self._newest = data, newest
        self.epoch = self._check_header(kind, number, epoch)
        self._salt = _salt(number, self.epoch)
        self.end = HEADER_BYTES
        self.count = 0
        self.sealed = False
        self.torn: Torn | None = None

    def records(self) -> Iterator[memoryview]:
        """The bodies in order, views of the file's memory."""
        data, view = self._data, memoryview(self._data)
        while len(data) - self.end >= HEAD_BYTES:
            length, head_checksum, checksum = _HEAD.unpack_from(data, self.end)
            body = view[self.end + HEAD_BYTES :][:length]
            if head_checksum != crc32(_NUMBERED.pack(length, self.count + 1), self._salt):
                break
            if len(body) != length or checksum != crc32(body, head_checksum):
                break
            self.end += HEAD_BYTES + length
            if not length:
                self.sealed = True
                break
            self.count += 1
            yield body
        self._judge_rest()

    def _judge_rest(self) -> None:
        """At `end` begins no good record: it is the end of the file, a torn tail, or damage."""
        rest = len(self._data) - self.end
        if self.sealed:
            if rest:
                raise self._damage(self.end, "there are bytes behind its end mark")
        elif not self._newest:
            raise self._damage(self.end, f"record {self.count + 1} is bad, and this is no file that may be torn")
        elif rest:
            if (later := self._find_later()) is not None:
                raise self._damage(self.end, f"record {self.count + 1} is bad, and a good one follows at byte {later}")
            self.torn = Torn(self._name, self.end, rest)

    def _damage(self, offset: int, reason: str) -> JournalCorruptError:
        return JournalCorruptError(self._name, offset, reason)

    def _check_header(self, kind: Kind, number: int, epoch: bytes | None) -> bytes:
        if len(self._data) < HEADER_BYTES:
            raise self._damage(len(self._data), "it ends within its header")
        magic, version, named, epoch_there = _HEADER.unpack_from(self._data)
        if crc32(self._data[: _HEADER.size]).to_bytes(4, "big") != self._data[_HEADER.size : HEADER_BYTES]:
            raise self._damage(0, "the header's checksum is wrong")
        if magic != _MAGIC[kind]:
            raise self._damage(0, f"it is no {kind.value}: its first bytes are {magic!r}")
        if version != VERSION:
            raise UsageError(f"{self._name} is a journal of version {version}; this aiopg reads version {VERSION}")
        if named != number:
            raise self._damage(12, f"it is {kind.value} {named} by its header, and {number} by its name")
        if epoch is not None and epoch_there != epoch:
            raise self._damage(20, f"its epoch is {epoch_there.hex()}, and that of the other files {epoch.hex()}")
        return bytes(epoch_there)

    def _find_later(self) -> int | None:
        """Offset of a good record with a later number than the bad one at `end`, there or behind it, or None."""
        data, size, start = self._data, len(self._data), self.end
        if size - self.end >= HEAD_BYTES:
            length, head_checksum, _ = _HEAD.unpack_from(data, self.end)
            if head_checksum == crc32(_NUMBERED.pack(length, self.count + 1), self._salt):
                start = self.end + HEAD_BYTES + length
        last = size - HEAD_BYTES
        # Four bytes that as a length are over 0 and do not reach over the end; zeros are skipped fast.
        first_bytes = re.escape(bytes((min(max(last - start, 0) >> 24, 255),)))
        candidates = re.compile(rb"(?s)(?!\0\0\0\0)[\0-" + first_bytes + rb"](?=...)")
        for match in candidates.finditer(data, start, last + 3):  # all four bytes before that: it begins before `last`
            if self._is_later(match.start(), size // HEAD_BYTES):
                return match.start()
        # Only the last record can be an end mark, and many zeros are none: the bound is as tight as can be.
        is_mark = last >= start and any(data[last:]) and not any(data[last : last + 4])
        return last if is_mark and self._is_later(last, self.count + 1 + (last - self.end) // HEAD_BYTES) else None

    def _is_later(self, offset: int, most: int) -> bool:
        """Whether a good record begins there, with a number over the bad one's and at most `most`."""
        head: tuple[int, int, int] = _HEAD.unpack_from(self._data, offset)
        length, head_checksum, checksum = head
        start = offset + HEAD_BYTES
        if start + length > len(self._data):
            return False
        if not self.count + 1 < _number_of(head_checksum ^ crc32(_NUMBERED.pack(length, 0), self._salt)) <= most:
            return False
        return crc32(memoryview(self._data)[start : start + length], head_checksum) == checksum


def _number_of(difference: int) -> int:
    """The one record number under 2**32 whose checksum differs from that of number 0 by `difference`.

    A crc is linear, so the difference depends on the number alone, and it can be run backwards, bit by bit.
    """
    for _ in range(32):
        difference = ((difference ^ 0xEDB88320) << 1 | 1) if difference >> 31 else difference << 1
    return int.from_bytes(difference.to_bytes(4, "little"), "big")


# --------------------------------------------------------------------------------------------- recovering


def recover(names: Collection[str], read: Read) -> Recovery:
    """Find out what a directory with files of these names holds. Every byte that counts is read and checked.

    Raises `JournalCorruptError`, `UsageError` for files of a version that is not known, and what `read` raises.
    """
    found = [parsed for parsed in map(parse_name, names) if parsed is not None]
    if not found:
        return Recovery()
    snapshot, epoch, damage = choose_snapshot([number for kind, number in found if kind is Kind.SNAPSHOT], read)
    first = max(snapshot, 1)
    logs = {number for kind, number in found if kind is Kind.LOG}
    # A log is begun before the snapshot of the same number is written, so the highest number of all has one.
    newest = max(number for _, number in found)
    missing = next((number for number in range(first, newest + 1) if number not in logs), None)
    if missing is not None:
        raise damage or JournalCorruptError(file_name(Kind.LOG, missing), 0, "it is missing")
    size = 0
    for number in range(first, newest):
        reader = _read_through(FileReader(Kind.LOG, number, read(file_name(Kind.LOG, number)), epoch))
        epoch = reader.epoch
        size += reader.end
    return _recover_newest(Recovery(epoch, snapshot, first, newest, size=size), read)


def read_snapshot(recovery: Recovery, read: Read) -> bytes | None:
    """Body of the snapshot to begin from; None: begin from nothing."""
    if not recovery.snapshot:
        return None
    data = read(file_name(Kind.SNAPSHOT, recovery.snapshot))
    return b"".join(FileReader(Kind.SNAPSHOT, recovery.snapshot, data, recovery.epoch).records())


def read_records(recovery: Recovery, read: Read) -> Iterator[bytes]:
    """Bodies of the records since, in order; one log at a time is in memory."""
    for number in range(recovery.first, recovery.newest + 1):
        newest = number == recovery.newest
        if newest and not recovery.end:
            return
        data = read(file_name(Kind.LOG, number))
        if newest:
            data = data[: recovery.end]  # it may have grown meanwhile
        yield from map(bytes, FileReader(Kind.LOG, number, data, recovery.epoch, newest=newest).records())


def choose_snapshot(numbers: Iterable[int], read: Read) -> tuple[int, bytes | None, JournalCorruptError | None]:
    """Number (or 0) and epoch of the newest good one among snapshots, and what is wrong with the newest of all."""
    damage: JournalCorruptError | None = None
    for number in sorted(numbers, reverse=True):
        try:
            data = read(file_name(Kind.SNAPSHOT, number))
            return number, _read_through(FileReader(Kind.SNAPSHOT, number, data, None)).epoch, damage
        except JournalCorruptError as error:
            damage = damage or error
    return 0, None, damage


def _recover_newest(before: Recovery, read: Read) -> Recovery:
    """What was found so far and the newest log."""
    name = file_name(Kind.LOG, before.newest)
    data = read(name)
    if len(data) < HEADER_BYTES or (not any(data[:HEADER_BYTES]) and data.count(0) == len(data)):
        # It was made, and nothing of it reached the disk.
        return replace(before, torn=Torn(name, 0, len(data)) if data else None)
    reader = _read_through(FileReader(Kind.LOG, before.newest, data, before.epoch, newest=True))
    found = replace(before, epoch=reader.epoch, size=before.size + reader.end, torn=reader.torn)
    return replace(found, count=reader.count, end=reader.end, sealed=reader.sealed)


def _read_through(reader: FileReader) -> FileReader:
    """Check all of it."""
    for _ in reader.records():
        pass
    return reader
