"""Locks and meetings of a key space."""

from __future__ import annotations

import pytest

from aiopg._core.key_messages import Lock, Meet, Unlock
from aiopg._core.messages import Failed
from aiopg.errors import GroupAbortedError, KeyOperationError, StoreFullError

from .cluster import Cluster, Ticket
from .user import User


def users(cluster: Cluster, count: int) -> list[User]:
    """Sessions that use the store's own keys."""
    return [User(cluster, f"s{number}") for number in range(count)]


def lock(user: User, key: str = "l") -> Ticket:
    """Ask for a lock."""
    return user.say(Lock, key)


def test_a_lock_has_one_holder_and_the_others_in_the_order_of_asking() -> None:
    """Each with a larger number than all before; who gave up is passed over."""
    a, b, c, d = users(Cluster(), 4)
    held, asked = lock(a), [lock(user) for user in (b, c, d)]
    assert held.value == 1
    assert all(ticket.waits for ticket in asked)
    b.cancel(asked[0])
    assert a.say(Unlock, 1, "l").value is True
    assert (asked[1].value, asked[2].waits) == (2, True)
    c.say(Unlock, 2, "l")
    assert asked[2].value == 3


def test_a_lock_has_to_have_room() -> None:
    """All that it is counted with; to stand in line for one needs none."""
    cluster = Cluster(group_bytes=1000)
    one, other = cluster.group(2)
    a, b = (User(cluster, member.session, member.seat) for member in (one, other))
    locks = [lock(a, f"lock{number}") for number in range(10)]
    full = [ticket for ticket in locks if isinstance(ticket.event, Failed)]
    assert full
    assert isinstance(full[0].error, StoreFullError)
    assert cluster.describe()["bytes"] <= 1000
    a.set(rest=b"x" * (1000 - cluster.describe()["bytes"] - 132 - 20))
    assert lock(b, "lock0").waits


def test_only_its_holder_lets_go_of_a_lock() -> None:
    """With the number that it came with, and once."""
    a, b = users(Cluster(), 2)
    held, asked = lock(a), lock(b)
    assert b.say(Unlock, held.value, "l").value is False
    assert a.say(Unlock, held.value + 1, "l").value is False
    assert asked.waits
    assert [a.say(Unlock, held.value, "l").value for _ in range(2)] == [True, False]


def test_a_lock_goes_on_when_its_holder_has_gone() -> None:
    """Its session ended, or it left the group whose lock it was."""
    cluster = Cluster()
    a, b = users(cluster, 2)
    lock(a)
    asked = lock(b)
    a.end()
    assert asked.value == 2
    one, other = cluster.group(2)
    mine, its = (User(cluster, member.session, member.seat) for member in (one, other))
    first = lock(mine).value
    asked = lock(its)
    one.leave()
    assert asked.value == first + 1
    b.end()
    other.leave()
    assert cluster.is_empty


def test_the_numbers_of_a_later_life_of_a_group_are_larger() -> None:
    """What they protect outlives the group."""
    cluster = Cluster()
    last = 0
    for _ in range(3):
        (member,) = cluster.group(1)
        user = User(cluster, member.session, member.seat)
        for _ in range(3):
            number = lock(user).value
            assert number > last
            last = number
            user.say(Unlock, number, "l")
        member.leave()


def test_as_many_locks_as_keys_may_be_held() -> None:
    """The error names the limit."""
    user = User(Cluster(keys=2))
    lock(user, "a")
    lock(user, "b")
    assert isinstance(lock(user, "c").error, StoreFullError)


def test_a_meeting_begins_when_all_have_come_and_then_anew() -> None:
    """Each time with whoever comes, one caller twice as well."""
    a, b = users(Cluster(), 2)
    for _ in range(2):
        tickets = [user.say(Meet, 3, "m") for user in (a, a)]
        assert all(ticket.waits for ticket in tickets)
        tickets.append(b.say(Meet, 3, "m"))
        assert [ticket.answer for ticket in tickets] == [b"", b"", b""]
    assert a.say(Meet, 1, "m").answer == b""
    assert a.cluster.is_empty


@pytest.mark.parametrize("how", ["gives up", "is gone"])
def test_who_waits_no_more_has_not_come(how: str) -> None:
    """It is said how many had come and how many were to."""
    a, b = users(Cluster(), 2)
    kept, gone = a.say(Meet, 3, "m"), b.say(Meet, 3, "m")
    if how == "gives up":
        b.cancel(gone)
        assert gone.facts == [[0, 1], [2]]
    else:
        b.end()
    assert a.say(Meet, 3, "m").waits
    assert a.say(Meet, 3, "m").answer == kept.answer == b""


@pytest.mark.parametrize("expected", [0, -1, 16385])
def test_a_meeting_is_of_a_number_that_can_come(expected: int) -> None:
    """And of one number at a time."""
    user = User(Cluster())
    assert isinstance(user.say(Meet, expected, "m").error, KeyOperationError)
    assert user.cluster.is_empty
    user.say(Meet, 3, "m")
    refused = user.say(Meet, 2, "m").error
    assert "world_size 3, not 2" in str(refused)


def test_an_abort_ends_the_waits_for_locks_meetings_and_queues() -> None:
    """As every other call of the group."""
    cluster = Cluster()
    one, other = cluster.group(2)
    a, b = (User(cluster, member.session, member.seat) for member in (one, other))
    lock(a)
    waits = [lock(b), b.say(Meet, 2, "m"), b.pop("q")]
    one.abort()
    assert all(isinstance(ticket.error, GroupAbortedError) for ticket in waits)
    for member in (one, other):
        member.leave()
    assert cluster.is_empty
