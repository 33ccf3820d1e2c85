"""A snapshot that is made of another and of records stands for the same state, wherever the records are cut."""

from __future__ import annotations

import time

import pytest

from aiopg._core import compaction
from aiopg._core.compaction import compact, is_due, restore
from aiopg._core.exchange import Exchange
from aiopg._core.frames import Buffer
from aiopg._core.records import encode_held, encode_timer
from aiopg._core.stategraph import VERSION, dump
from aiopg.errors import JournalCorruptError, UsageError
from tests.core.life import ABOUT, LIMITS, Life


def compacted(snapshot: Buffer | None, records: list[bytes]) -> bytes:
    """In one piece."""
    return b"".join(compact(snapshot, records, LIMITS, ABOUT))


@pytest.mark.parametrize("turn", range(10))
def test_a_chain_of_snapshots_is_the_state_of_the_live_one(turn: int) -> None:
    """Each is made of the one before it, cut anywhere; the last is what the live exchange would write, to the byte."""
    seed = time.time_ns() % 2**32 + turn
    print(f"seed {seed}")
    live = Life(seed)
    snapshot: bytes | None = None
    for _ in range(6):
        seen = len(live.records)
        for _ in range(live.chance.randrange(120)):
            live.step()
        snapshot = compacted(snapshot, live.records[seen:])
        live.exchange.take_overfull()
        _, now = restore(snapshot, (), LIMITS, ABOUT)
        assert now <= live.now
        assert snapshot == b"".join(dump(live.exchange, now))
    assert snapshot == compacted(None, live.records)


def test_the_time_is_the_last_that_was_said() -> None:
    """By a record, or by the snapshot if no record says one."""
    timers = [b"".join(encode_timer(now)) for now in (4.0, 9.5)]
    assert restore(None, (), LIMITS, ABOUT)[1] == 0.0
    snapshot = compacted(None, timers)
    assert restore(snapshot, (), LIMITS, ABOUT)[1] == 9.5
    held = b"".join(encode_held(Exchange(LIMITS, ABOUT)))
    assert restore(snapshot, [held], LIMITS, ABOUT)[1] == 9.5


def test_what_members_hold_is_not_in_a_snapshot() -> None:
    """A record says what was acknowledged since the last command, and what that was for is gone."""
    live = Life(3)
    for _ in range(200):
        live.step()
    before = compacted(None, live.records)
    for line in live.exchange.lines.values():
        line.streams.note_acknowledgement(line.streams.sent)
    assert sum(line.streams.sent for line in live.exchange.lines.values()) > 0
    after = compacted(before, [b"".join(encode_held(live.exchange))])
    assert len(after) < len(before)
    exchange, _ = restore(after, (), LIMITS, ABOUT)
    for line in exchange.lines.values():
        assert line.streams.resend(line.streams.sent) == []


def test_what_makes_no_sense_is_damage_and_is_named() -> None:
    """The record by its number, the snapshot as such; a snapshot of another version is none of it."""
    good = b"".join(encode_timer(1.0))
    with pytest.raises(JournalCorruptError, match="record 3 since the snapshot") as caught:
        restore(None, [good, good, b"bad", good], LIMITS, ABOUT)
    assert "cannot be replayed" in caught.value.reason
    with pytest.raises(JournalCorruptError, match="of snapshot: not a snapshot"):
        restore(b"bad", [good], LIMITS, ABOUT)
    other = compacted(None, []).replace(bytes((0x94, VERSION)), bytes((0x94, VERSION + 1)), 1)
    with pytest.raises(UsageError, match=f"version {VERSION + 1}"):
        restore(other, (), LIMITS, ABOUT)


def test_a_snapshot_is_due_when_the_logs_are_long_and_twice_as_long_as_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """So what is written for snapshots is at most half of what is written for logs."""
    monkeypatch.setattr(compaction, "ROTATE_BYTES", 100)
    assert [is_due(size, 10) for size in (100, 101)] == [False, True]
    assert [is_due(size, 80) for size in (160, 161)] == [False, True]
