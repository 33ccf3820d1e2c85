"""Rounds that fail: mismatches, ranks that are gone, aborts, and parts that expired."""

from __future__ import annotations

import pytest

from aiopg._core.messages import Needs
from aiopg.errors import (
    CollectiveMismatchError,
    DataExpiredError,
    GroupAbortedError,
    PeerLostError,
)

from .cluster import TTL, Cluster, Ticket


def mismatched(*calls: Ticket) -> None:
    """Every one of these failed as a mismatch."""
    for call in calls:
        assert isinstance(call.error, CollectiveMismatchError)


# -------------------------------------------------------------------------------------------------- mismatches


@pytest.mark.parametrize(
    "other",
    [
        {"op": "all_gather", "needs": Needs.ALL},
        {"op": "barrier", "needs": Needs.ALL, "detail": "sum"},
        {"op": "barrier", "needs": Needs.ALL, "root": 1},
        {"op": "barrier", "needs": Needs.NOTHING, "root": 2**63},
    ],
)
def test_a_collective_that_differs_fails_all_ranks(other: dict[str, object]) -> None:
    """In operation, detail or root; those who wait, the one that differs and those who come later."""
    a, b, c = Cluster().group(3)
    first = a.barrier()
    different = b.arrive(**other)  # type: ignore[arg-type]
    later = c.barrier()
    mismatched(first, different, later)
    calls = first.error.fields()["calls"]
    assert calls[0] == "barrier()"
    assert calls[1] != calls[0]
    assert a.cluster.is_idle


def test_after_a_mismatch_all_are_level_again() -> None:
    """The number is used up, the next one works."""
    a, b = Cluster().group(2)
    mismatched(a.barrier(1), b.all_gather(b"", 1))
    call = a.barrier(2)
    assert b.barrier(2).answer == call.answer == b""


def test_a_rank_that_was_answered_before_is_told_at_its_next_call() -> None:
    """The source of a broadcast did not wait; its next round is the mismatch's too, for all."""
    a, b, c = Cluster().group(3)
    early = a.broadcast(0, b"news")
    mismatched(b.barrier(1))
    assert early.answer == b""
    mismatched(c.broadcast(0, number=1))
    calls = [member.barrier(2) for member in (b, a, c)]
    mismatched(*calls)
    assert calls[1].error.fields()["seq"] == 1
    assert [member.barrier(3).waits for member in (a, b, c)] == [True, True, False]
    assert a.cluster.is_idle


def test_a_rank_that_was_answered_before_is_told_where_it_waits_now() -> None:
    """It has gone on to its next round already; the other tags are left alone."""
    a, b, c = Cluster().group(3)
    a.broadcast(0, b"news", number=1)
    elsewhere, waits, along = a.barrier(tag="t"), a.barrier(2), c.barrier(2)
    mismatched(b.barrier(1))
    mismatched(waits, along, b.barrier(2), c.broadcast(0, number=1))
    assert elsewhere.waits
    a.cancel(elsewhere)
    assert a.cluster.is_idle


def test_a_debt_is_told_in_its_own_tag_and_once() -> None:
    """Tags count apart."""
    a, b = Cluster().group(2)
    a.broadcast(0, b"news")
    mismatched(b.barrier(1))
    assert a.barrier(1, tag="t").waits
    mismatched(a.barrier(2))
    assert a.barrier(3).waits


def test_the_dead_owe_nothing() -> None:
    """A rank that is gone before or after the mismatch is not told, nor waited for."""
    cluster = Cluster()
    a, b, c, d = cluster.group(4)
    a.broadcast(0, b"news")
    d.broadcast(0)
    d.leave()
    mismatched(b.barrier(1))
    a.leave()
    mismatched(c.barrier(1))
    assert cluster.is_idle


def test_a_mismatch_frees_the_parts_at_once() -> None:
    """Nobody will read them, whoever has yet to come."""
    a, b, c, d = Cluster().group(4)
    a.all_gather(b"a" * 100)
    mismatched(b.gather(0, b"b" * 100))
    assert a.cluster.describe()["bytes"] == 0
    mismatched(c.all_gather(b"c" * 100))
    assert a.cluster.describe()["bytes"] == 0
    mismatched(d.all_gather(b"d" * 100))
    assert a.cluster.is_idle


def test_a_mismatch_of_long_texts_is_told_in_short() -> None:
    """Every rank is told what every rank called."""
    a, b = Cluster().group(2)
    call = a.arrive("x" * 3000, Needs.ALL)
    b.barrier()
    assert len(call.error.fields()["calls"][0]) < 200


# ------------------------------------------------------------------------------------------------ loss and abort


def test_a_rank_that_is_lost_fails_what_needs_it() -> None:
    """Those who wait for it, in any round and tag, and those who come later."""
    cluster = Cluster()
    a, b, c = cluster.group(3)
    calls = [a.barrier(1), a.all_gather(b"x", 2), b.barrier(tag="t"), a.broadcast(2, b"", 6), b.gather(1, b"x", 4)]
    cluster.lose(c, "killed")
    calls += [b.barrier(1), b.all_gather(b"x", 2), a.barrier(tag="t"), b.broadcast(2, b"", 6)]
    calls += [b.scatter(2, number=7)]
    for call in calls:
        assert isinstance(call.error, PeerLostError)
        assert call.error.fields() == {"group": "g", "ranks": (2,), "reason": "killed", "trace": ()}
    assert [a.gather(1, b"x", 4).answer, a.scatter(0, [b"1"] * 3, 5).answer] == [b"", b"1"]


def test_the_arrivals_of_the_dead_count() -> None:
    """What it gave before is there, and is freed when the living have it."""
    cluster = Cluster()
    a, b, c = cluster.group(3)
    c.broadcast(2, b"last words")
    gathered = b.gather(1, b"b", 2)
    c.gather(1, b"c", 2)
    c.leave()
    assert a.gather(1, b"a", 2).answer == b""
    assert gathered.parts(3) == [b"a", b"b", b"c"]
    assert [a.broadcast(2).answer, b.broadcast(2).answer] == [b"last words"] * 2
    assert cluster.is_idle


def test_a_rank_that_waits_and_goes_takes_its_arrival_with_it() -> None:
    """It had not been answered, so it never came."""
    cluster = Cluster()
    a, b, _ = cluster.group(3)
    waits, withdrawn = a.barrier(), b.barrier()
    b.leave()
    assert withdrawn.facts == [[0, 1], [2]]
    assert isinstance(waits.error, PeerLostError)


def test_calls_that_do_not_need_the_dead_go_on() -> None:
    """A broadcast between the living."""
    cluster = Cluster()
    a, b, c = cluster.group(3)
    call = b.broadcast(0)
    cluster.lose(c)
    assert call.waits
    a.broadcast(0, b"news")
    assert call.answer == b"news"
    assert cluster.is_idle


def test_all_the_dead_that_are_missing_are_named() -> None:
    """To those who come when several are gone."""
    cluster = Cluster()
    a, b, c = cluster.group(3)
    b.leave()
    cluster.lose(c, "killed")
    assert a.barrier().error.fields() == {"group": "g", "ranks": (1, 2), "reason": "it left the group", "trace": ()}
    assert cluster.is_idle


def test_an_abort_fails_all_rounds_now_and_later() -> None:
    """With origin and reason, those that wait for acknowledgements too."""
    cluster = Cluster()
    a, b = cluster.group(2)
    last, one = a.barrier(1, last=True), b.barrier(1)
    calls = [last, a.barrier(2), b.gather(1, b"x", 3)]
    assert b.abort("no more").answer == b""
    cluster.confirm(one)
    for call in [*calls, a.barrier(4), b.broadcast(1, b"x", 5)]:
        assert isinstance(call.error, GroupAbortedError)
        assert call.error.fields() == {"group": "g", "origin": 1, "reason": "no more"}
    assert cluster.is_idle


# ------------------------------------------------------------------------------------------------------ expiry


def test_a_part_whose_giver_went_on_expires() -> None:
    """Those who need it later are told so, by the clock and by the timer; the number is not reused."""
    a, b, c = Cluster().group(3)
    a.broadcast(0, b"news")
    assert b.broadcast(0).answer == b"news"
    a.cluster.advance(2 * TTL)
    assert a.cluster.describe()["bytes"] == 0
    assert isinstance(c.broadcast(0).error, DataExpiredError)
    assert a.cluster.is_idle


def test_an_old_part_is_not_read_before_the_sweep() -> None:
    """Expiry is by the clock."""
    a, b = Cluster().group(2)
    a.broadcast(0, b"news")
    a.cluster.now += TTL
    assert isinstance(b.broadcast(0).error, DataExpiredError)
    assert a.cluster.is_idle


def test_expiry_fails_those_who_wait_for_all_parts() -> None:
    """The destination of a gather learns it at once; so do givers' later companions."""
    a, b, c = Cluster().group(3)
    waits = a.gather(0, b"a")
    b.gather(0, b"b")
    a.cluster.advance(2 * TTL)
    assert isinstance(waits.error, DataExpiredError)
    assert c.gather(0, b"c").answer == b""
    assert a.cluster.is_idle


@pytest.mark.parametrize("complete", [True, False])
def test_who_comes_after_an_expiry_is_told(complete: bool) -> None:
    """Whether its arrival is the last one or not."""
    members = Cluster().group(3)
    if complete:
        members[2].gather(0, b"c")
    members[1].gather(0, b"b")
    members[0].cluster.now += TTL
    assert members[0].expire().value == 1 + complete
    assert isinstance(members[0].gather(0, b"a").error, DataExpiredError)
    assert members[0].cluster.is_idle == complete


def test_a_part_does_not_expire_while_its_giver_waits_with_it() -> None:
    """The giver's own deadline is what ends its wait."""
    a, b = Cluster().group(2)
    call = a.all_gather(b"a")
    a.cluster.advance(5 * TTL)
    assert a.expire().value == 0
    assert b.all_gather(b"b").parts(2) == call.parts(2) == [b"a", b"b"]
