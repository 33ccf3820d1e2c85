"""Replicas: copies of a room's engine that apply one log are equal, whoever has them and whenever they began."""

from __future__ import annotations

import math
import random
import struct
import time

import pytest

from aiopg._core.blobs import INLINE_BYTES, Blob, blobs_in, fill
from aiopg._core.entries import Entry, Gone, Got, Here, Said, decode_entry, encode_entry, pack_input
from aiopg._core.frames import Body
from aiopg._core.key_messages import STORE, CheckKeys, Lock, Pop, Push, QueueLength, SetKeys
from aiopg._core.messages import (
    Arrive,
    Enlist,
    Failed,
    Join,
    Leave,
    Needs,
    Put,
    Take,
    Withdrawn,
    unpack_error,
    unpack_value,
)
from aiopg._core.parts import join_parts, split_parts
from aiopg._core.replica import ENDED_KEPT, Replica
from aiopg._core.stategraph import dump, load, load_replica
from aiopg.errors import (
    AiopgError,
    DataExpiredError,
    PeerLostError,
    ProtocolError,
    RankConflictError,
    UsageError,
)
from tests.core.room import LIMITS, Log, Writer, random_life, state_of

LARGE = INLINE_BYTES + 1


def seed_of(turn: int) -> int:
    """Printed, so that a failure can be played again."""
    seed = time.time_ns() % 2**32 + turn
    print(f"seed {seed}")
    return seed


def error_of(writer: Writer, call: int) -> AiopgError:
    """What a call failed with."""
    event = writer.heard(call)
    assert isinstance(event, Failed), event
    return unpack_error(event.body)


def group(log: Log, size: int, ttl: float = 100.0) -> list[Writer]:
    """Sessions that are the ranks of group "g", seat 1."""
    writers = [Writer(log, b"member %d" % rank) for rank in range(size)]
    joins = [writer.say(Join, 1, "g", rank, size, ttl, "me", False) for rank, writer in enumerate(writers)]
    for writer, join in zip(writers, joins, strict=True):
        writer.answer(join)
    return writers


# ------------------------------------------------------------------------------------------------- copies are equal


@pytest.mark.parametrize("turn", range(6))
def test_all_copies_are_equal_behind_equal_entries(turn: int) -> None:
    """However far one is ahead of the other; and they tell the same events. Nothing of them depends on who has them."""
    seed = seed_of(turn)
    log = random_life(seed, 150)
    chance = random.Random(seed)
    copies = [(log.replica(), [0]) for _ in range(3)]
    states: dict[int, bytes] = {}
    told: dict[int, object] = {}
    while any(place < len(log.entries) for _, (place,) in copies):
        replica, at = chance.choice(copies)
        for _ in range(min(chance.randrange(1, 20), len(log.entries) - at[0])):
            events = log.apply(replica, at[0])
            assert told.setdefault(at[0], repr(events)) == repr(events)
            at[0] += 1
        assert states.setdefault(at[0], state_of(replica)) == state_of(replica)
    assert state_of(copies[0][0]) == state_of(log.copy)
    assert len(log.events) > 50


@pytest.mark.parametrize("turn", range(6))
def test_who_begins_with_a_snapshot_is_as_who_heard_it_all(turn: int) -> None:
    """Wherever the snapshot was made, and be it one of one that began with a snapshot itself."""
    seed = seed_of(turn)
    log = random_life(seed, 150)
    chance = random.Random(seed)
    replica, heard_all = log.replica(), log.replica()
    for place in range(len(log.entries)):
        if chance.random() < 0.2:
            replica = log.replica(state_of(replica))
        assert repr(log.apply(replica, place)) == repr(log.apply(heard_all, place))
        assert state_of(replica) == state_of(heard_all)
    assert replica.now == log.copy.now


@pytest.mark.parametrize("turn", range(4))
def test_an_entry_that_was_written_twice_takes_effect_once(turn: int) -> None:
    """Whatever lies between: a snapshot, other entries, the end of its session."""
    seed = seed_of(turn)
    log = random_life(seed, 150)
    chance = random.Random(seed)
    replica = log.replica()
    for place in range(len(log.entries)):
        log.apply(replica, place)
        if chance.random() < 0.2:
            replica = log.replica(state_of(replica))
        before = state_of(replica)
        for again in {place, chance.randrange(place + 1)}:
            assert log.apply(replica, again) == []
        assert state_of(replica) == before
    assert before == state_of(log.copy)


def test_a_log_that_has_lost_an_entry_is_refused() -> None:
    """A gap is told and changes nothing."""
    log = Log()
    (member,) = group(log, 1)
    before = state_of(log.copy)
    member.entries += 1
    with pytest.raises(ProtocolError, match=r"entry 3 .* behind entry 1: the log has lost some"):
        member.say(Leave, 1)
    assert state_of(log.copy) == before


def test_numbers_of_lives_go_on_behind_those_of_an_earlier_room() -> None:
    """So a lock's number is larger than that of every holder before, though the room was gone meanwhile."""
    log = Log()
    log.copy = Replica(LIMITS, {}, 41)
    (member,) = group(log, 1)
    lock = member.say(Lock, 1, "l")
    assert unpack_value(member.answer(lock).body) == (42 << 32) + 1
    assert log.copy.engine.last_number == 42


# --------------------------------------------------------------------------------------------------- ends and time


def test_a_session_ends_at_its_place_in_the_order() -> None:
    """What it said before counts, and is told; what needs it later fails with the reason."""
    log = Log()
    first, second = group(log, 2)
    first.say(Put, 1, 1, 0, body=(b"last words",))
    second.write([Gone(first.sid, "its lease of 5 s ended"), Gone(first.sid, "said twice")])
    assert second.answer(second.say(Take, 1, 0, 0)).body == (b"last words",)
    error = error_of(second, second.say(Take, 1, 0, 0))
    assert isinstance(error, PeerLostError)
    assert (error.ranks, error.reason) == ((0,), "its lease of 5 s ended")
    assert list(log.copy.sessions) == [second.sid]


def test_a_session_that_is_over_does_not_come_again() -> None:
    """Its first entry, written a second time by who does not know, opens nothing; so many are remembered."""
    log = Log()
    first, second = group(log, 2)
    second.write([Gone(first.sid, "it left")])
    before = state_of(log.copy)
    assert log.write(*log.entries[0]) == []
    assert state_of(log.copy) == before
    for number in range(ENDED_KEPT + 5):
        other = Writer(log, number.to_bytes(8, "big"))
        other.write([Gone(other.sid, "it left"), Said(Push(1, STORE, "q", (b"x",)))])
    assert len(log.copy.ended) == ENDED_KEPT
    length = second.say(QueueLength, STORE, "q")
    assert unpack_value(second.answer(length).body) == 0, "what follows its own end is not heard"


def test_the_rooms_time_is_the_largest_that_was_told() -> None:
    """An entry whose sender is behind the others does not turn it back."""
    log = Log()
    first, second = group(log, 2)
    first.write([], 7.5)
    second.write([], 3.0)
    assert log.copy.now == 7.5


def test_who_comes_where_nobody_was_knows_how_long_that_was() -> None:
    """By the latest date that anybody has told: a calendar that is behind makes no time."""
    log = Log()
    assert log.copy.now_after(1e9) == 0.0
    first, second = (Writer(log, sid) for sid in (b"first", b"second"))
    for number, (writer, now, date) in enumerate([(first, 5.0, 1000.0), (second, 6.0, 7.0)]):
        writer.entries += 1
        log.write(writer.sid, 1, encode_entry(now, date, []))
        assert len(log.copy.sessions) == number + 1
    assert log.copy.now_after(1060.0) == 66.0
    assert log.copy.now_after(10.0) == 6.0


def test_an_entry_without_inputs_moves_time_on() -> None:
    """What nobody took expires, and its reader is told; keys end; a lobby opens. Each when `next_deadline` says so."""
    log = Log()
    first, second = group(log, 2, ttl=1.0)
    assert log.copy.next_deadline() is None
    first.say(Put, 1, 1, 0, body=(b"x",), now=10.0)
    first.say(SetKeys, STORE, 1, 0.5, True, body=tuple(map(bytes, join_parts([b"k", b"v"]))))
    enlisted = second.say(Enlist, 5, "other", 1, 4, 0.25, 9.0, "me", body=(b"",))
    assert log.copy.next_deadline() == pytest.approx(10.25, abs=0.2)
    for _ in range(40):
        due = log.copy.next_deadline()
        if due is None:
            break
        second.write([], due)
    else:
        pytest.fail("there is always something due")
    assert 11.0 <= log.copy.now < 12.0
    second.answer(enlisted)
    assert unpack_value(first.answer(first.say(CheckKeys, STORE, 1, body=(struct.pack(">I", 1), b"k"))).body) is False
    assert isinstance(error_of(second, second.say(Take, 1, 0, 0)), DataExpiredError)


def test_what_is_past_its_time_goes_before_the_entry_that_says_so_takes_effect() -> None:
    """So a busy room needs no entries for its timers."""
    log = Log()
    first, second = group(log, 2, ttl=1.0)
    first.say(Put, 1, 1, 0, body=(b"x",))
    take = second.say(Take, 1, 0, 0, now=log.copy.now + 2.0)
    assert isinstance(error_of(second, take), DataExpiredError)


# ------------------------------------------------------------------------------------------------------------- away


def test_a_joiner_waits_for_a_holder_that_does_not_say_that_it_is_there() -> None:
    """And has the rank in the next life when that one's session is over."""
    log = Log()
    (holder,) = group(log, 1)
    joiner = Writer(log, b"joiner 1")
    join = joiner.say(Join, 1, "g", 0, 1, 100.0, "me", False)
    assert joiner.heard(join) is None
    assert log.copy.is_suspect(holder.sid)
    joiner.write([Gone(holder.sid, "its lease ended")])
    assert unpack_value(joiner.answer(join).body) == 2
    assert not log.copy.is_suspect(holder.sid)


def test_a_joiner_is_refused_when_the_holder_says_that_it_is_there() -> None:
    """At once, and named; so is one of the same session. A takeover, and another world_size, wait for nobody."""
    log = Log()
    (holder,) = group(log, 1)
    joiner = Writer(log, b"joiner 1")
    join = joiner.say(Join, 1, "g", 0, 1, 100.0, "me", False)
    holder.write([Here()])
    assert isinstance(error_of(joiner, join), RankConflictError)
    assert not log.copy.is_suspect(holder.sid)
    assert isinstance(error_of(holder, holder.say(Join, 2, "g", 0, 1, 100.0, "me", False)), RankConflictError)
    assert isinstance(joiner.heard(joiner.say(Join, 1, "g", 0, 2, 100.0, "me", False)), Failed)
    joiner.answer(joiner.say(Join, 2, "g", 0, 1, 100.0, "me", True))
    assert not log.copy.is_suspect(holder.sid)


# ------------------------------------------------------------------------------------------------------------ blobs


def filled(writer: Writer, body: Body, writers: list[Writer]) -> bytes:
    """A body with what lies elsewhere."""
    return b"".join(fill(body, {blob: writer.read(blob, writers) for blob in blobs_in(body)}))


def alive(replica: Replica) -> set[tuple[bytes, int]]:
    """What a snapshot says is still needed."""
    met: list[Blob] = []
    dump(replica, replica.now, met)
    return {(blob.sid, blob.number) for blob in met}


def test_a_large_message_lies_elsewhere_until_its_reader_has_it() -> None:
    """The log holds a reference; limits count the bytes; what is needed is in a snapshot, until `Got`."""
    log = Log()
    first, second = members = group(log, 2)
    payload = random.randbytes(LARGE)
    first.say(Put, 1, 1, 0, body=(payload[:10], payload[10:]))
    assert len(log.entries[-1][2]) < 200
    assert log.copy.engine.describe()["bytes"] == LARGE
    assert alive(log.copy) == {(first.sid, 1)}
    take = second.say(Take, 1, 0, 0)
    body = second.answer(take).body
    assert filled(second, body, members) == payload
    log.copy = log.replica(state_of(log.copy))
    assert alive(log.copy) == {(first.sid, 1)}
    first.write([Got(take)])
    assert alive(log.copy) == {(first.sid, 1)}, "another session's word does not count"
    second.write([Got(take)])
    assert alive(log.copy) == set()
    assert log.copy.sessions[first.sid].blobs == 1


def test_the_parts_of_a_round_may_lie_elsewhere() -> None:
    """Each rank gets those that it needs, large and small and empty ones, in rank order."""
    log = Log()
    members = group(log, 3)
    large, other = random.randbytes(LARGE), random.randbytes(LARGE + 5)
    given = [[large], [b"small"], [other]]
    gathers = [
        member.say(Arrive, 1, 0, 1, "all_gather", -1, "", Needs.ALL, 1, body=tuple(parts))
        for member, parts in zip(members, given, strict=True)
    ]
    for member, call in zip(members, gathers, strict=True):
        body = member.answer(call).body
        assert len(blobs_in(body)) == 2
        assert split_parts((filled(member, body, members),), 3) == [large, b"small", other]
        member.write([Got(call)])
    assert alive(log.copy) == set()
    parts = [bytes(part) for part in join_parts([b"", large, other])]
    scatters = [
        member.say(Arrive, 1, 0, 2, "scatter", 0, "", Needs.ROOT, 3 if body else 0, body=body)
        for member, body in zip(members, (tuple(parts), (), ()), strict=True)
    ]
    told = [member.answer(call).body for member, call in zip(members, scatters, strict=True)]
    assert [filled(members[0], body, members) for body in told] == [b"", large, other]
    members[0].write([Gone(members[1].sid, "it left")])
    assert {number for _, number in alive(log.copy)} == {2}
    members[2].write([Got(scatters[2])])
    assert alive(log.copy) == set(), "one that is over needs nothing any more"


def test_what_is_taken_back_or_expires_is_needed_no_more() -> None:
    """Nobody will read it."""
    log = Log()
    first, _ = group(log, 2, ttl=1.0)
    first.say(Put, 1, 1, 0, body=(bytes(LARGE),))
    assert len(alive(log.copy)) == 1
    first.write([], log.copy.now + 1.5)
    assert alive(log.copy) == set()


def test_a_popped_item_goes_back_if_its_reader_ends_before_it_has_it() -> None:
    """`Got` is the receipt that the answer asks for."""
    log = Log()
    first, second = group(log, 2)
    first.say(Push, STORE, "q", body=(b"item",))
    pop = second.say(Pop, STORE, True, "q")
    assert second.answer(pop).receipt
    first.write([Gone(second.sid, "its lease ended")])
    got = first.say(Pop, STORE, True, "q")
    assert first.answer(got).body[0][8:] == b"item"
    first.write([Got(got), Gone(first.sid, "it left")])
    third = Writer(log, b"third")
    waits = third.say(Pop, STORE, True, "q")
    assert third.heard(waits) is None


# ------------------------------------------------------------------------------------------------- bytes, and nonsense


def test_entries_that_make_no_sense_are_refused() -> None:
    """Whatever bytes: an error of ours, and nothing else."""
    good = encode_entry(
        1.0, 2.0, [pack_input(Said(Put(1, 1, 1, 0, (b"abc", b"d"))), 4096), pack_input(Gone(b"s", "r"), 0)]
    )
    entry = decode_entry(good, b"sender")
    assert entry == Entry(1.0, 2.0, (Said(Put(1, 1, 1, 0, (b"abc", b"d"))), Gone(b"s", "r")))
    seed = seed_of(0)
    chance = random.Random(seed)
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        for data in (bytes(bad), bytes(bad[: chance.randrange(len(bad))])):
            try:
                decode_entry(data, b"sender")
            except (ProtocolError, UsageError):
                pass
    for data in (
        good + b"x",
        encode_entry(math.inf, 0.0, []),
        encode_entry(0.0, math.nan, []),
        encode_entry(0.0, 0.0, [pack_input(Said(Withdrawn(1)), 99)]),  # type: ignore[arg-type]
    ):
        with pytest.raises(ProtocolError, match="not an entry"):
            decode_entry(data, b"sender")
    with pytest.raises(UsageError, match="version 2"):
        decode_entry(good.replace(b"\x94\x01", b"\x94\x02", 1), b"sender")


def test_a_snapshot_of_a_replica_is_none_of_an_exchange() -> None:
    """Nor the other way round."""
    log = Log()
    group(log, 1)
    with pytest.raises(ProtocolError, match="not a snapshot of an exchange"):
        load(state_of(log.copy), LIMITS, {})
    with pytest.raises(ProtocolError, match="not a snapshot"):
        load_replica(b"bad", LIMITS, {})
