"""Thousands who wait: what one of them does costs the others nothing.

The times are those of a store's loop, which stands still meanwhile. Each was some hundred times as long where every
one of the crowd was looked at; it is allowed to be twenty times as long as it is.
"""

from __future__ import annotations

import math
import time
import tracemalloc
from typing import Any

import pytest

from aiopg._core.key_messages import (
    STORE,
    AppendKey,
    CompareSet,
    DeleteKeys,
    Follow,
    GetKeys,
    Lock,
    Meet,
    Pop,
    Push,
    PutBack,
    SetKeys,
    WaitKeys,
)
from aiopg._core.messages import Cancel, Enlist, Inquire, Reform
from aiopg._core.parts import join_parts
from aiopg.errors import PayloadTooLargeError, UsageError

from .cluster import Cluster, Ticket
from .user import User, item

CALLS = 4096
LARGE = bytes(20 * 1024 * 1024)


def crowd(cluster: Cluster, sessions: int, command: type[Any], *fields: Any, body: Any = ()) -> None:
    """As many of these calls as these sessions may have; all wait."""
    call = 0
    for session in range(sessions):
        for _ in range(CALLS):
            call += 1
            assert not cluster.engine.apply(session, command(call, STORE, *fields, body), cluster.now)


@pytest.mark.parametrize(
    ("sessions", "command", "fields", "body"),
    [
        (8, Pop, (True, "q"), ()),
        (8, Lock, ("q",), ()),
        (3, Meet, (16384, "q"), ()),
        (8, WaitKeys, (1,), join_parts([b"q"])),
        (8, Follow, (-1, "q"), ()),
    ],
    ids=["pops", "locks", "meetings", "waits", "followers"],
)
def test_the_end_of_a_session_that_waited_with_thousands(
    sessions: int, command: type[Any], fields: Any, body: Any
) -> None:
    """Its 4,096 calls are taken out of the midst of the others without a look at those."""
    cluster = Cluster()
    User(cluster, "holder").say(Lock, "q")
    crowd(cluster, sessions, command, *fields, body=body)
    began = time.process_time()
    assert not cluster.engine.end_session(sessions - 1, "over")
    assert time.process_time() - began < 0.15


def test_the_end_of_a_session_that_had_thousands_of_items_on_their_way() -> None:
    """Each goes back to its place without a look at the others that do; the order is what it was."""
    cluster = Cluster()
    user, other = User(cluster, "one"), User(cluster, "other")
    for number in range(2 * CALLS):
        user.push("q", b"%d" % number)
    for _ in range(CALLS + CALLS // 2):
        user.pop("q")
    began = time.process_time()
    user.end()
    assert time.process_time() - began < 0.3
    assert [item(other.pop("q"))[1] for _ in range(2 * CALLS)] == [b"%d" % number for number in range(2 * CALLS)]


def test_changes_that_concern_none_of_thousands_of_followers() -> None:
    """A call that sets 1,024 keys does not ask each follower about each of them."""
    cluster = Cluster()
    user = User(cluster)
    crowd(cluster, 8, Follow, -1, "other")
    began = time.process_time()
    parts = [part for number in range(1024) for part in (b"key%d" % number, b"1")]
    assert user.say(SetKeys, 1024, math.inf, True, body=join_parts([*parts])).value == 1024
    assert time.process_time() - began < 0.2


def test_followers_share_what_they_are_told() -> None:
    """A change with a large value is no copy of it for each of thousands of them."""
    user = User(Cluster())
    follows = [user.say(Follow, -1, "key") for _ in range(100)]
    user.set(key=b"x" * 100_000)
    assert len({id(follow.event.body[0]) for follow in follows}) == 1


def test_each_of_many_waits_for_what_all_say() -> None:
    """512 calls for the same 512 keys, which come one by one: as each rank asks for the addresses of all."""
    cluster, count = Cluster(), 512
    user = User(cluster)
    names = [f"address/{rank}" for rank in range(count)]
    body = join_parts([name.encode() for name in names])
    for call in range(count):
        assert not cluster.engine.apply(call, GetKeys(call, STORE, count, body), cluster.now)
    began = time.process_time()
    for name in names[1:]:
        user.add(name, 1)
    assert time.process_time() - began < 2.0
    user.add(names[0], 1)
    assert all(cluster.events[call, call] for call in range(count))


def test_who_waits_for_large_values_has_no_copy_of_them() -> None:
    """One key that thousands of calls wait for is not kept once for each when it comes."""
    cluster = Cluster()
    user = User(cluster)
    gets = [user.get("key") for _ in range(100)]
    user.set(key=b"x" * 100_000)
    assert len({id(get.event.body[-1]) for get in gets}) == 1


@pytest.mark.parametrize(
    "command",
    [
        AppendKey(1, STORE, "key", (LARGE,)),
        Push(1, STORE, "key", (LARGE,)),
        PutBack(1, STORE, 1, "key", (LARGE,)),
        SetKeys(1, STORE, 1, 1.0, True, join_parts([b"key", LARGE])),
        CompareSet(1, STORE, True, "key", join_parts([b"", LARGE])),
        CompareSet(1, STORE, True, "key", join_parts([LARGE, b""])),
        DeleteKeys(1, STORE, 1, join_parts([LARGE])),
        Enlist(1, 1, "g", 1, 2, 1.0, 1.0, "me", (LARGE,)),
    ],
    ids=lambda command: type(command).__name__,
)
def test_what_is_too_large_is_refused_before_it_is_copied(command: Any) -> None:
    """A payload may be much larger than a value or a name, and is in memory once."""
    cluster = Cluster()
    body = (memoryview(b"".join(command.body)),)  # as it comes in a large frame
    command = command._replace(body=body)
    tracemalloc.start()
    try:
        refused = cluster.say("s", command)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(refused.error, PayloadTooLargeError | UsageError)
    assert peak < 1024 * 1024


@pytest.mark.parametrize("where", ["lobby", "reform", "meeting"])
def test_what_many_inquire_about_is_made_once(where: str) -> None:
    """As thousands do when one is late; anew when somebody has come or gone."""
    cluster = Cluster()
    sessions = ["a", "b", "c", "d"]

    def come(session: str) -> Ticket:
        call = cluster.number()
        if where == "meeting":
            return cluster.say(session, Meet(call, STORE, 5, "m"))
        if where == "reform":
            return cluster.say(session, Reform(call, 1, 2, 10.0, session))
        return cluster.say(session, Enlist(call, 1, "g", 5, 5, 1.0, 10.0, session))

    def inquire(ticket: Ticket) -> tuple[int, Any]:
        answer = cluster.say(ticket.session, Inquire(cluster.number(), ticket.call))
        return id(answer.event.body[0]), answer.value

    if where == "reform":
        for session in [*sessions, "e"]:
            cluster.say(session, Enlist(cluster.number(), 1, "g", 5, 5, 1.0, 10.0, session))
    a, b, c = (come(session) for session in sessions[:3])
    (first, told), (second, again) = inquire(a), inquire(b)
    assert first == second
    assert told == again == [[0, 1, 2], [3, 4]]
    come("d")
    assert inquire(a)[1] == [[0, 1, 2, 3], [4]]
    cluster.say("c", Cancel(c.call))
    assert inquire(a)[1] == ([[0, 1, 3], [2, 4]] if where == "reform" else [[0, 1, 2], [3, 4]])
    cluster.file(cluster.engine.end_session("d", "over"))
    assert inquire(b)[1] == ([[0, 1], [2, 4]] if where == "reform" else [[0, 1], [2, 3, 4]])
