"""The engine: a deterministic function of its inputs that no session can break."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from aiopg._core.engine import SWEEP_SECONDS_LEAST, Engine
from aiopg._core.groups import TALLY_STEP
from aiopg._core.keys import NO_KEYS
from aiopg._core.limits import Limits
from aiopg._core.messages import (
    Acknowledge,
    Answer,
    Arrive,
    Cancel,
    Failed,
    Goodbye,
    Join,
    Leave,
    Needs,
    Put,
    Status,
    Take,
    unpack_error,
    unpack_value,
)
from aiopg.errors import AiopgError, GroupClosedError, ProtocolError, StoreFullError

from .cluster import TTL, Cluster, Ticket


def test_only_commands_are_accepted() -> None:
    """Events and the messages of the link are not for an engine."""
    engine = Engine(Limits(), {})
    assert engine.apply("s", Status(1), 0.0)
    for message in (Answer(1, False), Failed(1), Goodbye("bye"), Acknowledge()):
        with pytest.raises(ProtocolError, match="takes no"):
            engine.apply("s", message, 0.0)


def test_a_status_describes_everything() -> None:
    """Groups, members, rounds, messages; and what the shell wants said of itself."""
    cluster = Cluster()
    a, b, _ = cluster.group(3)
    a.put(1, b"12345")
    a.barrier()
    b.leave()
    status = a.status().value
    (group,) = status.pop("groups")
    assert status.pop("limits") == asdict(Limits())
    assert status == {"pid": 1, "rounds": 1, "bytes": 0, "members": 2, "keys": NO_KEYS, "lobbies": []}
    assert group["members"] == {0: "pid 0", 2: "pid 2"}
    assert group["gone"] == {1: "it left the group"}
    assert (group["name"], group["state"], group["incarnation"]) == ("g", "live", 1)
    assert group["rounds"][0] == {
        "tag": 0,
        "number": 1,
        "call": "barrier()",
        "arrived": [0],
        "missing": [1, 2],
        "bytes": 0,
    }


def test_no_timer_is_due_while_nothing_can_expire() -> None:
    """Neither in an empty group, nor where data lives for ever."""
    cluster = Cluster()
    for ttl, due in ((TTL, True), (float("inf"), False)):
        a, b = cluster.group(2, f"g{ttl}", ttl=ttl)
        assert cluster.engine.next_deadline() is None
        a.put(1, b"x")
        assert (cluster.engine.next_deadline() is not None) == due
        b.take(0)


def test_the_timer_comes_on_however_short_the_lifetimes_are() -> None:
    """Else a loop that handles what is due would never end."""
    cluster = Cluster()
    a, _ = cluster.group(2, ttl=1e-300)
    a.put(1, b"x")
    cluster.engine.handle_timer(cluster.now)
    a.put(1, b"x")
    assert cluster.engine.next_deadline() == cluster.now + SWEEP_SECONDS_LEAST
    cluster.advance(1.0)
    assert cluster.describe()["bytes"] == 0


def test_a_number_that_waits_cannot_be_used_for_another_waiting_call() -> None:
    """The first call is not touched and gets its event; no take is left behind that nobody could end."""
    cluster = Cluster()
    a, b = cluster.group(2)
    take = b.take(0)
    for again in (
        Take(take.call, b.seat, 0, "other"),
        Arrive(take.call, b.seat, 0, 1, "barrier", -1, "", Needs.ALL, 0),
        Join(take.call, 77, "h", 0, 2, 1.0, ""),
    ):
        cluster.say(b.session, again)
        event = cluster.events[b.session, take.call].pop()
        assert type(event) is Failed
        assert isinstance(unpack_error(event.body), ProtocolError)
        del cluster.events[b.session, take.call]
    assert (len(cluster.engine._groups), cluster.describe()["mailboxes"], cluster.describe()["rounds"]) == (1, 1, [])
    a.put(1, b"x")
    assert take.answer == b"x"
    assert cluster.is_idle


def test_a_seat_number_names_one_seat() -> None:
    """Taking it twice is refused; the first stays."""
    cluster = Cluster()
    a, b = cluster.group(2)
    join = cluster.say(a.session, Join(cluster.number(), a.seat, "h", 0, 1, 1.0, ""))
    assert isinstance(join.error, ProtocolError)
    a.barrier()
    assert b.barrier().answer == b""


def test_other_sessions_calls_and_seats_are_out_of_reach() -> None:
    """Numbers are looked up in the session that says them."""
    cluster = Cluster()
    a, b = cluster.group(2)
    take = b.take(0)
    a.cancel(take)
    assert take.waits
    assert a.inquire(take).value is None
    assert isinstance(cluster.say(a.session, Leave(cluster.number(), b.seat)).error, GroupClosedError)
    assert isinstance(cluster.say("stranger", Put(1, b.seat, 0, 0, (b"x",))).error, GroupClosedError)
    cluster.file(cluster.engine.confirm("stranger", take.call))
    cluster.file(cluster.engine.end_session("stranger", "gone"))
    a.put(1, b"x")
    assert take.answer == b"x"


def test_a_cancel_has_no_event_of_its_own() -> None:
    """Whatever it names."""
    cluster = Cluster()
    a, b = cluster.group(2)
    cluster.say("stranger", Cancel(5))
    a.cancel(a.barrier())
    a.cancel(b.take(0))
    put = a.put(1, b"x")
    a.cancel(put)
    assert put.answer == b""
    assert all(len(events) == 1 for events in cluster.events.values())


def test_an_inquiry_tells_whom_a_call_waits_for() -> None:
    """None when it waits no more."""
    a, b = Cluster().group(2)
    take, barrier = a.take(1), a.barrier()
    assert a.inquire(take).value == [[], [1]]
    assert a.inquire(barrier).value == [[0], [1]]
    b.barrier()
    assert a.inquire(barrier).value is None


def test_a_lost_session_leaves_every_group_it_was_in() -> None:
    """Live ones, forming ones, with calls of all kinds waiting; it gets no event, the others theirs."""
    cluster = Cluster()
    s = [cluster.member(0, 2, name, session="s") for name in ("a", "b", "forming")]
    t = [cluster.member(1, 2, name, session="t") for name in ("a", "b")]
    last = s[0].barrier(last=True)
    answered = t[0].barrier()
    mine = [s[0].take(1), s[1].barrier(), s[1].take(1, tag=3), last]
    theirs = [t[0].take(0), t[1].all_gather(b"x", 2), t[1].take(0)]
    cluster.lose(s[0], "killed")
    assert all(call.waits for call in mine)
    assert [call.error.fields()["reason"] for call in theirs] == ["killed"] * 3
    cluster.confirm(answered)
    cluster.lose(t[0])
    assert cluster.is_empty


def test_two_seats_of_one_session_in_one_group_go_together() -> None:
    """One session may be many ranks; when it ends, none of their calls is left."""
    cluster = Cluster()
    a, b, c = (cluster.member(rank, 3, session="s" if rank < 2 else "t") for rank in range(3))
    a.barrier(1, last=True), b.barrier(1, last=True)
    confirm = c.barrier(1)
    a.barrier(2), b.barrier(2), a.take(1), b.take(0), b.take(2)
    waits = c.barrier(3)
    cluster.lose(a, "killed")
    assert waits.error.fields()["ranks"] == (0,)
    cluster.confirm(confirm)
    assert cluster.is_idle
    c.leave()
    assert cluster.is_empty


def test_names_that_are_no_text_are_told_and_break_nothing() -> None:
    """Whoever calls the engine directly may give it halves of characters."""
    cluster = Cluster()
    a, b = cluster.group(2, "group \udcff")
    calls = [a.barrier(tag="\ud800"), b.arrive("\udc00", Needs.ALL, tag="\ud800", detail="\udc01")]
    calls.append(b.put(5, b"x", tag="\udfff"))
    cluster.lose(b, "why \udcff")
    calls.append(a.take(1))
    assert all(isinstance(call.error, AiopgError) for call in calls)
    assert a.status().value["groups"][0]["name"] == "group \udcff"


def test_nothing_is_left_after_many_collectives() -> None:
    """Ten thousand barriers and all_gathers leave the engine where it was."""
    members = Cluster().group(2)
    for number in range(1, 5001):
        for member in members:
            member.barrier(2 * number, last=member.rank == 0)
        for member in members:
            member.all_gather(b"x" * 100, 2 * number + 1)
        events = members[0].cluster.events
        for (session, call), (event,) in events.items():
            if type(event) is Answer and event.receipt:
                members[0].cluster.engine.confirm(session, call)
        events.clear()
    assert members[0].cluster.is_idle


def test_a_ticket_tells_plain_values() -> None:
    """A status is plain values only: it can be read without any of our classes."""
    cluster = Cluster()
    ticket: Ticket = cluster.say("anybody", Status(1))
    assert unpack_value((ticket.answer,)) == {
        "pid": 1,
        "groups": [],
        "rounds": 0,
        "bytes": 0,
        "members": 0,
        "keys": NO_KEYS,
        "lobbies": [],
        "limits": asdict(Limits()),
    }


def test_what_is_refused_is_not_counted() -> None:
    """Neither a message nor an arrival stays in the store's total after an error: it is counted before the rest."""
    cluster = Cluster(mailbox_messages=1)
    first, _ = cluster.group(2)
    size = 2 * TALLY_STEP
    first.put(1, bytes(size))
    assert cluster.engine._groups.tally == size
    assert isinstance(first.put(1, bytes(size)).error, StoreFullError)
    assert cluster.engine._groups.tally == size
    assert isinstance(first.arrive("scatter", Needs.ALL, parts=[bytes(size)] * 3).error, ProtocolError)
    assert cluster.engine._groups.tally == size
    first.put(1, bytes(size), tag=1)
    assert cluster.engine._groups.tally == 2 * size
