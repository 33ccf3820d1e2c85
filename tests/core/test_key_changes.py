"""The changes of a key space, and who follows them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aiopg._core.key_messages import FROM_NOW, AppendKey, DeleteKeys, Follow
from aiopg._core.keys import changes
from aiopg.errors import WatchGapError

from .cluster import Cluster, Ticket
from .user import User

KINDS = ("set", "deleted", "expired", "ended")


def follow(user: User, after: int = FROM_NOW, prefix: str = "") -> Ticket:
    """Ask for changes."""
    return user.say(Follow, after, prefix)


def told(ticket: Ticket) -> tuple[int, list[tuple[Any, ...]]]:
    """The revision up to which changes were told, and the changes."""
    heard, listed = ticket.value
    return heard, [(revision, KINDS[kind], key, value) for revision, kind, key, value in listed]


def test_every_change_is_told_with_its_revision() -> None:
    """Whatever made it; what changed nothing is none."""
    user, other = (User(Cluster(), name) for name in ("one", "other"))
    other.cluster = user.cluster
    user.set(ttl=5.0, a=b"1")
    user.add("n", 2)
    user.say(AppendKey, "a", body=(b"2",))
    user.compare_set("a", b"12", b"3")
    user.compare_set("a", b"12", b"4")
    user.names(DeleteKeys, "n", "x")
    user.set(lasting=False, b=b"")
    user.cluster.advance(6)
    user.end()
    assert told(follow(other, 0)) == (8, [
        (1, "set", "a", b"1"), (2, "set", "n", b"2"), (3, "set", "a", b"12"), (4, "set", "a", b"3"),
        (5, "deleted", "n", None), (6, "set", "b", b""), (7, "expired", "a", None), (8, "ended", "b", None),
    ])  # fmt: skip


def test_who_follows_is_told_the_first_thing_that_comes_and_asks_again() -> None:
    """From the moment of asking; nothing is missed in between, and nothing told twice."""
    user = User(Cluster())
    user.set(a=b"0")
    ticket = follow(user)
    assert ticket.waits
    user.set(a=b"1", b=b"2")
    heard, first = told(ticket)
    assert (heard, first) == (2, [(2, "set", "a", b"1")])
    assert told(follow(user, heard)) == (3, [(3, "set", "b", b"2")])
    assert follow(user, 3).waits


def test_only_keys_that_begin_so_are_told() -> None:
    """What was looked over and is none of it is not asked for again."""
    user = User(Cluster(kept_changes=2))
    ticket = follow(user, prefix="a")
    user.set(b=b"1")
    assert ticket.waits
    user.set(ab=b"1")
    heard, first = told(ticket)
    assert (heard, first) == (2, [(2, "set", "ab", b"1")])
    for _ in range(3):
        user.set(b=b"1")
    assert isinstance(follow(user, heard, "a").error, WatchGapError)


@pytest.mark.parametrize("limit", [{"kept_changes": 3}, {"kept_changes_bytes": 6}])
def test_a_gap_is_said(limit: dict[str, int]) -> None:
    """Changes that are not kept any more, and those of a revision that never was."""
    user = User(Cluster(**limit))
    for _ in range(5):
        user.set(a=b"1")
    gap = follow(user, 1).error
    assert isinstance(gap, WatchGapError)
    assert (gap.revision, gap.oldest) == (1, 2)
    assert len(told(follow(user, 2))[1]) == 3
    assert isinstance(follow(user, 6).error, WatchGapError)
    assert follow(user, 5).waits


def test_a_change_too_large_to_be_kept_is_told_to_who_waits() -> None:
    """And is a gap for who does not."""
    user = User(Cluster(kept_changes_bytes=6))
    ticket = follow(user)
    user.set(a=b"123456789")
    assert told(ticket)[1] == [(1, "set", "a", b"123456789")]
    assert isinstance(follow(user, 0).error, WatchGapError)


def test_many_changes_are_told_in_several_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each says how far it goes; together they are all of them."""
    monkeypatch.setattr(changes, "CHANGES_TOLD", 3)
    user = User(Cluster())
    for number in range(10):
        user.set(ttl=math.inf, a=b"%d" % number, b=b"")
    heard, values = 0, []
    while heard < 20:
        heard, listed = told(follow(user, heard, "a"))
        assert len(listed) <= 3
        values += [value for _, _, _, value in listed]
    assert values == [b"%d" % number for number in range(10)]


def test_who_gives_up_following_leaves_no_trace() -> None:
    """Nor does who is gone."""
    user, other = (User(Cluster(), name) for name in ("one", "other"))
    other.cluster = user.cluster
    ticket = follow(user)
    follow(other)
    user.cancel(ticket)
    assert ticket.facts == [[], []]
    other.end()
    assert user.cluster.is_empty
    assert user.cluster.engine._groups.common.keys.changes.followers == {}
