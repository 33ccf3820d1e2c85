"""What a member can pile up on a store, or have it look through, by calls that no limit of `Limits` names."""

from __future__ import annotations

import os
import time

from aiopg._core.frames import LENGTHS_BYTES, PREFIX_HEAD_BYTES, READ_BYTES, FrameReceiver
from aiopg._core.limits import Limits
from aiopg._core.messages import Answer, Failed, Join, Needs
from aiopg._core.rounds import RANKS_SHOWN, ROUNDS_SHOWN
from aiopg.errors import CollectiveMismatchError, PeerLostError, StoreFullError, UsageError
from tests.system.ranks import resident_bytes

from .cluster import TTL, Cluster

MIB = 2**20


def test_mismatches_that_are_owed_count_as_open_rounds() -> None:
    """Who was answered before the others differed is told the next time it comes; who never comes keeps that."""
    a, b = Cluster(open_rounds=10).group(2)
    for tag in range(10):
        a.arrive("broadcast", Needs.NOTHING, root=0, parts=[b"x"], tag=tag)
        assert isinstance(b.barrier(tag=tag).error, CollectiveMismatchError)
    full = a.barrier(tag=99).error
    assert isinstance(full, StoreFullError)
    assert full.limit == "open_rounds"
    b.leave()
    a.leave()
    assert a.cluster.is_empty


def test_seats_that_were_taken_over_count_as_seats() -> None:
    """A session that puts itself out again and again keeps no more of them than of others."""
    cluster = Cluster(seats=5)
    joins = [
        cluster.say("it", Join(cluster.number(), seat, "g", 0, 1, TTL, "it", takeover=True)) for seat in range(1, 10)
    ]
    assert type(joins[4].event) is Answer
    for join in joins[5:]:
        assert isinstance(join.error, StoreFullError)
        assert join.error.limit == "seats"


def test_the_name_of_a_member_is_bounded() -> None:
    """It is told to all who lose it."""
    cluster = Cluster()
    join = cluster.say("it", Join(cluster.number(), 1, "g", 0, 1, TTL, "x" * 1025))
    assert isinstance(join.error, UsageError)
    assert cluster.is_empty


def test_a_rank_is_not_taken_and_given_back_for_ever() -> None:
    """Each time is a happening that all may ask for. The others' group goes on."""
    cluster = Cluster()
    a, b = cluster.group(2)
    b.vacate()
    for _ in range(200):
        again = cluster.member(1, 2, session="it")
        if type(again.join.event) is Failed:
            break
        again.vacate()
    assert isinstance(again.join.error, UsageError)
    assert a.barrier().waits


def test_to_take_back_what_is_not_there_takes_no_search() -> None:
    """Of a full mailbox: 1,000 times within a second, which takes 30 ms."""
    a, _ = Cluster().group(2)
    puts = [a.put(1, b"") for _ in range(65536)]
    started = time.thread_time()
    for _ in range(1000):
        assert a.take_back(a.join, 1).value is True  # it is gone
    assert time.thread_time() - started < 1.0
    for put in (puts[0], puts[-1], puts[30000]):
        assert a.take_back(put, 1).value is False
        assert a.take_back(put, 1).value is True
    assert a.cluster.describe()["messages"] == 65533


def test_who_asks_twice_at_once_to_expire_what_is_old_is_answered_twice() -> None:
    """All that the group has is looked at no more than 20 times a second."""
    cluster = Cluster()
    a, _ = cluster.group(2, ttl=1.0)
    a.put(1, b"old")
    cluster.now += 2.0
    assert (a.expire().value, a.expire().value) == (1, 0)
    a.put(1, b"older")
    cluster.now += 2.0
    assert a.expire().value == 1


def test_a_status_shows_some_rounds_and_some_ranks() -> None:
    """Enough for people."""
    members = Cluster().group(RANKS_SHOWN + 2)
    for number in range(1, ROUNDS_SHOWN + 10):
        members[0].barrier(number)
    described = members[0].cluster.describe()
    assert len(described["rounds"]) == ROUNDS_SHOWN
    assert len(described["rounds"][0]["missing"]) == RANKS_SHOWN
    assert described["rounds"][0]["arrived"] == [0]


def test_a_round_costs_nothing_for_each_rank_that_is_gone() -> None:
    """A round where nobody else is left knows who is gone from its group, and not by itself."""
    members = Cluster().group(4)
    for member in members[2:]:
        member.leave()
    for number in range(1, 4):
        members[0].arrive("gather", Needs.NOTHING, number, root=1, parts=[b"x"])
    (incarnation,) = members[0].cluster.engine._groups
    assert all(len(round.told) <= 1 for round in incarnation.rounds._rounds.values())
    for number in range(1, 4):
        assert isinstance(members[1].arrive("gather", Needs.ALL, number, root=1, parts=[b"y"]).error, PeerLostError)
    assert not len(incarnation.rounds)


def test_a_body_that_is_only_announced_takes_no_memory() -> None:
    """A few bytes make the store ready for 256 MiB, and that is all."""
    before = resident_bytes(os.getpid())
    receiver = FrameReceiver(Limits())
    head = (PREFIX_HEAD_BYTES).to_bytes(4) + (256 * MIB).to_bytes(4) + bytes(PREFIX_HEAD_BYTES)
    assert receiver.receive_data(head[: LENGTHS_BYTES + PREFIX_HEAD_BYTES]) == []
    assert len(receiver.window) == READ_BYTES
    assert resident_bytes(os.getpid()) - before < 16 * MIB
