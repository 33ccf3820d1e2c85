"""Groups: seats, incarnations, and who may sit where."""

from __future__ import annotations

import pytest

from aiopg._core.messages import Join
from aiopg.errors import (
    FencedError,
    GroupAbortedError,
    GroupClosedError,
    PeerLostError,
    ProtocolError,
    RankConflictError,
    StoreFullError,
    UsageError,
    WorldSizeMismatchError,
)

from .cluster import TTL, Cluster, Member


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_a_group_forms_when_the_last_rank_joins(size: int) -> None:
    """All are answered then, in the same step, with one incarnation number."""
    cluster = Cluster()
    members = [cluster.member(rank, size) for rank in reversed(range(size))]
    assert {member.join.value for member in members} == {1}
    assert cluster.describe()["state"] == "live"


def test_a_forming_group_says_who_is_missing() -> None:
    """To an inquiry, and to a join that is withdrawn."""
    cluster = Cluster()
    a, b = cluster.member(2, 4), cluster.member(0, 4)
    assert a.inquire(a.join).value == [[0, 2], [1, 3]]
    b.cancel(b.join)
    assert b.join.facts == [[0, 2], [1, 3]]


def test_a_withdrawn_join_frees_its_seat() -> None:
    """For anybody; the others go on waiting."""
    cluster = Cluster()
    a, b = cluster.member(0, 2), cluster.member(1, 3, "h")
    a.cancel(a.join)
    b.cancel(b.join)
    assert cluster.is_empty
    c, d = cluster.member(0, 2, session="c"), cluster.member(1, 2, session="d")
    assert c.join.value == d.join.value == 3


def test_cancelling_a_join_after_the_group_formed_changes_nothing() -> None:
    """It has its answer; leaving is how to go."""
    cluster = Cluster()
    a, b = cluster.group(2)
    a.cancel(a.join)
    assert a.join.value == 1
    call = b.barrier()
    a.barrier()
    assert call.answer == b""


def test_a_join_is_vacated_whether_it_was_answered_or_not() -> None:
    """Its caller never saw the answer, so the seat is as if never taken: the others wait for the next joiner."""
    cluster = Cluster()
    lonely = cluster.member(0, 2)
    assert lonely.vacate().answer == b""
    assert lonely.join.facts == [[0], [1]]
    a, b = cluster.group(2)
    barrier, put, take = b.barrier(), b.put(0, b"for whoever comes"), b.take(0)
    assert a.vacate().answer == b""
    assert (barrier.waits, put.answer, take.waits) == (True, b"", True)
    again = cluster.member(0, 2, session="again")
    assert again.join.value == b.join.value
    assert again.take(1).answer == b"for whoever comes"
    again.barrier()
    assert barrier.answer == b""
    for member in (again, b):
        member.leave()
    assert cluster.is_empty


def test_a_seat_that_was_used_is_left_instead_of_vacated() -> None:
    """What its member did cannot be undone: nobody takes its place, its calls end, the others are told."""
    cluster = Cluster()
    a, b = cluster.group(2)
    take, waits = a.take(1), b.take(0)
    assert a.vacate().answer == b""
    assert take.facts == [[], [1]]
    assert isinstance(waits.error, PeerLostError)
    assert cluster.member(0, 2).join.waits


def test_the_last_seat_may_be_vacated() -> None:
    """Then the group is gone."""
    cluster = Cluster()
    a, b = cluster.group(2)
    b.leave()
    a.vacate()
    assert cluster.is_empty


def test_a_joiner_that_is_lost_or_leaves_frees_its_seat() -> None:
    """A group that forms does not remember it."""
    cluster = Cluster()
    a, b, c = (cluster.member(rank, 4) for rank in range(3))
    cluster.lose(a)
    assert b.leave().answer == b""
    assert b.join.facts == [[1, 2], [0, 3]]
    again = [cluster.member(rank, 4, session=f"new{rank}") for rank in (0, 1, 3)]
    assert {member.join.value for member in [*again, c]} == {1}


def test_a_taken_rank_is_refused_and_its_holder_named() -> None:
    """Whether the group forms or lives; the holder is not disturbed."""
    cluster = Cluster()
    a = cluster.member(0, 2)
    assert isinstance(cluster.member(0, 2, session="x").join.error, RankConflictError)
    b = cluster.member(1, 2)
    error = cluster.member(0, 2, session="x").join.error
    assert error.fields() == {"group": "g", "rank": 0, "holder": "pid 0"}
    call = a.barrier()
    b.barrier()
    assert call.answer == b""


def test_another_world_size_is_refused_at_once() -> None:
    """While any life of the name is there."""
    cluster = Cluster()
    cluster.member(0, 3)
    error = cluster.member(1, 2, session="x").join.error
    assert isinstance(error, WorldSizeMismatchError)
    assert error.fields() == {"group": "g", "world_size": 2, "expected": 3}
    assert cluster.member(1, 2, "other").join.waits


def test_a_name_may_have_another_size_when_all_have_left() -> None:
    """Then it is another group."""
    cluster = Cluster()
    for member in cluster.group(2):
        member.leave()
    assert cluster.is_empty
    assert [member.join.value for member in cluster.group(3)] == [2] * 3


def test_a_rank_that_joins_again_waits_for_the_next_life() -> None:
    """No two lives mix: it meets those who left too, and not those who are still there."""
    cluster = Cluster()
    a, b = cluster.group(2)
    a.put(1, b"old life")
    a.leave()
    again = cluster.member(0, 2)
    assert again.join.waits
    assert b.take(0).answer == b"old life"
    assert isinstance(b.barrier().error, PeerLostError)
    assert isinstance(again.barrier().error, ProtocolError)
    b.leave()
    partner = cluster.member(1, 2)
    assert again.join.value == partner.join.value == 2
    assert partner.take(0).waits


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_ranks_restart_in_any_order(order: tuple[int, ...]) -> None:
    """Each leaves and comes back before the next one does; all meet in the second life."""
    cluster = Cluster()
    members = cluster.group(3)
    again: list[Member] = []
    for rank in order:
        assert all(member.join.waits for member in again)
        cluster.lose(members[rank])
        again.append(cluster.member(rank, 3))
    assert [member.join.value for member in again] == [2] * 3
    assert len(cluster.engine._groups) == 1


def test_a_rank_conflict_in_the_next_life_is_one_too() -> None:
    """The rank was used in the first life and is held in the second."""
    cluster = Cluster()
    a, _ = cluster.group(2)
    a.leave()
    cluster.member(0, 2)
    assert isinstance(cluster.member(0, 2, session="x").join.error, RankConflictError)


def test_incarnation_numbers_are_never_reused() -> None:
    """Not even for other names, nor for those that never formed."""
    cluster = Cluster()
    numbers = []
    for name in ("g", "h", "g", "g"):
        lonely = cluster.member(0, 2, name, session="lonely")
        lonely.leave()
        members = cluster.group(2, name)
        numbers.append(members[0].join.value)
        for member in members:
            member.leave()
    assert numbers == [2, 4, 6, 8]
    assert cluster.is_empty


def test_overlapping_groups_form_in_any_order() -> None:
    """One session may sit in many groups."""
    cluster = Cluster()
    names = [f"g{i}" for i in range(20)]
    first = [cluster.member(0, 2, name, session="one") for name in names]
    second = [cluster.member(1, 2, name, session="two") for name in reversed(names)]
    assert not any(member.join.waits for member in first + second)
    cluster.lose(second[0], "killed")
    assert all(isinstance(member.barrier().error, PeerLostError) for member in first)


def test_an_aborted_group_stays_so_until_all_have_left() -> None:
    """The first abort is the one that is told; a new life knows nothing of it."""
    cluster = Cluster()
    a, b = cluster.group(2)
    a.abort("first")
    assert b.abort("second").answer == b""
    assert cluster.describe()["state"] == "aborted"
    for call in (a.put(1, b""), b.take(0), a.take_back(a.join, 1), b.expire(), a.barrier()):
        assert isinstance(call.error, GroupAbortedError)
        assert call.error.fields() == {"group": "g", "origin": 0, "reason": "first"}
    a.leave()
    b.leave()
    assert cluster.is_empty
    assert cluster.group(2)[0].barrier().waits


def test_a_group_that_forms_cannot_be_aborted() -> None:
    """Who withdraws from it has never been a member and can poison nothing."""
    cluster = Cluster()
    a = cluster.member(0, 2)
    assert isinstance(a.abort().error, ProtocolError)
    a.leave()
    b, c = cluster.group(2)
    b.barrier()
    assert c.barrier().answer == b""


def test_the_reason_of_an_abort_is_cut() -> None:
    """In bytes, without half a character."""
    a, b = Cluster(reason_bytes=7).group(2)
    a.abort("ééééé")
    assert b.barrier().error.fields()["reason"] == "ééé"


def test_the_reason_of_an_abort_may_be_no_text() -> None:
    """Halves of characters are replaced."""
    a, b = Cluster().group(2)
    a.abort("path \udcff")
    assert b.barrier().error.fields()["reason"] == "path ?"


def test_a_seat_that_was_left_is_closed() -> None:
    """Every verb says so; calls that waited were withdrawn."""
    a, b = Cluster().group(2)
    take, barrier = a.take(1), a.barrier()
    a.leave()
    assert take.facts == [[], [1]]
    assert barrier.facts == [[0], [1]]
    for call in (a.put(1, b""), a.take(1), a.take_back(take, 1), a.barrier(), a.expire(), a.abort(), a.leave()):
        assert isinstance(call.error, GroupClosedError)
    assert b.status().value["members"] == 1


@pytest.mark.parametrize(
    ("rank", "size", "group", "ttl"),
    [
        (-1, 2, "g", 1.0),
        (2, 2, "g", 1.0),
        (2**64 - 1, 2, "g", 1.0),
        (0, 0, "g", 1.0),
        (0, -1, "g", 1.0),
        (0, 16385, "g", 1.0),
        (0, 2, "", 1.0),
        (0, 2, "x" * 129, 1.0),
        (0, 2, "é" * 65, 1.0),
        (0, 2, "g", 0.0),
        (0, 2, "g", -1.0),
        (0, 2, "g", float("nan")),
    ],
)
def test_a_join_that_makes_no_sense_is_refused(rank: int, size: int, group: str, ttl: float) -> None:
    """And leaves nothing behind."""
    cluster = Cluster()
    assert isinstance(cluster.member(rank, size, group, ttl=ttl).join.error, UsageError)
    assert cluster.is_empty


def test_groups_and_seats_are_bounded() -> None:
    """With the name of the limit; what was there goes on."""
    cluster = Cluster(groups=3, seats=2)
    cluster.member(0, 2, "a", session="s")
    cluster.member(0, 2, "b", session="s")
    third = cluster.member(0, 2, "c", session="s").join.error
    assert isinstance(third, StoreFullError)
    assert third.limit == "seats"
    cluster.member(0, 2, "c", session="t")
    fourth = cluster.member(0, 2, "d", session="u").join.error
    assert isinstance(fourth, StoreFullError)
    assert fourth.limit == "groups"
    assert not cluster.member(1, 2, "a", session="u").join.waits


@pytest.mark.parametrize("alone", [False, True])
def test_a_takeover_that_finds_no_room_puts_nobody_out(alone: bool) -> None:
    """Unless the group of whom it puts out ends with that, and makes the room."""
    cluster = Cluster(groups=1)
    holder, other = cluster.group(2)
    if alone:
        other.leave()
    joins = cluster.say("new", Join(cluster.number(), 0, "g", 0, 2, TTL, "newcomer", takeover=True))
    barrier = holder.barrier()
    if alone:
        assert joins.waits
        assert isinstance(barrier.error, FencedError)
    else:
        assert isinstance(joins.error, StoreFullError)
        assert other.barrier().answer == barrier.answer == b""
