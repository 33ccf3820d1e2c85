"""How a session speaks to its room: batches, numbers, marks, leases, and what a call costs the server."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgpack
import pytest
import redis

from aiopg._core.messages import Abort, Arrive, Inquire, Join, Needs, Put, Reform, Take, Watch
from aiopg._core.parts import Parts
from aiopg.errors import DataExpiredError, FencedError, GroupAbortedError, PeerLostError, RankConflictError

from .driver import Lua, make_script
from .servers import Server
from .speaker import GRACE, Room, error_of, names


@pytest.fixture
def room(server: Server) -> Iterator[Room]:
    with redis.Redis(unix_socket_path=str(server.place / "socket")) as client:
        yield Room(Lua(client, f"calls-{next(names)}", make_script({})))


# ----------------------------------------------------------------------------------------- batches and numbers


def test_a_batch_that_is_sent_again_takes_effect_once(room: Room) -> None:
    """A batch whose answer was lost goes again: it is not applied again, and its events are told again."""
    one, other = room.group(2)
    put = Put(next(room.calls), 1, 1, 0, (b"once",))
    first = one.call(put)
    assert one.call(put) == first
    one.say(put)
    taken = other.say(Take(next(room.calls), 1, 0, 0), Take(next(room.calls), 1, 0, 0))
    assert [event[4] for event in taken] == [b"once"]


@pytest.mark.parametrize("wrong", [{"first": 4}, {"received": 2}, {"mark": 5}])
def test_a_server_that_fell_back_says_so(room: Room, wrong: dict[str, int]) -> None:
    """What the server does not have but had acknowledged, or told, ends the session: nothing is made up."""
    member, _ = room.group(2)
    assert member.call(**wrong)[0] == b"lost"
    assert member.call()[0] == b"ok"


def test_a_session_that_is_not_there_is_lost(room: Room) -> None:
    """One that ended, or that the server forgot, is told why, though what it says may begin a session."""
    member, _ = room.group(2)
    room.lua.end(member.sid, "it was closed")
    assert member.call() == [b"lost", b"it was closed"]
    member.opening = True
    assert member.call(first=1, received=0, mark=0) == [b"lost", b"it was closed"]
    stranger = room.speaker()
    stranger.opening = False
    assert stranger.call()[0] == b"lost"
    assert room.lua.call("beat", stranger.sid, "1000")[0] == b"lost"


def test_an_end_that_overtakes_the_session_holds(room: Room) -> None:
    """A session that ended before the server heard of it does not begin any more; nobody makes the room for that."""
    speaker = room.speaker()
    room.lua.end(speaker.sid, "it was closed")
    assert [name.decode() for name in room.lua.names()] == [f"{room.lua.prefix}:over:{speaker.sid}"]
    assert speaker.call() == [b"lost", b"it was closed"]


def test_a_room_that_is_not_there_is_not_made_by_who_looks(room: Room) -> None:
    """Whoever asks for its state is told that there is none, and a session that it had is lost."""
    assert room.lua.call("describe") == b""
    speaker = room.speaker()
    speaker.opening = False
    assert speaker.call()[0] == b"lost"
    assert room.lua.call("beat", speaker.sid, "1000")[0] == b"lost"
    assert room.lua.names() == []


# ------------------------------------------------------------------------------------------------------ events


def test_events_are_published_with_small_bodies_and_by_number_alone_with_large_ones(room: Room) -> None:
    """Who waits hears at once; what is too large for all who listen is fetched by its session."""
    one, other = room.group(2)
    listener = room.lua.client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(f"{room.lua.prefix}:in:{other.sid}")
    assert listener.get_message(timeout=5) is None
    for body in (b"small", b"l" * 16385):
        take = Take(next(room.calls), 1, 0, 0)
        other.say(take)
        one.say(Put(next(room.calls), 1, 1, 0, (body,)))
        message = None
        while message is None:
            message = listener.get_message(timeout=5)
        published = msgpack.unpackb(message["data"], raw=True)
        (event,) = other.say()
        assert (event[1], event[4]) == (take.call, body)
        assert published == (event if body == b"small" else event[:1])
    listener.close()


def test_a_result_that_all_get_is_kept_once(room: Room) -> None:
    """The parts of an all_gather are on the server once, until the last member has acknowledged them."""
    members = room.group(3)
    for member in members:
        body = (b"x" * 1000,)
        member.say(Arrive(next(room.calls), 1, 0, 1, "all_gather", -1, "", Needs.ALL, 1, body))
    kept = f"{room.lua.prefix}:b:1"
    for member in members[:2]:
        (event,) = member.say()
        assert [bytes(part) for part in Parts((event[4],), 3)] == [b"x" * 1000] * 3
    for member in members:
        assert room.lua.client.hlen(kept) == 2
        if member is members[0]:
            room.lua.end(member.sid, "it was closed")  # it acknowledges nothing any more
            continue
        event_kept = room.lua.client.hget(f"{room.lua.prefix}:s:{member.sid}", "E2")
        assert event_kept is not None
        assert len(event_kept) < 100
        member.say()
    assert not room.lua.client.exists(kept)


# --------------------------------------------------------------------------------------------- leases and time


def test_a_member_that_is_not_heard_of_is_lost(room: Room) -> None:
    """Nothing heard for the grace: its rank is lost for those who need it; a beat is enough to be heard."""
    waits, beats, silent = room.group(3)
    waits.say(room.barrier())
    for _ in range(4):
        room.pass_time(GRACE / 4)
        assert room.lua.call("beat", beats.sid, str(int(GRACE * 1000))) == [b"ok"]
        told = waits.say()
    error = error_of(told[0])
    assert isinstance(error, PeerLostError)
    assert (error.ranks, error.reason) == ((2,), "nothing was heard of it for 8 s")
    assert silent.call() == [b"lost", b"nothing was heard of it for 8 s"]
    assert beats.call()[0] == b"ok"


def test_the_room_says_when_it_wants_the_next_call(room: Room) -> None:
    """At the end of the first lease."""
    one, other = room.group(2)
    room.pass_time(3)
    one.say()
    assert room.lua.due == 5000
    room.pass_time(4)
    other.say()
    assert room.lua.due == 1000


def test_members_outlive_a_server_that_was_away(room: Room) -> None:
    """The first that comes back to a server that was gone for long does not make all the others lost."""
    members = room.group(3)
    room.pass_time(1000)
    for member in members:
        assert member.say() == []
    members[0].say(room.barrier())
    members[1].say(room.barrier())
    (event,) = members[2].say(room.barrier())
    assert event[2] == 0


def test_time_goes_on_when_the_servers_clock_is_set_back(room: Room) -> None:
    """After a failover to a server whose clock is behind: leases run out, and data expires, as they would have."""
    one, other, silent = room.group(3, ttl=6.0)
    one.say(Put(next(room.calls), 1, 1, 0, (b"old",)))
    room.pass_time(2)
    one.say()
    other.say(room.barrier())
    room.pass_time(-600)
    told = []
    for _ in range(4):
        one.say()
        told += other.say()
        room.pass_time(2)
    told += other.say(Take(next(room.calls), 1, 0, 0))
    assert [type(error_of(event)) for event in told] == [PeerLostError, DataExpiredError]
    assert silent.call()[0] == b"lost"


def test_a_joiner_waits_for_a_holder_that_may_be_lost(room: Room) -> None:
    """It is refused when the holder is heard of again, and gets the seat when the holder is lost."""
    for comes_back in (True, False):
        holder, other = room.speaker(), room.speaker()
        other.say()
        joins = [Join(next(room.calls), 1, "h", 0, 2, 60.0, "the holder")]
        holder.say(*joins)
        room.pass_time(GRACE / 2)
        other.say()
        room.pass_time(GRACE / 8)
        assert other.say(Join(next(room.calls), 1, "h", 0, 2, 60.0, "the other")) == []
        if comes_back:
            holder.say()
            (event,) = other.say()
            assert isinstance(error_of(event), RankConflictError)
            room.lua.end(holder.sid, "it was closed")
        else:
            room.pass_time(GRACE / 4)
            other.say()
            room.pass_time(GRACE / 4)
            other.say()
            assert holder.call()[0] == b"lost"
            described = msgpack.unpackb(room.lua.call("describe"), strict_map_key=False)
            assert described["groups"][0]["members"] == {0: "the other"}
        room.lua.end(other.sid, "it was closed")


def test_who_waits_for_a_holder_is_refused_when_another_takes_over(room: Room) -> None:
    """The rank has a new holder, who is there: nobody waits on for the one that was put out."""
    holder, waiting, taker = room.speaker(), room.speaker(), room.speaker()
    holder.say(Join(next(room.calls), 1, "g", 0, 2, 60.0, "the holder"))
    room.pass_time(GRACE / 2)
    waiting.say()
    room.pass_time(GRACE / 8)
    assert waiting.say(Join(next(room.calls), 1, "g", 0, 2, 60.0, "who waits")) == []
    assert taker.say(Join(next(room.calls), 1, "g", 0, 2, 60.0, "the taker", True)) == []
    (event,) = waiting.say()
    error = error_of(event)
    assert isinstance(error, RankConflictError)
    assert error.holder == "the taker"
    (event,) = holder.say()
    assert isinstance(error_of(event), FencedError)


def test_who_is_put_out_while_the_group_is_to_form_anew_is_told_so(room: Room) -> None:
    """The others wait for the new holder then, and form anew with it."""
    holder, other = room.group(2)
    assert holder.say(Reform(next(room.calls), 1, 2, 60.0, "holder 0")) == []
    taker = room.speaker()
    assert taker.say(Join(next(room.calls), 1, "g", 0, 2, 60.0, "the taker", True)) == []
    (event,) = holder.say()
    assert isinstance(error_of(event), FencedError)
    (event,) = other.say(Reform(next(room.calls), 1, 2, 60.0, "holder 1"))
    assert struct.unpack_from(">II", event[4]) == (0, 1)  # the taker is in the next life, which has not formed


def test_the_last_to_leave_is_told_when_the_others_have_their_answers(room: Room) -> None:
    """A needer of ALL_TOLD has its answer when all the others have acknowledged theirs, or are gone."""
    last, one, other = room.group(3)
    waits = room.barrier(needs=Needs.ALL_TOLD)
    assert last.say(waits) == []
    one.say(room.barrier())
    (event,) = other.say(room.barrier())
    assert event[3] == 1
    (event,) = one.say()
    assert event[3] == 1
    for confirmed, awaited in ((None, [1, 2]), (one, [2])):
        if confirmed is not None:
            confirmed.say()
        (event,) = last.say(Inquire(next(room.calls), waits.call))
        assert msgpack.unpackb(event[4]) == [[0, 1, 2], awaited]
    room.lua.end(other.sid, "it was closed")
    (event,) = last.say()
    assert event[2] == 0


def test_what_has_expired_is_told_before_it_is_swept(room: Room) -> None:
    """A part past its time is not handed out, though the room looks for such only eight times in a lifetime."""
    source, reader, late = room.group(3, ttl=4.0)
    (event,) = source.say(Arrive(next(room.calls), 1, 0, 1, "broadcast", 0, "", Needs.NOTHING, 1, (b"old",)))
    room.pass_time(3.9)
    (event,) = reader.say(Arrive(next(room.calls), 1, 0, 1, "broadcast", 0, "", Needs.ROOT, 0))
    assert event[4] == b"old"
    room.pass_time(0.2)
    (event,) = late.say(Arrive(next(room.calls), 1, 0, 1, "broadcast", 0, "", Needs.ROOT, 0))
    assert isinstance(error_of(event), DataExpiredError)


def test_what_has_expired_is_looked_for_eight_times_in_a_lifetime(room: Room) -> None:
    """So the room says when it wants to be called, and frees what nobody took, whoever calls."""
    one, other = room.group(2, ttl=4.0)
    one.say(Put(next(room.calls), 1, 1, 0, (b"old",)))
    assert room.lua.due == 500
    room.pass_time(4.6)
    assert room.lua.call("beat", other.sid, str(int(GRACE * 1000))) == [b"ok"]
    held = room.lua.client.hmget(f"{room.lua.prefix}:i:{room.life()}", "mb", "msgs")
    assert held == [b"0", b"1"]  # that it was there is told to who takes it
    (event,) = other.say(Take(next(room.calls), 1, 0, 0))
    assert isinstance(error_of(event), DataExpiredError)


def test_what_is_in_use_is_not_forgotten(room: Room) -> None:
    """Redis drops what nobody touched for a day: all that a living room is kept in is touched in time."""
    one, other = room.group(2)
    one.say(room.barrier(), Put(next(room.calls), 1, 1, 0, (b"kept",)), Watch(next(room.calls), 1, 99))
    for name in room.lua.names():
        room.lua.client.expire(name, 100)
    for _ in range(2):
        room.pass_time(6 * 3600)
        one.say()
        other.say()
    names = room.lua.names()
    assert len(names) >= 7
    assert [name for name in names if room.lua.client.ttl(name) <= 100] == []


def test_a_server_without_memory_changes_nothing(own_server: Server) -> None:
    """A call that Redis refuses for want of memory has no effect; it can be made again when there is some."""
    with redis.Redis(unix_socket_path=str(own_server.place / "socket")) as client:
        room = Room(Lua(client, "full", make_script({})))
        one, other = room.group(2)
        put = Put(next(room.calls), 1, 1, 0, (b"late",))
        described = room.lua.call("describe")
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.ResponseError, match="maxmemory"):
            one.call(put)
        client.config_set("maxmemory", 0)
        assert room.lua.call("describe") == described
        one.say(put)
        (event,) = other.say(Take(next(room.calls), 1, 0, 0))
        assert event[4] == b"late"


# -------------------------------------------------------------------------------------------------------- cost


def commands_of(room: Room) -> dict[str, int]:
    """How often the server carried each command out, scripts included."""
    told = room.lua.client.info("commandstats")
    return {name: one["calls"] for name, one in told.items() if "info" not in name and "config" not in name}


@pytest.mark.parametrize("collective", ["barrier", "all_gather"])
def test_an_arrival_costs_the_same_whatever_the_size_of_the_group(room: Room, collective: str) -> None:
    """Only the last one to arrive has to do with all the others."""
    costs = []
    for size in (4, 64):
        members = room.group(size)
        body = (b"part",) if collective == "all_gather" else ()
        arrivals = [Arrive(next(room.calls), 1, 0, 1, collective, -1, "", Needs.ALL, len(body), body) for _ in members]
        for member, arrival in zip(members[:2], arrivals[:2], strict=True):
            member.say(arrival)
        room.lua.client.config_resetstat()
        members[2].say(arrivals[2])
        costs.append(commands_of(room))
        assert "cmdstat_hgetall" not in costs[-1]
        for member in members:
            room.lua.end(member.sid, "it was closed")
    assert costs[0] == costs[1]
    assert sum(costs[0].values()) <= 16


def test_the_first_abort_is_told(room: Room) -> None:
    """Calls of an aborted group fail with it, also those that wait, and those of who was not heard of meanwhile."""
    one, other = room.group(2)
    other.say(room.barrier())
    one.say(Abort(next(room.calls), 1, "enough"), Abort(next(room.calls), 1, "more"))
    (event,) = other.say()
    error = error_of(event)
    assert isinstance(error, GroupAbortedError)
    assert (error.origin, error.reason) == (0, "enough")
