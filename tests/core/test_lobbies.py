"""Groups that form of whoever comes, and anew when members come or go."""

from __future__ import annotations

import pytest

from aiopg._core.messages import Abort, Cancel, Enlist, Join, Leave, Message, Reform, Watch
from aiopg._core.parts import split_parts
from aiopg.errors import (
    AiopgError,
    AuthenticationError,
    FencedError,
    GroupAbortedError,
    GroupClosedError,
    PayloadTooLargeError,
    PeerLostError,
    ProtocolError,
    RankConflictError,
    StoreFullError,
    UsageError,
)

from .cluster import Cluster, Member, Ticket

PATIENCE = 2.0


class Comer:
    """A session that asks for a place."""

    def __init__(self, cluster: Cluster, session: str) -> None:
        self.cluster = cluster
        self.session = session
        self.ticket: Ticket

    def say(self, message: Message) -> Ticket:
        return self.cluster.say(self.session, message)  # type: ignore[arg-type]

    def enlist(self, least: int = 2, most: int = 3, *, seat: int = 1, group: str = "g", said: bytes = b"") -> Ticket:
        self.ticket = self.say(
            Enlist(self.cluster.number(), seat, group, least, most, PATIENCE, 100.0, self.session, (said,))
        )
        return self.ticket

    def reform(self, seat: int = 1, said: bytes = b"") -> Ticket:
        self.ticket = self.say(Reform(self.cluster.number(), seat, seat + 1, 100.0, self.session, (said,)))
        return self.ticket

    def end(self) -> None:
        self.cluster.file(self.cluster.engine.end_session(self.session, "it was killed"))


def place(ticket: Ticket) -> tuple[int, int, int, list[bytes]]:
    """rank, world_size, incarnation, and what each rank said of itself."""
    answer = ticket.answer
    rank, size, number = int.from_bytes(answer[:4]), int.from_bytes(answer[4:8]), int.from_bytes(answer[8:16])
    return rank, size, number, [bytes(part) for part in split_parts((answer[16:],), size)]


def comers(cluster: Cluster, count: int) -> list[Comer]:
    return [Comer(cluster, f"s{number}") for number in range(count)]


def formed(count: int, **limits: int) -> tuple[Cluster, list[Comer]]:
    """A group of as many as there may be."""
    cluster = Cluster(**limits)
    members = comers(cluster, count)
    for member in members:
        member.enlist(least=2, most=count)
    assert [place(member.ticket)[:3] for member in members] == [(rank, count, 1) for rank in range(count)]
    return cluster, members


def test_ranks_are_given_out_in_order_of_arrival() -> None:
    """At once when as many are there as there may be; each hears what all said of themselves."""
    cluster = Cluster()
    members = comers(cluster, 3)
    for number, member in enumerate(members):
        assert number == 0 or members[number - 1].ticket.waits
        member.enlist(least=1, most=3, said=b"%d" % number)
    assert [place(member.ticket) for member in members] == [(rank, 3, 1, [b"0", b"1", b"2"]) for rank in range(3)]


def test_enough_wait_a_moment_for_more() -> None:
    """Each that comes begins the moment anew."""
    cluster = Cluster()
    a, b, c = comers(cluster, 3)
    a.enlist(2, 4)
    cluster.advance(100)
    assert cluster.engine.describe()["lobbies"] == [{"group": "g", "waiting": ["s0"], "awaited": 2}]
    assert cluster.engine.describe(("h",))["lobbies"] == []
    b.enlist(2, 4)
    cluster.advance(PATIENCE - 0.1)
    c.enlist(2, 4)
    cluster.advance(PATIENCE - 0.1)
    assert c.ticket.waits
    cluster.advance(0.2)
    assert [place(member.ticket)[0] for member in (a, b, c)] == [0, 1, 2]


def test_who_gives_up_leaves_no_trace_in_the_lobby() -> None:
    """The others wait on; it is told how many had come and how many were awaited."""
    cluster = Cluster()
    a, b, c = comers(cluster, 3)
    a.enlist(3, 3)
    b.enlist(3, 3)
    cluster.say(a.session, Cancel(a.ticket.call))
    assert a.ticket.facts == [[0, 1], [2]]
    b.end()
    c.enlist(3, 3)
    cluster.advance(100)
    assert c.ticket.waits
    c.end()
    assert cluster.is_empty
    assert cluster.engine._groups.tally == 0


def test_who_comes_with_other_numbers_is_refused() -> None:
    """The error names both."""
    cluster = Cluster()
    a, b = comers(cluster, 2)
    a.enlist(2, 3)
    refused = b.enlist(2, 4).error
    assert isinstance(refused, UsageError)
    assert "min_size 2 and max_size 3, not 2 and 4" in str(refused)


def test_a_group_of_that_name_is_waited_for() -> None:
    """There is one at a time: the next begins when the last member of this one has gone."""
    cluster, (a, b, c) = formed(3)
    more = [Comer(cluster, name) for name in ("x", "y")]
    for comer in more:
        comer.enlist(2, 3)
    cluster.advance(10)
    for member in (a, b):
        member.end()
        cluster.advance(10)
    assert more[1].ticket.waits
    c.say(Leave(cluster.number(), 1))
    cluster.advance(0.1)
    assert [place(comer.ticket)[:3] for comer in more] == [(0, 2, 2), (1, 2, 2)]


def test_members_hear_that_somebody_waits() -> None:
    """Once, until they have formed anew."""
    cluster, (a, b) = formed(2)
    watch = a.say(Watch(cluster.number(), 1, 2))
    assert watch.waits
    for name in ("x", "y"):
        Comer(cluster, name).enlist(2, 4)
    assert watch.value == [["waiting", -1, "x"]]
    assert b.say(Watch(cluster.number(), 1, 3)).waits


def test_the_survivors_form_anew_in_the_order_of_their_ranks() -> None:
    """Those that are lost meanwhile are not waited for."""
    cluster, (a, b, c, d) = formed(4)
    b.end()
    d.reform(said=b"d")
    a.reform(said=b"a")
    assert a.ticket.waits
    c.end()
    assert [place(member.ticket) for member in (a, d)] == [(0, 2, 2, [b"a", b"d"]), (1, 2, 2, [b"a", b"d"])]
    old = Member.__new__(Member)
    old.cluster, old.session, old.seat = cluster, a.session, 1
    assert isinstance(old.take(1).error, PeerLostError)


def test_a_group_that_was_aborted_forms_anew_whole() -> None:
    """The abort stays with the old one."""
    cluster, (a, b) = formed(2)
    a.say(Abort(cluster.number(), 1, "enough"))
    a.reform()
    b.reform()
    assert [place(member.ticket)[:2] for member in (a, b)] == [(0, 2), (1, 2)]
    new = Member.__new__(Member)
    new.cluster, new.session, new.seat = cluster, a.session, 2
    assert new.put(1, b"").answer == b""
    new.seat = 1
    assert isinstance(new.put(1, b"").error, GroupAbortedError)


def test_who_waits_in_the_lobby_comes_in_when_the_group_forms_anew() -> None:
    """Behind the members, as many as fit; the others wait on."""
    cluster, (a, b, c) = formed(3)
    b.end()
    more = [Comer(cluster, name) for name in ("x", "y")]
    for comer in more:
        comer.enlist(2, 3)
    a.reform()
    c.reform()
    assert [place(member.ticket)[0] for member in (a, c, more[0])] == [0, 1, 2]
    assert more[1].ticket.waits
    for member in (a, c, more[0]):
        member.end()
    more[0].enlist(2, 3)
    cluster.advance(PATIENCE)
    assert [place(member.ticket)[:2] for member in reversed(more)] == [(0, 2), (1, 2)]


def test_a_member_that_leaves_is_not_waited_for_and_gets_no_place() -> None:
    """Its own call says why."""
    cluster, (a, b, c) = formed(3)
    a.reform()
    b.reform()
    a.say(Leave(cluster.number(), 1))
    assert isinstance(a.ticket.error, GroupClosedError)
    assert b.ticket.waits
    c.reform()
    assert place(c.ticket)[:2] == (1, 2)
    for member in (a, b, c):
        member.end()
    assert cluster.is_empty


def test_who_gives_up_forming_anew_is_waited_for() -> None:
    """It is told whom it waited for, and may ask again."""
    cluster, (a, b) = formed(2)
    a.reform()
    assert isinstance(a.say(Reform(cluster.number(), 1, 7, 1.0, "a")).error, UsageError)
    cluster.say(a.session, Cancel(a.ticket.call))
    assert a.ticket.facts == [[0], [1]]
    b.reform()
    assert b.ticket.waits
    a.reform()
    assert place(b.ticket)[:2] == (1, 2)


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (UsageError, {"least": 0}),
        (UsageError, {"least": 3, "most": 2}),
        (UsageError, {"most": 16385}),
        (UsageError, {"group": ""}),
        (UsageError, {"group": "x" * 129}),
        (PayloadTooLargeError, {"said": b"x" * 4097}),
    ],
)
def test_what_makes_no_sense_is_refused(error: type[AiopgError], fields: dict[str, object]) -> None:
    """And changes nothing."""
    cluster = Cluster()
    refused = Comer(cluster, "s").enlist(**{"least": 1, "most": 2, **fields})  # type: ignore[arg-type]
    assert type(refused.error) is error
    assert cluster.is_empty


def test_a_seat_is_asked_for_once() -> None:
    """One that is taken, or waits in a lobby, is no other's."""
    cluster, (a, b) = formed(2)
    assert isinstance(a.enlist(group="h").error, ProtocolError)
    b.enlist(seat=2, group="h")
    assert isinstance(b.enlist(seat=2, group="i").error, ProtocolError)
    b.end()
    a.end()
    assert cluster.is_empty


def test_a_token_for_other_groups_gives_no_place() -> None:
    """Nor does a store that may have no more groups."""
    cluster = Cluster(groups=1)
    cluster.engine.restrict("s", ("h",))
    assert isinstance(Comer(cluster, "s").enlist().error, AuthenticationError)
    cluster.group(1, "other")
    assert isinstance(Comer(cluster, "t").enlist(1, 1).error, StoreFullError)
    assert cluster.engine._groups.tally == 0


def test_a_member_that_was_put_out_while_it_forms_anew_is_told_that() -> None:
    """By whom, as its other calls are; the others form without it."""
    cluster, (a, b) = formed(2)
    a.reform()
    cluster.say("other", Join(cluster.number(), 1, "g", 0, 2, 100.0, "the other", True))
    refused = a.ticket.error
    assert isinstance(refused, FencedError)
    assert "the other" in str(refused)
    b.reform()
    assert place(b.ticket)[:2] == (0, 1)


def test_a_takeover_that_lets_the_others_form_anew_has_its_seat() -> None:
    """It is not refused, when its rank was put out already, for what formed in that moment."""
    cluster, (a, b, c) = formed(3)
    b.reform()
    c.reform()
    join = cluster.say("other", Join(cluster.number(), 1, "g", 0, 3, 100.0, "the other", True))
    assert join.waits
    assert [place(member.ticket)[:2] for member in (b, c)] == [(0, 2), (1, 2)]
    assert isinstance(a.say(Leave(cluster.number(), 1)).error, FencedError)


def test_a_takeover_that_would_come_to_the_next_life_and_find_its_rank_held_puts_nobody_out() -> None:
    """As long as the members of the old life have not left it, the rank is held in both."""
    cluster, (a, b) = formed(2)
    a.reform()
    b.reform()
    again = [a.say(Reform(cluster.number(), 1, 7, 100.0, "a", (b"",)))]
    join = cluster.say("other", Join(cluster.number(), 1, "g", 0, 2, 100.0, "the other", True))
    assert isinstance(join.error, RankConflictError)
    again.append(b.say(Reform(cluster.number(), 1, 7, 100.0, "b", (b"",))))
    assert [place(ticket)[:2] for ticket in again] == [(0, 2), (1, 2)]


def test_a_session_asks_for_no_more_places_than_it_may_have() -> None:
    """Those that it has, and those that it waits for; one that it waits for no more counts no more."""
    cluster = Cluster(seats=2)
    (comer,) = comers(cluster, 1)
    comer.enlist(1, 1, group="g")
    waits = comer.enlist(group="h", seat=2)
    refused = comer.enlist(group="i", seat=3).error
    assert isinstance(refused, StoreFullError)
    assert refused.limit == "seats"
    comer.say(Cancel(waits.call))
    assert comer.enlist(group="i", seat=3).waits


def test_lobbies_are_limited_in_number() -> None:
    """As groups are; a lobby that is there takes more."""
    cluster = Cluster(groups=2)
    one, other = comers(cluster, 2)
    one.enlist(group="g")
    one.enlist(group="h", seat=2)
    refused = other.enlist(group="i").error
    assert isinstance(refused, StoreFullError)
    assert refused.limit == "groups"
    assert other.enlist(group="g").waits
    one.end()
    other.end()
    assert cluster.is_empty
