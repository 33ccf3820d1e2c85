"""Mailboxes: messages between two ranks."""

from __future__ import annotations

import pytest

from aiopg.errors import DataExpiredError, GroupAbortedError, PeerLostError, StoreFullError, UsageError

from .cluster import TTL, Cluster


def test_messages_come_in_the_order_they_were_sent() -> None:
    """FIFO; a put is answered when it is there."""
    a, b = Cluster().group(2)
    for data in (b"1", b"2", b""):
        assert a.put(1, data).answer == b""
    assert [b.take(0).answer for _ in range(3)] == [b"1", b"2", b""]
    assert a.cluster.is_idle


def test_takes_are_served_in_the_order_they_came() -> None:
    """A message is handed on at once to the one that waits longest."""
    a, b = Cluster().group(2)
    first, second = b.take(0), b.take(0)
    a.put(1, b"1")
    assert (first.answer, second.waits) == (b"1", True)
    a.put(1, b"2")
    assert second.answer == b"2"
    assert a.cluster.is_idle


def test_two_senders_never_meet() -> None:
    """The source is part of the address; so are the tag and the direction."""
    a, b, c = Cluster().group(3)
    a.put(2, b"from a")
    b.put(2, b"from b")
    a.put(2, b"tagged", tag="t")
    a.put(2, b"numbered", tag=7)
    assert c.take(0, tag=7).answer == b"numbered"
    assert c.take(1).answer == b"from b"
    assert c.take(0, tag="t").answer == b"tagged"
    assert c.take(0).answer == b"from a"
    assert a.take(2).waits


def test_groups_never_meet() -> None:
    """Neither two groups nor two members of one session."""
    cluster = Cluster()
    a = cluster.member(0, 2, "one", session="s")
    b = cluster.member(1, 2, "one", session="s")
    cluster.group(2, "two")[0].put(1, b"other")
    take = b.take(0)
    assert take.waits
    a.put(1, b"mine")
    assert take.answer == b"mine"


def test_a_cancelled_take_leaves_the_message() -> None:
    """It is uncounted; the next take gets what comes."""
    a, b = Cluster().group(2)
    first, second = b.take(0), b.take(0)
    b.cancel(first)
    assert first.facts == [[], [0]]
    a.put(1, b"1")
    assert second.answer == b"1"
    b.cancel(second)  # too late: it has its event
    assert second.answer == b"1"
    assert a.cluster.is_idle


def test_a_put_is_taken_back_while_nobody_took_it() -> None:
    """Whatever its place, and no other; the answer says whether it had been taken."""
    a, b = Cluster().group(2)
    puts = [a.put(1, data) for data in (b"1", b"1", b"1")]
    a.put(1, b"2")
    assert a.take_back(puts[1], 1).value is False
    assert a.take_back(puts[1], 1).value is True
    assert [b.take(0).answer for _ in range(3)] == [b"1", b"1", b"2"]
    assert a.take_back(puts[0], 1).value is True
    assert a.cluster.is_idle


def test_only_its_own_messages_can_be_taken_back() -> None:
    """A put is looked for in the mailboxes of the seat that asks."""
    a, b = Cluster().group(2)
    put = a.put(1, b"1")
    assert b.take_back(put, 1).value is True
    assert b.take_back(put, 0).value is True
    assert a.take_back(put, 1, tag="t").value is True
    assert a.take_back(put, 99).value is True
    assert b.take(0).answer == b"1"


def test_a_message_expires_and_leaves_a_tombstone() -> None:
    """The take that would have got it is told, once; the next message is not held up."""
    a, b = Cluster().group(2)
    a.put(1, b"old")
    a.cluster.advance(TTL / 2)
    a.put(1, b"young")
    a.cluster.advance(TTL * 0.7)
    assert (a.cluster.describe()["messages"], a.cluster.describe()["bytes"]) == (2, 5)
    assert isinstance(b.take(0).error, DataExpiredError)
    assert b.take(0).answer == b"young"
    assert b.take(0).waits


def test_an_old_message_is_never_read_even_before_the_sweep() -> None:
    """Expiry is by the clock, not by the timer."""
    a, b = Cluster().group(2)
    a.put(1, b"old")
    a.cluster.now += TTL
    assert isinstance(b.take(0).error, DataExpiredError)
    assert a.cluster.is_idle


def test_a_tombstone_can_be_taken_back() -> None:
    """A put that was cancelled and called again is no gap."""
    a, b = Cluster().group(2)
    put = a.put(1, b"old")
    a.cluster.advance(2 * TTL)
    assert a.take_back(put, 1).value is False
    assert b.take(0).waits


def test_expire_drops_what_is_old_and_counts_it() -> None:
    """By hand; what is young stays, what went is not counted twice."""
    a, _ = Cluster().group(2)
    a.put(1, b"1")
    a.put(0, b"2")
    a.cluster.now += TTL
    a.put(1, b"3")
    assert a.expire().value == 2
    assert a.expire().value == 0
    assert a.cluster.describe()["bytes"] == 1


def test_what_the_dead_sent_can_be_taken_and_then_its_death_is_told() -> None:
    """The death comes after its last message, for takes that wait and for those made later."""
    a, b, c = Cluster().group(3)
    a.put(1, b"last words")
    waiting = c.take(0)
    a.cluster.lose(a, "killed")
    assert waiting.error.fields() == {"group": "g", "ranks": (0,), "reason": "killed", "trace": ()}
    assert b.take(0).answer == b"last words"
    assert isinstance(b.take(0).error, PeerLostError)


def test_what_was_sent_to_the_dead_is_dropped() -> None:
    """And sending more fails."""
    a, b = Cluster().group(2)
    a.put(1, b"unread")
    b.leave()
    assert a.cluster.is_idle
    assert isinstance(a.put(1, b"more").error, PeerLostError)


def test_the_old_mail_of_the_dead_expires_by_its_own_lifetime() -> None:
    """Its sender is gone and the others' data lives longer."""
    cluster = Cluster()
    a, b = cluster.member(0, 2, ttl=1.0), cluster.member(1, 2, ttl=1000.0)
    a.put(1, b"x" * 100)
    a.leave()
    cluster.advance(2.0)
    assert cluster.describe()["bytes"] == 0
    assert isinstance(b.take(0).error, DataExpiredError)


def test_calls_that_do_not_need_the_dead_go_on() -> None:
    """Death fails what needs it and nothing else."""
    a, b, c = Cluster().group(3)
    take = b.take(0)
    a.cluster.lose(c)
    assert take.waits
    a.put(1, b"1")
    assert take.answer == b"1"


def test_an_abort_ends_every_take_and_drops_every_message() -> None:
    """Now and later."""
    a, b = Cluster().group(2)
    take = b.take(0)
    b.put(0, b"unread")
    a.abort("why")
    assert isinstance(take.error, GroupAbortedError)
    assert isinstance(a.take(1).error, GroupAbortedError)
    assert a.cluster.is_idle


def test_ranks_that_do_not_exist_are_named() -> None:
    """Also huge and negative ones."""
    a, _ = Cluster().group(2)
    for rank in (2, -1, 2**64 - 1, -(2**63)):
        for call in (a.put(rank, b"x"), a.take(rank)):
            assert isinstance(call.error, UsageError)
            assert str(rank) in str(call.error)
    assert a.cluster.is_idle


def test_a_mailbox_is_bounded() -> None:
    """The sender is told; who takes makes room; other mailboxes are not touched."""
    a, b = Cluster(mailbox_messages=2).group(2)
    a.put(1, b"1")
    a.put(1, b"2")
    assert a.put(1, b"3").error.fields()["limit"] == "mailbox_messages"
    assert a.put(1, b"3", tag=1).answer == b""
    b.take(0)
    assert a.put(1, b"3").answer == b""


def test_the_bytes_of_a_group_are_bounded() -> None:
    """Over mailboxes and rounds together; what was read makes room."""
    a, b = Cluster(group_bytes=10).group(2)
    a.put(1, b"12345")
    a.broadcast(0, b"12345")
    for refused in (a.put(1, b"x"), a.broadcast(0, b"x", number=2)):
        assert isinstance(refused.error, StoreFullError)
        assert refused.error.limit == "group_bytes"
    assert a.put(1, b"").answer == b""
    b.take(0)
    assert a.put(1, b"12345").answer == b""


@pytest.mark.parametrize("tag", ["x" * 65, "é" * 33])
def test_a_tag_is_bounded(tag: str) -> None:
    """In bytes, as it is sent."""
    a, b = Cluster().group(2)
    for call in (a.put(1, b"x", tag=tag), b.take(0, tag=tag), a.barrier(tag=tag)):
        assert isinstance(call.error, UsageError)
        assert "tag has at most 64 bytes" in str(call.error)


def test_only_so_many_takes_of_a_session_wait() -> None:
    """Past the limit a take fails, and leaves no mailbox behind."""
    a, b = Cluster(waiting_calls=2).group(2)
    takes = [b.take(0), b.take(0, tag=1)]
    assert b.take(0, tag=2).error.fields()["limit"] == "waiting_calls"
    for take in takes:
        b.cancel(take)
    assert a.cluster.is_idle
