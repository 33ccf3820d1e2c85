"""The journal's files in memory: what was written is read, a torn tail is cut, damage is refused."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopg._core import journal as core
from aiopg._core.frames import JOIN_BELOW, Buffer
from aiopg._core.journal import HEADER_BYTES, FileReader, Kind, RecordEncoder, Recovery, Torn
from aiopg.errors import JournalCorruptError, UsageError

EPOCH = bytes(range(100, 116))
LOG1, LOG2, LOG3 = (core.file_name(Kind.LOG, number) for number in (1, 2, 3))
SNAPSHOT2, SNAPSHOT3 = (core.file_name(Kind.SNAPSHOT, number) for number in (2, 3))

# Zeros and small numbers are what a damaged length is most easily mistaken for.
BODIES = st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.integers(1, 60).map(bytes)), max_size=8)


def log(bodies: Iterable[Buffer], number: int = 1, *, sealed: bool = False, epoch: bytes = EPOCH) -> bytes:
    """A log file with these records."""
    encoder = RecordEncoder(number, epoch)
    data = core.encode_header(Kind.LOG, number, epoch)
    data += b"".join(b"".join(encoder.encode((body,))) for body in bodies)
    return data + encoder.seal() if sealed else data


def snapshot(number: int, *pieces: Buffer, epoch: bytes = EPOCH) -> bytes:
    """A snapshot file."""
    return b"".join(b"".join(part) for part in core.encode_snapshot(number, epoch, pieces))


def offsets(bodies: list[bytes]) -> list[int]:
    """Where each record begins, and where the last one ends."""
    ends = [HEADER_BYTES]
    for body in bodies:
        ends.append(ends[-1] + 12 + len(body))
    return ends


def read(files: dict[str, bytes]) -> tuple[bytes | None, list[bytes], Recovery]:
    """Snapshot, records and the rest of what these files say."""
    recovery = core.recover(list(files), files.__getitem__)
    bodies = list(core.read_records(recovery, files.__getitem__))
    return core.read_snapshot(recovery, files.__getitem__), bodies, recovery


def refusal(files: dict[str, bytes]) -> JournalCorruptError:
    """The error for files that must be refused."""
    with pytest.raises(JournalCorruptError) as caught:
        read(files)
    return caught.value


def flipped(data: bytes, offset: int, bits: int) -> bytes:
    """The same bytes, but one."""
    return data[:offset] + bytes((data[offset] ^ bits,)) + data[offset + 1 :]


def test_the_format_is_that_of_the_documentation() -> None:
    """Byte by byte: a journal that is on disk must be readable by the next release."""
    header = struct.pack(">8sIQ16s", b"aiopgLOG", 2, 7, EPOCH)
    expected = header + struct.pack(">I", zlib.crc32(header))
    for number, body in ((1, b"one"), (2, b"second")):
        salted = EPOCH + struct.pack(">QIQ", 7, len(body), number)
        expected += struct.pack(">III", len(body), zlib.crc32(salted), zlib.crc32(body, zlib.crc32(salted))) + body
    expected += struct.pack(">III", 0, *[zlib.crc32(EPOCH + struct.pack(">QIQ", 7, 0, 3))] * 2)
    assert log([b"one", b"second"], 7, sealed=True) == expected
    assert snapshot(7)[:12] == b"aiopgSNP\0\0\0\2"
    assert core.file_name(Kind.LOG, 7) == "log-0000000000000007"


@given(st.lists(st.lists(st.binary(max_size=30), min_size=1, max_size=4), max_size=8))
def test_what_was_written_is_read(records: list[list[bytes]]) -> None:
    """A record's body is its pieces joined."""
    records = [pieces for pieces in records if any(pieces)]
    encoder = RecordEncoder(1, EPOCH)
    data = core.encode_header(Kind.LOG, 1, EPOCH) + b"".join(
        b"".join(encoder.encode(tuple(pieces))) for pieces in records
    )
    state, bodies, recovery = read({LOG1: data})
    assert (state, bodies) == (None, [b"".join(pieces) for pieces in records])
    assert recovery == Recovery(EPOCH, 0, 1, 1, len(records), len(data), False, len(data), None)


def test_a_large_record_is_not_copied_and_a_small_one_is_one_buffer() -> None:
    """One system call without copies, or one small buffer."""
    large = bytes(JOIN_BELOW)
    buffers = RecordEncoder(1, EPOCH).encode((b"", large, memoryview(b"x")))
    assert [len(buffer) for buffer in buffers] == [12, JOIN_BELOW, 1]
    assert buffers[1] is large
    assert len(RecordEncoder(1, EPOCH).encode((b"a", b"b"))) == 1


def test_an_empty_record_is_refused_and_takes_no_number() -> None:
    """Nothing but the end mark has no body."""
    encoder = RecordEncoder(1, EPOCH)
    with pytest.raises(ValueError, match="1 to 4294967295 bytes, not 0"):
        encoder.encode((b"", b""))
    assert encoder.encode((b"a",)) == RecordEncoder(1, EPOCH).encode((b"a",))


@settings(max_examples=60)
@given(BODIES, st.binary(min_size=1, max_size=20))
def test_truncation_at_any_byte_leaves_a_prefix_that_can_go_on(bodies: list[bytes], more: bytes) -> None:
    """Whole records stay; the rest is reported, cut, and the next record takes its place."""
    data, ends = log(bodies), offsets(bodies)
    for length in range(len(data) + 1):
        _, found, recovery = read({LOG1: data[:length]})
        whole = sum(end <= length for end in ends[1:])
        assert found == bodies[:whole]
        end = ends[whole] if length >= HEADER_BYTES else 0
        assert (recovery.count, recovery.end) == (whole, end)
        assert recovery.torn == (Torn(LOG1, end, length - end) if length > end else None)
        if end:
            assert recovery.epoch == EPOCH
            next_record = b"".join(RecordEncoder(1, EPOCH, recovery.count).encode((more,)))
            assert read({LOG1: data[:end] + next_record})[1] == [*bodies[:whole], more]


@settings(max_examples=60)
@given(BODIES, st.integers(1, 255), st.booleans())
def test_any_flipped_byte_is_refused_or_cut_with_the_last_record(bodies: list[bytes], bits: int, sealed: bool) -> None:
    """In the last record it looks like a torn write; anywhere else it is damage, and never other data."""
    data = log(bodies, sealed=sealed)
    last = len(data) - 12 if sealed else offsets(bodies)[-2] if bodies else len(data)
    kept = bodies if sealed else bodies[:-1]
    for offset in range(len(data)):
        files = {LOG1: flipped(data, offset, bits)}
        if offset < last:
            error = refusal(files)
            assert error.file == LOG1
            assert error.offset <= offset
        else:
            _, found, recovery = read(files)
            assert found == kept
            assert (recovery.torn, recovery.sealed) == (Torn(LOG1, last, len(data) - last), False)


@settings(max_examples=40)
@given(BODIES, BODIES, BODIES, st.binary(max_size=30), st.integers(1, 255))
def test_any_flipped_byte_in_a_directory_never_gives_other_data(
    first: list[bytes], second: list[bytes], third: list[bytes], state: bytes, bits: int
) -> None:
    """Snapshot, a log that others follow, newest log: the same data, a torn last record, or a refusal."""
    files = {SNAPSHOT2: snapshot(2, state), LOG2: log(second, 2, sealed=True), LOG3: log(third, 3)}
    assert read(files)[:2] == (state, second + third)
    last = offsets(third)[-2] if third else len(files[LOG3])
    for name, data in files.items():
        for offset in range(len(data)):
            damaged = files | {name: flipped(data, offset, bits)}
            if name == LOG3 and offset >= last:
                assert read(damaged)[:2] == (state, second + third[:-1])
            else:
                assert refusal(damaged).file == name
    # With the older log still there a damaged snapshot is no loss.
    damaged = {**files, SNAPSHOT2: flipped(files[SNAPSHOT2], 50, bits), LOG1: log(first, 1, sealed=True)}
    assert read(damaged)[:2] == (None, first + second + third)


@given(BODIES, st.binary(min_size=1, max_size=400))
def test_garbage_behind_the_last_record_is_cut(bodies: list[bytes], garbage: bytes) -> None:
    """After a power cut the unsynced bytes may be anything, and what was synced is all there."""
    data = log(bodies)
    _, found, recovery = read({LOG1: data + garbage})
    assert found == bodies
    assert recovery.torn == Torn(LOG1, len(data), len(garbage))


@pytest.mark.parametrize("count", [1, 3, 4, 11, 12, 13, 100, 4096, 3_000_000])
@pytest.mark.parametrize("records", [0, 1, 50])
def test_zeros_behind_the_last_record_are_cut(count: int, records: int) -> None:
    """The file's new size was on disk before its bytes; zeros are no record and no end mark."""
    data = log([b"x" * n for n in range(1, records + 1)])
    _, found, recovery = read({LOG1: data + bytes(count)})
    assert len(found) == records
    assert recovery.torn == Torn(LOG1, len(data), count)


def test_zeros_are_no_end_mark_whatever_the_epoch() -> None:
    """Zeros are a checksum too: of some record number, which with an unlucky epoch is a possible one."""
    zeros = 3_000_000
    for seed in range(10**6):
        epoch = seed.to_bytes(16, "big")
        salt = zlib.crc32(epoch + (1).to_bytes(8, "big"))
        if 1 < core._number_of(zlib.crc32(bytes(12), salt)) < zeros // 12:
            break
    data = log([], epoch=epoch)
    assert read({LOG1: data + bytes(zeros)})[2].torn == Torn(LOG1, len(data), zeros)


@pytest.mark.parametrize("data", [b"", b"a", bytes(39), bytes(40), bytes(5000)])
def test_a_newest_log_that_was_never_begun_holds_nothing(data: bytes) -> None:
    """It was made, and the host died; what came before it tells the epoch."""
    torn = Torn(LOG2, 0, len(data)) if data else None
    state, found, recovery = read({SNAPSHOT2: snapshot(2, b"state"), LOG2: data})
    assert (state, found) == (b"state", [])
    assert recovery == Recovery(EPOCH, 2, 2, 2, torn=torn)
    assert read({LOG1: log([b"a"], sealed=True), LOG2: data})[1:2] == ([b"a"],)
    assert read({LOG1: data})[2].epoch is None


@pytest.mark.parametrize("seed", range(20))
def test_damage_of_many_records_is_found_by_a_good_one_behind(seed: int) -> None:
    """However long the damage and whatever it became, one good record behind it is enough to refuse."""
    chance = random.Random(seed)
    print("seed", seed)
    bodies = [chance.choice((bytes, chance.randbytes))(chance.choice((1, 7, 300, 70_000))) for _ in range(40)]
    data, ends = log(bodies), offsets(bodies)
    first = chance.randrange(39)
    behind = chance.randrange(first + 1, 40)
    junk = chance.choice((bytes, chance.randbytes, lambda n: struct.pack("<Q", 5) * (n // 8) + bytes(n % 8)))
    damaged = data[: ends[first]] + junk(ends[behind] - ends[first]) + data[ends[behind] :]
    error = refusal({LOG1: damaged})
    assert (error.file, error.offset) == (LOG1, ends[first])
    assert error.reason == f"record {first + 1} is bad, and a good one follows at byte {ends[behind]}"
    # Bytes that are gone altogether are no better.
    assert refusal({LOG1: data[: ends[first]] + data[ends[behind] :]}).offset == ends[first]


@settings(max_examples=60)
@given(BODIES, st.data())
def test_a_search_finds_what_trying_everything_finds(bodies: list[bytes], draw: st.DataObject) -> None:
    """Refused if and only if a later record is anywhere behind, tried offset by offset and number by number."""
    encoder = RecordEncoder(1, EPOCH, len(bodies) + 1)
    later = [b"".join(encoder.encode((bytes(n),))) for n in (1, 1, 2)] + [encoder.seal()]
    pieces = st.one_of(st.binary(max_size=9), st.integers(0, 9).map(bytes), st.sampled_from(later))
    start = len(log(bodies))
    data = log(bodies) + b"\xff" + b"".join(draw.draw(st.lists(pieces, max_size=5)))
    salt = zlib.crc32(EPOCH + struct.pack(">Q", 1))
    expected = False
    for offset in range(start, len(data) - 11):
        length, head, checksum = struct.unpack_from(">III", data, offset)
        body = data[offset + 12 : offset + 12 + length]
        if len(body) == length and zlib.crc32(body, head) == checksum and (length or offset == len(data) - 12):
            most = len(data) // 12 if length else len(bodies) + 1 + (offset - start) // 12
            numbers = range(len(bodies) + 2, most + 1)
            expected |= any(zlib.crc32(struct.pack(">IQ", length, number), salt) == head for number in numbers)
    if expected:
        assert refusal({LOG1: data}).offset == start
    else:
        assert read({LOG1: data})[1] == bodies


def test_a_record_inside_the_body_of_a_torn_record_is_no_record() -> None:
    """What a client sends cannot keep a server from starting again: a length that is right is trusted."""
    later = RecordEncoder(1, EPOCH, 5).encode((b"forged",))
    data = log([b"a", b"".join((*later, b"rest"))])
    for length in range(HEADER_BYTES + 13 + 12, len(data)):
        assert read({LOG1: data[:length]})[1] == [b"a"]
    assert read({LOG1: flipped(data, len(data) - 1, 1)})[1] == [b"a"]


def test_an_older_record_behind_a_bad_one_is_no_sign_of_damage() -> None:
    """Only later numbers are: what lies on a disk from before says nothing."""
    data = log([b"a", b"b", b"c"])
    ends = offsets([b"a", b"b", b"c"])
    tail = b"\xff" * 20 + data[ends[0] : ends[1]]
    assert read({LOG1: data + tail})[1] == [b"a", b"b", b"c"]
    other = log([b"x"] * 9, epoch=bytes(16))[HEADER_BYTES:]
    assert read({LOG1: data + other})[1] == [b"a", b"b", b"c"]


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(min_size=16, max_size=16))
def test_a_record_number_is_found_from_its_checksum(number: int, length: int, epoch: bytes) -> None:
    """For all numbers that a file can hold."""
    salt = zlib.crc32(epoch)
    checksums = [zlib.crc32(struct.pack(">IQ", length, n), salt) for n in (number, 0)]
    assert core._number_of(checksums[0] ^ checksums[1]) == number


def test_a_log_that_another_follows_must_be_complete() -> None:
    """Its end mark tells that nothing is missing; a torn tail is only for the newest."""
    whole = log([b"a", b"b"], sealed=True)
    assert read({LOG1: whole, LOG2: log([b"c"], 2)})[1] == [b"a", b"b", b"c"]
    for length in range(len(whole)):
        error = refusal({LOG1: whole[:length], LOG2: log([b"c"], 2)})
        assert error.file == LOG1
    assert refusal({LOG1: whole + b"x", LOG2: log([], 2)}).reason == "there are bytes behind its end mark"
    assert refusal({LOG1: whole + b"x"}).offset == len(whole)


def test_a_newest_log_with_its_end_mark_is_continued_by_the_next() -> None:
    """The server died between the two."""
    _, found, recovery = read({LOG1: log([b"a"], sealed=True)})
    assert (found, recovery.sealed, recovery.newest) == ([b"a"], True, 1)


@pytest.mark.parametrize("missing", [LOG1, LOG2])
def test_a_missing_log_is_refused(missing: str) -> None:
    """Before the first or in between."""
    files = {LOG1: log([b"a"], sealed=True), LOG2: log([b"b"], 2, sealed=True), LOG3: log([b"c"], 3)}
    del files[missing]
    error = refusal(files)
    assert (error.file, error.offset, error.reason) == (missing, 0, "it is missing")


def test_a_snapshot_without_its_log_is_refused() -> None:
    """The log is begun before the snapshot, so somebody took it away."""
    assert refusal({SNAPSHOT2: snapshot(2, b"s")}).file == LOG2
    assert refusal({LOG1: log([b"a"], sealed=True), SNAPSHOT2: snapshot(2, b"s")}).file == LOG2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (log([b"b"], 3), "it is log 3 by its header, and 2 by its name"),
        (log([b"b"], 2, epoch=bytes(16)), f"its epoch is {'00' * 16}, and that of the other files {EPOCH.hex()}"),
        (snapshot(2, b"b"), "it is no log: its first bytes are b'aiopgSNP'"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(data: bytes, reason: str) -> None:
    """Another number, another epoch, another kind."""
    error = refusal({LOG1: log([b"a"], sealed=True), LOG2: data})
    assert (error.file, error.reason) == (LOG2, reason)


def test_a_journal_of_a_later_version_is_no_damage() -> None:
    """The program is too old for it, and says so."""
    header = struct.pack(">8sIQ16s", b"aiopgLOG", 3, 1, EPOCH)
    with pytest.raises(UsageError, match="is a journal of version 3; this aiopg reads version 2"):
        read({LOG1: header + struct.pack(">I", zlib.crc32(header))})


def test_the_newest_complete_snapshot_is_the_beginning() -> None:
    """What is older does not count, whatever its state; one that is not complete is passed over if nothing is lost."""
    files = {LOG1: b"whatever", SNAPSHOT2: snapshot(2, b"old"), LOG2: log([b"a"], 2, sealed=True)}
    files |= {LOG3: log([b"b"], 3), SNAPSHOT3: snapshot(3, b"new")}
    assert read(files)[:2] == (b"new", [b"b"])
    for length in range(len(files[SNAPSHOT3])):
        assert read(files | {SNAPSHOT3: files[SNAPSHOT3][:length]})[:2] == (b"old", [b"a", b"b"])
    del files[LOG2]
    error = refusal(files | {SNAPSHOT3: files[SNAPSHOT3][:-1]})
    assert error.file == SNAPSHOT3


def test_a_large_snapshot_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pieces are joined and cut as they come; no record is over the bound, and an empty state is a state."""
    monkeypatch.setattr(core, "SNAPSHOT_RECORD_BYTES", 10)
    pieces: list[Buffer] = [b"abc", b"", b"d" * 25, memoryview(b"efghijk"), b"l" * 10]
    data = snapshot(2, *pieces)
    reader = FileReader(Kind.SNAPSHOT, 2, data, None)
    assert [len(body) for body in reader.records()] == [10, 10, 10, 10, 5]
    files = {SNAPSHOT2: data, LOG2: log([], 2)}
    assert read(files)[0] == b"".join(pieces)
    assert read(files | {SNAPSHOT2: snapshot(2)})[0] == b""


def test_other_names_are_not_the_journal_s() -> None:
    """A lock, a snapshot that was never finished, somebody's notes."""
    names = ["journal.lock", SNAPSHOT2 + ".unfinished", "log-1", "log-000000000000000a", "log-0000000000000000", "x"]
    assert core.recover(names, dict[str, bytes]().__getitem__) == Recovery()
    assert core.parse_name(SNAPSHOT2) == (Kind.SNAPSHOT, 2)
