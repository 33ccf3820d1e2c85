"""The journal: files, records and snapshots that are damaged, cut, shuffled or made up.

The first byte of an input says what the rest is:

- edits of a good journal: each is nine bytes, of which the first says what is done to which file, and the others where;
- the bytes of the newest log behind its header;
- records that are replayed, each behind its length;
- a snapshot that is loaded.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from aiopg._core import journal
from aiopg._core.exchange import Exchange
from aiopg._core.journal import (
    HEADER_BYTES,
    Kind,
    RecordEncoder,
    Recovery,
    encode_header,
    encode_snapshot,
    file_name,
    read_records,
    read_snapshot,
    recover,
)
from aiopg._core.limits import Limits
from aiopg._core.records import replay
from aiopg._core.stategraph import dump, load
from aiopg.errors import JournalCorruptError, ProtocolError, UsageError
from tests.core.life import ABOUT, Life
from tests.fuzz.target import PACKER, Target

__all__ = ["JournalTarget"]

LIMITS = Limits(mailbox_messages=6, waiting_calls=8, open_rounds=4, world_size=64)
EPOCH = b"one life, 16 byt"
EDIT = struct.Struct(">BII")
EDITS, NEWEST, RECORDS, SNAPSHOT = range(4)
FIRST_RECORDS = 9
"""Records of the life that are replayed before those of an input."""

_NO_DIGITS = dict.fromkeys(range(48, 58))
_LENGTH = struct.Struct(">H")
_SHAPES = ((1, 1, 0, False), (1, 3, 0, False), (3, 2, 1, False), (2, 3, 2, True), (1, 1, 0, True))
"""First log, logs, snapshots, and whether the newest log is sealed."""
_BODIES = (b"r", b"record", bytes(20), b"x" * 60, b"aiopgLOG" * 3, bytes(range(100)))


class _Journal(NamedTuple):
    """A good journal: its files, and what was written to its logs and snapshots, by their numbers."""

    files: dict[str, bytes]
    logs: dict[int, list[bytes]]
    snapshots: dict[int, bytes]


def _log(number: int, bodies: list[bytes], sealed: bool) -> bytes:
    encoder = RecordEncoder(number, EPOCH)
    records = b"".join(piece for body in bodies for piece in encoder.encode((body,)))
    return encode_header(Kind.LOG, number, EPOCH) + records + (encoder.seal() if sealed else b"")


def _journals() -> list[_Journal]:
    """Logs alone, logs with a snapshot, with two, one that is sealed, one that is empty."""
    chance = random.Random(4711)
    made = []
    for first, count, snapshots, sealed in _SHAPES:
        logs = {
            number: [chance.choice(_BODIES) + bytes((number, index)) for index in range(5)]
            for number in range(first, first + count)
        }
        states = {number: b"state %d" % number + b"x" * 50 for number in range(first, first + snapshots)}
        files = {
            file_name(Kind.LOG, number): _log(number, bodies, sealed or number < first + count - 1)
            for number, bodies in logs.items()
        }
        for number, state in states.items():
            parts = encode_snapshot(number, EPOCH, [state[:9], state[9:]])
            files[file_name(Kind.SNAPSHOT, number)] = b"".join(b"".join(part) for part in parts)
        made.append(_Journal(files, logs, states))
    return made


class JournalTarget(Target):
    """A journal gives what was written to it, but for a torn tail, or it is damaged: never anything else."""

    name = "journal"
    tokens = (
        *(b"aiopgLOG", b"aiopgSNP", EPOCH, encode_header(Kind.LOG, 1, EPOCH), bytes(12), bytes(40)),
        *(bytes((kind,)) for kind in range(8)),
        *(b"\xdd\x7f\xff\xff\xff", b"\xdf\0\1\0\0", b"\xc4\x10", b"\xcb\x7f\xf8" + bytes(6), b"\xca\x7f\x80\0\0"),
        *(b"\x92\0\0", b"\x92\0\1", b"\x93\1\0\4", b"\x91\2", b"\x92\6\x90", b"\xa8_waiting", b"\xa6_limits"),
    )  # fmt: skip

    def __init__(self) -> None:
        self._journals = _journals()
        life = Life(7)
        while len(life.records) < 260:
            life.step()
        self._life = [bytes(record) for record in life.records if len(record) < 1000]
        self._snapshots = []
        for count in (0, 20, 120):
            exchange = Exchange(LIMITS, ABOUT)
            for record in life.records[:count]:
                replay(exchange, record)
            exchange.overfull.clear()
            self._snapshots.append(b"".join(dump(exchange, 1.0)))

    def seeds(self) -> list[bytes]:
        """Each edit of each journal; a log's records; records of a life; snapshots of it."""
        chance = random.Random(1)
        edits = [
            bytes((EDITS, number))
            + b"".join(
                EDIT.pack(how << 4 | chance.randrange(8), chance.randrange(300), chance.randrange(300)) for how in hows
            )
            for number in range(len(self._journals))
            for hows in ((), *((how,) for how in range(10)), (0, 1), (2, 3))
        ]
        logs = [
            bytes((NEWEST,)) + _log(1, list(_BODIES[:count]), sealed)[HEADER_BYTES:]
            for count in (0, 2, 6)
            for sealed in (False, True)
        ]
        records = [
            bytes((RECORDS,)) + b"".join(_LENGTH.pack(len(record)) + record for record in self._life[start : start + 4])
            for start in range(FIRST_RECORDS, len(self._life), 3)
        ]
        return (
            edits
            + logs
            + records
            + [bytes((SNAPSHOT,)) + snapshot for snapshot in self._snapshots if len(snapshot) < 8000]
        )

    def run(self, data: bytes) -> Iterable[Hashable]:
        """See the class."""
        if not data:
            return ()
        what, rest = data[0] & 3, data[1:]
        if what == EDITS:
            return _check_edited(self._journals[rest[0] % len(self._journals)], rest[1:]) if rest else ()
        if what == NEWEST:
            return _check_newest(rest)
        return self._replayed(rest) if what == RECORDS else _loaded(rest)

    def memory(self, size: int) -> int:
        """Files in hand a few times over, what a life holds, and the objects that bytes can name."""
        return 200 * size + PACKER + 512 * 1024

    def _replayed(self, data: bytes) -> list[Hashable]:
        """Records of an input after good ones: taken, or refused with the one error that there is."""
        exchange = Exchange(LIMITS, ABOUT)
        for record in self._life[:FIRST_RECORDS]:
            replay(exchange, record)
        came: list[Hashable] = []
        place = 0
        while place + 2 <= len(data) and len(came) < 6:
            (size,) = _LENGTH.unpack_from(data, place)
            record = data[place + 2 : place + 2 + size]
            place += 2 + size
            try:
                now = replay(exchange, record)
            except ProtocolError as error:
                came.append(("refused", error.reason[30:40].translate(_NO_DIGITS)))
                break
            assert now is None or type(now) is float
            came.append(("taken", record[5:6] if len(record) > 6 else b""))
        exchange.engine.describe()
        exchange.engine.next_deadline()
        return came


# ------------------------------------------------------------------------------------------------------- files


def _read_all(files: dict[str, bytes]) -> tuple[Recovery, bytes | None, list[bytes]]:
    recovery = recover(list(files), files.__getitem__)
    return recovery, read_snapshot(recovery, files.__getitem__), list(read_records(recovery, files.__getitem__))


def _check_edited(before: _Journal, edits: bytes) -> list[Hashable]:
    """After these edits the journal says what it said, but for a torn tail, or it is damaged."""
    files = dict(before.files)
    hows: list[Hashable] = []
    for start in range(0, min(len(edits) - EDIT.size + 1, 4 * EDIT.size), EDIT.size):
        how, a, b = EDIT.unpack_from(edits, start)
        hows.append(how >> 4)
        _edit(files, how >> 4, sorted(files)[how % len(files)], a, b)
        if not files:
            return ["nothing left"]
    try:
        recovery, snapshot, records = _read_all(files)
    except (JournalCorruptError, UsageError) as error:
        assert files != before.files, "a good journal is damaged"
        return [
            "damaged",
            type(error).__name__,
            error.reason[:9] if isinstance(error, JournalCorruptError) else "",
            *hows[:1],
        ]
    _check_said(before, files, recovery, snapshot, records)
    return ["read", recovery.torn is not None, len(records), *hows]


def _check_said(
    before: _Journal, files: dict[str, bytes], recovery: Recovery, snapshot: bytes | None, records: list[bytes]
) -> None:
    """What is read against what was written."""
    assert snapshot == before.snapshots.get(recovery.snapshot)
    written = [body for number in range(recovery.first, recovery.newest) for body in before.logs[number]]
    newest = before.logs.get(recovery.newest, [])
    assert records[: len(written)] == written, "of a log that is not the newest something is missing"
    assert records == (written + newest)[: len(records)], f"{records} are none of {written + newest}"
    name = file_name(Kind.LOG, recovery.newest)
    log = before.files.get(name, b"")
    if files.keys() == before.files.keys():
        assert recovery.newest == max(before.logs)
        assert len(records) == len(written) + len(newest) or files[name] != log, "a good record was not read"
    if recovery.torn is not None:
        assert recovery.torn == (name, recovery.end, len(files[name]) - recovery.end)
        assert _follows_no_good_record(log, files[name], recovery.end), "a record behind a torn tail was good"


def _follows_no_good_record(before: bytes, after: bytes, torn: int) -> bool:
    """Whether of what was cut off nothing is a later record of the log, at its own place, whole."""
    start = HEADER_BYTES
    while start < len(before):
        size = journal.HEAD_BYTES + int.from_bytes(before[start : start + 4])
        # An end mark is one only where nothing follows it.
        is_there = before[start : start + size] == after[start : start + size]
        if start > torn and is_there and (size > journal.HEAD_BYTES or start + size == len(after)):
            return False
        start += size
    return True


def _edit(files: dict[str, bytes], how: int, name: str, a: int, b: int) -> None:
    """One edit of one file."""
    data = files[name]
    place, other = a % (len(data) + 1), b % (len(data) + 1)
    low, high = sorted((place, other))
    if how == 0:
        files[name] = data[:place]
    elif how == 1:
        files[name] = (
            data[:place] + bytes((data[place] ^ (1 << b % 8),)) + data[place + 1 :] if place < len(data) else data
        )
    elif how == 2:
        files[name] = data[:low] + data[high:]
    elif how == 3:
        files[name] = data[:high] + data[low:high] + data[high:]
    elif how == 4:
        files[name] = data[:low] + bytes(high - low) + data[high:]
    elif how == 5:
        files[name] = data + bytes(b % 64)
    elif how == 6:
        files[name] = data[:place] + b.to_bytes(4) + data[place + 4 :]
    elif how == 7:
        del files[name]
    elif how == 8:
        files[sorted(files)[a % len(files)]] = data
    elif how == 9:
        files[("log-%016d", "snapshot-%016d", "log-%d", "%d")[a % 4] % (b % 9 if a & 4 else b)] = data


def _check_newest(data: bytes) -> list[Hashable]:
    """A log of any bytes: records, a torn tail or damage; and what is cut off has no more to say."""
    name = file_name(Kind.LOG, 1)
    files = {name: encode_header(Kind.LOG, 1, EPOCH) + data}
    try:
        recovery, _, records = _read_all(files)
    except JournalCorruptError as error:
        return ["damaged", error.reason[:12]]
    assert (recovery.epoch, recovery.first, recovery.newest, recovery.count) == (EPOCH, 1, 1, len(records))
    assert recovery.end + (recovery.torn.bytes if recovery.torn else 0) == len(files[name])
    again = _log(1, records, recovery.sealed)
    assert files[name][: recovery.end] == again, "what was read is written in another way"
    return ["log", len(records), recovery.sealed, recovery.torn is not None]


def _of_another_version(error: UsageError) -> list[Hashable]:
    """The other error that there is."""
    assert "version" in str(error)
    return ["another version"]


def _loaded(data: bytes) -> list[Hashable]:
    """A snapshot of any bytes: an exchange, or one of the two errors that there are."""
    try:
        exchange, now = load(data, LIMITS, ABOUT)
    except ProtocolError as error:
        return ["no snapshot", error.reason[:25].translate(_NO_DIGITS)]
    except UsageError as error:
        return _of_another_version(error)
    assert type(exchange) is Exchange
    assert type(now) is float
    return ["snapshot", len(vars(exchange))]
