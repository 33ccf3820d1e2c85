"""Key spaces: what keys hold, for how long and whose they are, and who waits for them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aiopg._core.groups import TALLY_STEP
from aiopg._core.key_messages import (
    STORE,
    AddKey,
    AppendKey,
    CompareSet,
    DeleteKeys,
    GetKeys,
    ListKeys,
    SetKeys,
)
from aiopg._core.messages import Cancel, Withdrawn
from aiopg._core.parts import join_parts
from aiopg.errors import (
    AiopgError,
    AuthenticationError,
    GroupAbortedError,
    GroupClosedError,
    KeyOperationError,
    PayloadTooLargeError,
    ProtocolError,
    StoreFullError,
    UsageError,
)

from .cluster import Cluster
from .user import User


@pytest.fixture(params=["the store's", "a group's"])
def user(request: pytest.FixtureRequest) -> User:
    """Who uses the one or the other kind of space."""
    cluster = Cluster()
    if request.param == "the store's":
        return User(cluster)
    member, _ = cluster.group(2)
    return User(cluster, member.session, member.seat)


def test_what_was_set_last_is_what_a_key_holds(user: User) -> None:
    """An empty value is a value; revisions count the changes."""
    assert [user.set(a=b"1").value, user.set(a=b"2", b=b"").value] == [1, 3]
    assert user.get("b", "a", "a").parts(3) == [b"", b"2", b"2"]


def test_a_get_waits_for_all_of_its_keys_at_one_moment(user: User) -> None:
    """One that was there and is gone again does not count; the order is the caller's."""
    get = user.get("a", "b")
    user.set(a=b"1")
    user.names(DeleteKeys, "a")
    user.set(b=b"2")
    assert get.waits
    user.set(a=b"3")
    assert get.parts(2) == [b"3", b"2"]


def test_a_wait_is_taken_back_without_a_trace(user: User) -> None:
    """It says which keys were there and which were not, by their places."""
    user.set(b=b"1")
    wait, get = user.wait("a", "b", "c"), user.get("c")
    assert user.cluster.engine.describe()["bytes"]
    for ticket in (wait, get):
        user.cluster.say(user.session, Cancel(ticket.call))
    assert [wait.facts, get.facts] == [[[1], [0, 2]], [[], [0]]]
    assert len(user.cluster.engine._replies) == 0
    user.set(a=b"", c=b"")
    assert user.wait("a", "b", "c").answer == b""


def test_many_keys_are_set_in_one_step(user: User) -> None:
    """Who waits for two of them is answered; one too many, and none is set."""
    wait = user.wait("a", "b")
    user.set(a=b"1", b=b"2")
    assert wait.answer == b""
    refused = User(Cluster(keys=2)).set(a=b"1", b=b"2", c=b"3")
    assert isinstance(refused.error, StoreFullError)
    assert refused._cluster.engine.describe()["keys"] == {"keys": 0, "queues": 0, "bytes": 0}


def test_a_key_given_twice_in_one_call_holds_the_later_value(user: User) -> None:
    """As if they had been set one after another."""
    body = join_parts([b"a", b"1", b"a", b"2"])
    user.say(SetKeys, 2, math.inf, True, body=body)
    assert user.get("a").parts(1) == [b"2"]


def test_add_counts_from_nothing_and_stays_a_number(user: User) -> None:
    """Negative too; the value is readable as text; what is no number is refused, and stays."""
    assert [user.add("n", amount).value for amount in (5, -26, 0)] == [5, -21, -21]
    assert user.get("n").parts(1) == [b"-21"]
    for value in (b"", b"x", b"1.0", b" 1", b"1\n", b"--1", b"9" * 20, "\u0661".encode()):
        user.set(n=value)
        assert isinstance(user.add("n", 1).error, KeyOperationError)
        assert user.get("n").parts(1) == [value]
    user.set(n=b"%d" % (2**63 - 1))
    assert isinstance(user.add("n", 1).error, KeyOperationError)
    assert user.add("n", -1).value == 2**63 - 2


def test_append_creates_and_extends(user: User) -> None:
    """It is answered with the length."""
    assert [user.say(AppendKey, "a", body=(part,)).value for part in (b"", b"xy", b"z")] == [0, 2, 3]
    assert user.get("a").parts(1) == [b"xyz"]


def test_compare_set_compares_and_sets_in_one_step(user: User) -> None:
    """It says whether it did, and what the key holds now; None where there is no such key."""
    assert user.compare_set("a", b"1", b"2").value == [False, None]
    assert user.compare_set("a", None, b"1").value == [True, b"1"]
    assert user.compare_set("a", None, b"2").value == [False, b"1"]
    assert user.compare_set("a", b"", b"2").value == [False, b"1"]
    assert user.compare_set("a", b"1", b"").value == [True, b""]
    assert user.compare_set("a", b"", b"3").value == [True, b"3"]


def test_a_deleted_key_is_not_there(user: User) -> None:
    """It is said how many there were; a get blocks again."""
    user.set(a=b"1", b=b"2")
    assert user.names(DeleteKeys, "a", "c", "a").value == 1
    assert (user.check("b"), user.check("a"), user.listed()) == (True, False, ["b"])
    assert user.get("a").waits


def test_keys_are_listed_and_counted_by_prefix(user: User) -> None:
    """The empty one is of all."""
    user.set(a=b"", ab=b"", b=b"")
    assert [user.listed(prefix) for prefix in ("", "a", "abc")] == [["a", "ab", "b"], ["a", "ab"], []]


def test_a_key_is_gone_at_the_end_of_its_ttl(user: User) -> None:
    """Not before, and whether or not anybody asked meanwhile; set anew it has the new end, changed the old one."""
    user.set(ttl=5.0, a=b"1", b=b"1", c=b"1")
    user.cluster.advance(3)
    user.set(ttl=5.0, a=b"2")
    user.set(b=b"2")
    user.compare_set("c", b"1", b"2")
    user.cluster.advance(1.99)
    assert user.listed() == ["a", "b", "c"]
    user.cluster.advance(0.02)
    assert user.listed() == ["a", "b"]
    user.cluster.advance(4)
    assert user.listed() == ["b"]
    assert user.cluster.engine.next_deadline() is None


def test_an_aborted_group_holds_no_keys_any_more() -> None:
    """Nobody can read them; a member that is slow to leave does not keep their bytes."""
    cluster = Cluster()
    member, other = cluster.group(2)
    user = User(cluster, member.session, member.seat)
    waits = User(cluster, other.session, other.seat).get("b")
    user.set(a=b"x" * 100_000)
    user.push("q", b"item")
    pop = user.pop("q")
    assert cluster.describe()["bytes"] > 100_000
    member.abort()
    assert isinstance(waits.error, GroupAbortedError)
    assert cluster.describe()["bytes"] == 0
    cluster.confirm(pop)
    for one in (member, other):
        one.leave()
    assert cluster.is_empty


def test_a_list_that_is_too_large_is_refused() -> None:
    """It is longer than any other payload; fewer are asked for by a longer prefix."""
    small = User(Cluster(payload_bytes=1000))
    for number in range(100):
        small.add(f"key{number:010}", 1)
    refused = small.say(ListKeys, "").error
    assert isinstance(refused, PayloadTooLargeError)
    assert refused.limit == 1000
    assert len(small.say(ListKeys, "key000000001").value) == 10


def test_a_heartbeat_costs_no_more_the_longer_it_goes(user: User) -> None:
    """A key that is set anew again and again leaves nothing behind."""
    for _ in range(1000):
        user.cluster.advance(1)
        user.set(ttl=10.0, a=b"alive")
    engine = user.cluster.engine
    space = engine._groups.common.keys if user.seat == STORE else next(iter(engine._groups)).key_space()
    assert len(space.values._ends) < 200


def test_a_session_takes_its_keys_along() -> None:
    """Those that are not to last; one that another has set anew since is that one's."""
    cluster = Cluster()
    one, other = User(cluster, "one"), User(cluster, "other")
    one.set(lasting=False, a=b"1", b=b"1", c=b"1")
    other.set(b=b"2")
    other.set(lasting=False, c=b"2")
    cluster.file(cluster.engine.end_session("one", "over"))
    assert other.listed() == ["b", "c"]
    cluster.file(cluster.engine.end_session("other", "over"))
    assert other.listed() == ["b"]


@pytest.mark.parametrize("how", ["leaves", "is lost"])
def test_a_member_takes_its_keys_along(how: str) -> None:
    """Whether it leaves or is lost; the keys that are to last stay with the others."""
    cluster = Cluster()
    one, other = cluster.group(2)
    a, b = (User(cluster, member.session, member.seat) for member in (one, other))
    a.set(lasting=False, mine=b"")
    a.set(ours=b"")
    if how == "leaves":
        one.leave()
    else:
        cluster.lose(one)
    assert b.listed() == ["ours"]


def test_the_keys_of_a_group_are_its_own_and_end_with_it() -> None:
    """Another group, a later life of it and the store itself have others."""
    cluster = Cluster()
    one, other = cluster.group(2)
    a = User(cluster, one.session, one.seat)
    a.set(a=b"1")
    stranger = cluster.group(1, "h")[0]
    for user in (User(cluster), User(cluster, stranger.session, stranger.seat)):
        assert user.listed() == []
    wait = User(cluster, other.session, other.seat).wait("never")
    other.leave()
    assert type(wait.event) is Withdrawn
    one.leave()
    assert isinstance(a.get("a").error, GroupClosedError)
    again, _ = cluster.group(2)
    assert User(cluster, again.session, again.seat).listed() == []


def test_an_abort_ends_every_wait_for_keys() -> None:
    """As every other call of the group."""
    cluster = Cluster()
    one, other = cluster.group(2)
    wait = User(cluster, one.session, one.seat).get("never")
    other.abort()
    assert isinstance(wait.error, GroupAbortedError)
    assert isinstance(User(cluster, one.session, one.seat).set(a=b"").error, GroupAbortedError)


def test_a_token_for_some_groups_is_none_for_the_store_s_keys() -> None:
    """It may use those of its groups."""
    cluster = Cluster()
    member = cluster.group(1)[0]
    cluster.engine.restrict(member.session, ("g*",))
    assert isinstance(User(cluster, member.session).set(a=b"").error, AuthenticationError)
    assert User(cluster, member.session, member.seat).set(a=b"").value == 1
    assert cluster.engine.describe(("g*",))["keys"] == {"keys": 0, "queues": 0, "bytes": 0}


@pytest.mark.parametrize(
    ("error", "kind", "fields", "body"),
    [
        (UsageError, SetKeys, (1, 0.0, True), join_parts([b"a", b""])),
        (UsageError, SetKeys, (1, math.nan, True), join_parts([b"a", b""])),
        (UsageError, SetKeys, (0, 1.0, True), ()),
        (UsageError, GetKeys, (1025,), ()),
        (UsageError, GetKeys, (-1,), ()),
        (ProtocolError, GetKeys, (2,), join_parts([b"a"])),
        (ProtocolError, GetKeys, (1,), join_parts([b"\xff"])),
        (UsageError, GetKeys, (1,), join_parts([b""])),
        (UsageError, GetKeys, (1,), join_parts([b"x" * 1025])),
        (UsageError, AddKey, (1, "x" * 1025), ()),
        (UsageError, ListKeys, ("x" * 1025,), ()),
        (PayloadTooLargeError, AppendKey, ("a",), (b"x" * 65,)),
        (PayloadTooLargeError, SetKeys, (1, 1.0, True), join_parts([b"a", b"x" * 65])),
        (ProtocolError, CompareSet, (True, "a"), join_parts([b"a"])),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    error: type[AiopgError], kind: Any, fields: tuple[object, ...], body: tuple[bytes, ...]
) -> None:
    """With an error that says what is wrong."""
    user = User(Cluster(value_bytes=64))
    assert type(user.say(kind, *fields, body=body).error) is error
    assert user.cluster.engine.describe()["keys"] == {"keys": 0, "queues": 0, "bytes": 0}
    assert user.cluster.is_empty


def test_values_that_are_too_many_bytes_together_are_refused_to_their_reader() -> None:
    """Whether they are there already or come while it waits; the link goes on."""
    user = User(Cluster(payload_bytes=100))
    user.set(a=b"x" * 60)
    late = user.get("a", "b")
    user.set(b=b"x" * 60)
    for ticket in (late, user.get("a", "b")):
        assert isinstance(ticket.error, PayloadTooLargeError)
    assert user.get("a").parts(1) == [b"x" * 60]


def test_keys_count_for_the_store_and_for_their_group() -> None:
    """What is refused is not counted, what is deleted is not counted any more."""
    size = 4 * TALLY_STEP
    cluster = Cluster(store_bytes=3 * size, group_bytes=2 * size, kept_changes_bytes=1)
    member = cluster.group(1)[0]
    user, own = User(cluster, member.session), User(cluster, member.session, member.seat)
    assert own.set(a=bytes(size)).value
    assert isinstance(own.set(b=bytes(size)).error, StoreFullError)
    assert user.set(a=bytes(size)).value
    refused = user.set(b=bytes(size))
    assert isinstance(refused.error, StoreFullError)
    assert "store_bytes" in str(refused.error)
    own.names(DeleteKeys, "a")
    assert user.set(b=bytes(size)).value
    user.names(DeleteKeys, "a", "b")
    assert own.set(a=bytes(size)).value


def test_nothing_is_left_of_a_session_that_ended() -> None:
    """Neither what it waited for nor what it owned."""
    cluster = Cluster()
    user = User(cluster)
    user.set(lasting=False, a=b"")
    user.get("b")
    cluster.file(cluster.engine.end_session("s", "over"))
    assert cluster.is_empty
    waits = cluster.engine._groups.common.keys.waits
    assert (waits.bytes, waits._by_name) == (0, {})
