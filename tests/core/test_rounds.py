"""Rounds: collectives, who is answered when and with what."""

from __future__ import annotations

import gc
import random
import sys

import pytest

from aiopg._core.messages import Needs
from aiopg.errors import (
    DataExpiredError,
    PayloadTooLargeError,
    ProtocolError,
    StoreFullError,
    UsageError,
)

from .cluster import TTL, Cluster, Member, Ticket

SIZES = pytest.mark.parametrize("size", [1, 2, 3, 8])


def shuffled(members: list[Member], seed: int = 1) -> list[Member]:
    """The same members in another order."""
    return random.Random(seed * 100 + len(members)).sample(members, len(members))


# ------------------------------------------------------------------------------------------------- the answers


@SIZES
def test_a_barrier_ends_when_the_last_rank_comes(size: int) -> None:
    """Not before, for nobody; then for all, with nothing."""
    members = Cluster().group(size)
    calls = [member.barrier() for member in shuffled(members)[:-1]]
    assert all(call.waits for call in calls)
    calls.append(shuffled(members)[-1].barrier())
    assert [call.answer for call in calls] == [b""] * size
    assert members[0].cluster.is_idle


@SIZES
def test_an_all_gather_gives_everybody_every_part_in_rank_order(size: int) -> None:
    """Whatever the order of arrival."""
    members = Cluster().group(size)
    calls = [member.all_gather(b"part of %d" % member.rank) for member in shuffled(members)]
    for call in calls:
        assert call.parts(size) == [b"part of %d" % rank for rank in range(size)]
    assert members[0].cluster.is_idle


def test_who_comes_last_is_answered_first() -> None:
    """Its process is the one that has hardly gone to sleep (docs/performance.md)."""
    cluster = Cluster()
    members = cluster.group(5)
    for came in (shuffled(members, 1), shuffled(members, 2)):
        calls = [member.barrier() for member in came]
        assert cluster.order[-5:] == [(call.session, call.call) for call in reversed(calls)]


def test_answers_to_all_share_one_body() -> None:
    """The payloads are joined once."""
    calls = [member.all_gather(b"part") for member in Cluster().group(3)]
    assert len({id(call.event.body) for call in calls}) == 1


@SIZES
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_broadcast_reaches_all_and_its_source_does_not_wait(size: int, seed: int) -> None:
    """Others are answered as soon as the source has come."""
    members = Cluster().group(size)
    root = size // 2
    calls: list[Ticket] = []
    for member in shuffled(members, seed):
        calls.append(member.broadcast(root, b"news"))
        came = any(call.session == members[root].session for call in calls)
        assert all(call.waits != came for call in calls)
    assert sorted(call.answer for call in calls) == [b""] + [b"news"] * (size - 1)
    assert members[0].cluster.is_idle


@SIZES
def test_a_gather_waits_at_its_destination_only(size: int) -> None:
    """The others give and go."""
    members = Cluster().group(size)
    calls = [member.gather(0, b"%d" % member.rank) for member in members]
    assert [call.answer for call in calls[1:]] == [b""] * (size - 1)
    assert calls[0].parts(size) == [b"%d" % rank for rank in range(size)]
    assert members[0].cluster.is_idle


@SIZES
def test_a_scatter_gives_each_rank_its_own_part(size: int) -> None:
    """The root too; nobody waits for anybody but the root."""
    members = Cluster().group(size)
    root = size - 1
    parts = [b"for %d" % rank for rank in range(size)]
    calls = {member.rank: member.scatter(root, parts if member.rank == root else ()) for member in shuffled(members)}
    assert [calls[rank].answer for rank in range(size)] == parts
    assert members[0].cluster.is_idle


@SIZES
def test_an_all_to_all_crosses_all_parts(size: int) -> None:
    """Each rank gets what each gave for it; empty parts too."""
    members = Cluster().group(size)
    calls = [m.all_to_all([b"%d>%d" % (m.rank, dst) if dst else b"" for dst in range(size)]) for m in members]
    for rank, call in enumerate(calls):
        if size > 1:
            assert call.parts(size) == [b"%d>%d" % (src, rank) if rank else b"" for src in range(size)]
    assert members[0].cluster.is_idle


def test_rounds_of_other_numbers_and_tags_do_not_meet() -> None:
    """A round is one (tag, number)."""
    a, b = Cluster().group(2)
    calls = [a.barrier(1), a.barrier(2), a.barrier(1, tag="t"), a.barrier(1, tag=1)]
    b.barrier(2)
    b.barrier(1, tag=1)
    assert [call.waits for call in calls] == [True, False, True, False]
    assert a.cluster.engine.describe()["rounds"] == 2


def test_large_parts_are_passed_on_uncopied() -> None:
    """The very bytes that came are those that go."""
    a, b = Cluster().group(2)
    large = b"l" * 2_000_000
    call = a.all_gather(large)
    b.all_gather(b"small")
    assert any(piece is large for piece in call.event.body)


# ------------------------------------------------------------------------------------------------ leaving last


@SIZES
def test_the_host_of_a_store_leaves_a_barrier_last(size: int) -> None:
    """It is answered when every other rank has acknowledged its own answer, and not before."""
    members = Cluster().group(size)
    calls = [member.barrier(last=member.rank == 0) for member in members]
    for call in calls[1:]:
        assert calls[0].waits
        assert call.event == (call.call, True, ())
        members[0].cluster.confirm(call)
    assert calls[0].event == (calls[0].call, False, ())
    assert members[0].cluster.is_idle


def test_who_has_not_acknowledged_is_named() -> None:
    """Whom the last one waits for, once all have arrived."""
    members = Cluster().group(3)
    last, one, _two = (member.barrier(last=member.rank == 0) for member in members)
    members[0].cluster.confirm(one)
    assert members[0].inquire(last).value == [[0, 1, 2], [2]]


def test_a_rank_that_goes_needs_no_acknowledgement() -> None:
    """It left, or was lost, after its answer."""
    cluster = Cluster()
    members = cluster.group(3)
    last, one, _two = (member.barrier(last=member.rank == 0) for member in members)
    cluster.lose(members[2])
    assert last.waits
    members[1].leave()
    assert last.answer == b""
    cluster.confirm(one)
    assert cluster.is_idle


def test_cancelling_the_wait_for_acknowledgements_is_too_late() -> None:
    """All have arrived and may have gone on, so the round is answered; the acknowledgements change nothing then."""
    members = Cluster().group(2)
    last, one = (member.barrier(last=member.rank == 0) for member in members)
    members[0].cancel(last)
    assert last.answer == b""
    members[0].cluster.confirm(one)
    members[0].cluster.confirm(one)
    assert members[0].cluster.is_idle


def test_a_host_that_leaves_while_it_waits_is_answered_first() -> None:
    """Its barrier was complete."""
    members = Cluster().group(2)
    last, one = (member.barrier(last=member.rank == 0) for member in members)
    assert members[0].leave().answer == b""
    assert last.answer == b""
    members[0].cluster.confirm(one)
    assert members[0].cluster.is_idle


def test_all_may_want_to_be_last() -> None:
    """Then nobody's acknowledgement is waited for."""
    calls = [member.barrier(last=True) for member in Cluster().group(3)]
    assert [call.answer for call in calls] == [b""] * 3


def test_a_late_acknowledgement_does_not_touch_a_new_round_of_the_same_number() -> None:
    """The old round is over, whoever uses its number again."""
    cluster = Cluster()
    a, b = cluster.group(2)
    last = a.arrive("b", Needs.ALL_TOLD, parts=[b"part"])
    given = b.arrive("b", Needs.ALL, parts=[b"part"])
    cluster.now += 2 * TTL
    a.expire()
    assert isinstance(last.error, DataExpiredError)
    again = a.barrier()
    cluster.confirm(given)
    b.barrier()
    assert again.answer == b""


# ------------------------------------------------------------------------------------------------- withdrawing


def test_a_withdrawn_arrival_was_never_there() -> None:
    """It counts for nothing and says who was there and who was not; arriving again is the same call again."""
    a, b, c = Cluster().group(3)
    waits, first = b.barrier(), a.barrier()
    a.cancel(first)
    assert first.facts == [[0, 1], [2]]
    c.barrier()
    assert waits.waits
    assert a.barrier().answer == waits.answer == b""
    assert a.cluster.is_idle


def test_a_withdrawn_part_is_not_read() -> None:
    """The second try may bring another."""
    a, b = Cluster().group(2)
    a.cancel(a.all_gather(b"first try"))
    assert a.cluster.is_idle
    b.all_gather(b"b")
    assert a.all_gather(b"second").parts(2) == [b"second", b"b"]


@pytest.mark.parametrize("given", [0, 1, 3])
def test_how_many_parts_were_withdrawn_is_of_no_matter(given: int) -> None:
    """The answer is made of what the ranks gave in the end: nothing, one part each, or one for each rank."""
    a, b, c = Cluster().group(3)
    calls = [a.arrive("op", Needs.ALL, parts=[b"a"] * given)]
    b.cancel(b.arrive("op", Needs.ALL, parts=[b"x", b"y", b"z"] if given < 3 else [b"x"]))
    calls += [member.arrive("op", Needs.ALL, parts=[part] * given) for member, part in ((b, b"b"), (c, b"c"))]
    for call in calls:
        assert (call.parts(3) if given else call.answer) == ([b"a", b"b", b"c"] if given else b"")
    assert a.cluster.is_idle


def test_a_withdrawn_signature_binds_nobody() -> None:
    """A rank that was alone may go on to another collective."""
    a, b = Cluster().group(2)
    a.cancel(a.barrier())
    call = a.all_gather(b"a")
    b.all_gather(b"b")
    assert call.parts(2) == [b"a", b"b"]


def test_who_needs_the_root_waits_for_the_root_alone() -> None:
    """The facts name it and nobody else."""
    a, b, _ = Cluster().group(3)
    call = b.broadcast(0)
    b.cancel(call)
    assert call.facts == [[1], [0]]
    assert a.inquire(call).value is None


# ----------------------------------------------------------------------------------------------- bad arrivals


def test_a_rank_arrives_once() -> None:
    """Whether it waits or was answered."""
    a, b = Cluster().group(2)
    waits = a.barrier()
    b.broadcast(1, b"x", 2)
    for again in (a.barrier(), b.broadcast(1, b"x", 2)):
        assert isinstance(again.error, UsageError)
        assert "already arrived" in str(again.error)
    assert waits.waits


@pytest.mark.parametrize(
    ("needs", "root", "pieces", "error"),
    [
        (Needs.ROOT, 2, 0, UsageError),
        (Needs.ROOT, -1, 0, UsageError),
        (Needs.ROOT, 2**64 - 1, 0, UsageError),
        (4, 0, 0, ProtocolError),
        (-1, 0, 0, ProtocolError),
        (Needs.ALL, -1, 3, ProtocolError),
    ],
)
def test_an_arrival_that_makes_no_sense_is_refused(needs: int, root: int, pieces: int, error: type) -> None:
    """It is not counted."""
    a, b = Cluster().group(2)
    assert isinstance(a.arrive("op", needs, root=root, parts=[b"x"] * pieces).error, error)
    assert a.cluster.is_idle
    waits = b.barrier()
    a.barrier()
    assert waits.answer == b""


def test_open_rounds_are_bounded() -> None:
    """A rank that runs ahead is told; rounds that exist go on."""
    a, b = Cluster(open_rounds=2).group(2)
    a.broadcast(0, b"", 1)
    a.broadcast(0, b"", 2)
    refused = a.broadcast(0, b"", 3).error
    assert isinstance(refused, StoreFullError)
    assert refused.limit == "open_rounds"
    b.broadcast(0, number=1)
    assert a.broadcast(0, b"", 3).answer == b""


def test_an_answer_that_no_frame_can_hold_is_an_error_for_its_readers() -> None:
    """Each part is legal, all of them together are not: a clear error, and no broken connection."""
    members = Cluster(payload_bytes=1000, world_size=4).group(3)
    calls = [member.all_gather(b"x" * 400) for member in members]
    for call in calls:
        assert isinstance(call.error, PayloadTooLargeError)
        assert call.error.size == 1212
    assert members[0].cluster.is_idle
    assert members[0].barrier(2).waits


def test_an_answer_that_is_too_large_is_not_waited_for() -> None:
    """Who leaves last waits only for those who have an answer to acknowledge."""
    a, b, c = Cluster(payload_bytes=100, world_size=4).group(3)
    last = a.arrive("op", Needs.ALL_TOLD, parts=[b"", b"x" * 90, b""])
    large = b.arrive("op", Needs.ALL, parts=[b"", b"x" * 90, b""])
    small = c.arrive("op", Needs.ALL, parts=[b"", b"", b"x"])
    assert isinstance(large.error, PayloadTooLargeError)
    assert last.waits
    a.cluster.confirm(small)
    assert last.parts(3) == [b"", b"", b""]


def test_what_was_given_is_let_go_at_once() -> None:
    """Not when Python comes to look for cycles, which may be long after: the parts may be large."""
    cluster = Cluster()
    members, part = cluster.group(2), b"x" * 1000
    gc.disable()
    try:
        before = sys.getrefcount(part)
        for member in members:
            member.all_gather(part)
        assert sys.getrefcount(part) == before
        members[0].all_gather(part, 2)
        assert sys.getrefcount(part) > before
        members[1].abort()
        assert sys.getrefcount(part) == before
    finally:
        gc.enable()
