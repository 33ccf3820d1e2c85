"""Queues of a key space: first in, first out, each item for one, and none lost on its way."""

from __future__ import annotations

import pytest

from aiopg._core.key_messages import DeleteKeys, PutBack
from aiopg.errors import ProtocolError, QueueEmptyError, StoreFullError

from .cluster import Cluster
from .user import User, item


def test_items_come_in_the_order_in_which_they_were_pushed() -> None:
    """It is told how many there are; an empty item is an item."""
    user = User(Cluster())
    assert [user.push("q", value).value for value in (b"1", b"", b"3")] == [1, 2, 3]
    assert [item(user.pop("q"))[1] for _ in range(3)] == [b"1", b"", b"3"]
    assert (user.length("q"), user.listed()) == (0, [])


def test_who_waits_longest_has_the_next_item() -> None:
    """One push wakes one; who has given up is passed over."""
    user = User(Cluster())
    first, second, third = user.pop("q"), user.pop("q"), user.pop("q")
    user.cancel(first)
    assert first.facts == [[], [0]]
    assert user.push("q", b"1").value == 0
    assert (item(second)[1], third.waits) == (b"1", True)


def test_a_pop_that_is_not_to_wait_says_that_nothing_is_there() -> None:
    """And leaves nothing behind."""
    user = User(Cluster())
    assert isinstance(user.pop("q", waits=False).error, QueueEmptyError)
    assert user.cluster.is_empty
    user.push("q", b"1")
    assert item(user.pop("q", waits=False))[1] == b"1"


def test_an_item_that_was_not_confirmed_goes_back_when_its_session_ends() -> None:
    """To its place, before what came later; one that was confirmed is gone with the session."""
    cluster = Cluster()
    user, other = User(cluster, "one"), User(cluster, "other")
    for value in (b"1", b"2", b"3", b"4"):
        other.push("q", value)
    pops = [user.pop("q") for _ in range(3)]
    cluster.confirm(pops[1])
    user.end()
    assert [item(other.pop("q"))[1] for _ in range(3)] == [b"1", b"3", b"4"]


def test_an_item_that_goes_back_is_for_who_waits() -> None:
    """Also if that is a wait for anything in the queue."""
    cluster = Cluster()
    user, other = User(cluster, "one"), User(cluster, "other")
    user.push("q", b"1")
    user.pop("q")
    wait, pop = other.wait("q"), other.pop("q")
    user.end()
    assert item(pop)[1] == b"1"
    assert wait.waits
    other.say(PutBack, item(pop)[0], "q", body=(b"1",))
    assert wait.answer == b""


def test_an_item_that_goes_back_is_told_to_who_waits_for_one() -> None:
    """Where nobody takes it: `wait` asks for a queue that holds something, however it came to."""
    cluster = Cluster()
    user, other = User(cluster, "one"), User(cluster, "other")
    user.push("q", b"1")
    user.pop("q")
    wait = other.wait("q")
    user.end()
    assert (wait.answer, other.length("q")) == (b"", 1)


def test_the_limit_of_names_counts_a_queue_once() -> None:
    """One that is waited for is there already: a push to it, or one more pop, is not refused for it."""
    user = User(Cluster(keys=1))
    pops = [user.pop("q"), user.pop("q")]
    assert [user.push("q", value).value for value in (b"1", b"2", b"3")] == [0, 0, 1]
    assert [item(pop)[1] for pop in pops] == [b"1", b"2"]
    assert isinstance(user.pop("other").error, StoreFullError)


def test_a_full_queue_takes_back_what_was_popped() -> None:
    """Others may have filled it meanwhile; an item that nobody wanted is not lost for that."""
    user = User(Cluster(queue_items=2, keys=1))
    for value in (b"1", b"2"):
        user.push("q", value)
    number, value = item(user.pop("q"))
    user.push("q", b"3")
    assert user.say(PutBack, number, "q", body=(value,)).answer == b""
    assert [item(user.pop("q"))[1] for _ in range(3)] == [b"1", b"2", b"3"]


def test_what_was_never_popped_cannot_be_put_back() -> None:
    """A number of no item makes no sense, and would have the queue out of order for ever."""
    user = User(Cluster())
    user.push("q", b"1")
    for number in (0, -1, 2):
        assert isinstance(user.say(PutBack, number, "q", body=(b"x",)).error, ProtocolError)
    assert user.length("q") == 1


def test_what_is_put_back_has_its_place_again() -> None:
    """Whatever the order in which two are put back."""
    user = User(Cluster())
    for value in (b"1", b"2", b"3", b"4"):
        user.push("q", value)
    items = [item(user.pop("q")) for _ in range(3)]
    for number, value in (items[1], items[2], items[0]):
        user.say(PutBack, number, "q", body=(value,))
    assert [item(user.pop("q"))[1] for _ in range(4)] == [b"1", b"2", b"3", b"4"]


def test_a_queue_that_holds_something_is_there() -> None:
    """For check, wait, list and delete; a get waits for a key all the same."""
    user = User(Cluster())
    wait, get = user.wait("q"), user.get("q")
    user.push("q", b"1")
    assert (wait.answer, get.waits, user.check("q"), user.listed()) == (b"", True, True, ["q"])
    user.set(q=b"key")
    assert (get.parts(1), user.listed()) == ([b"key"], ["q"])
    assert user.names(DeleteKeys, "q").value == 1
    assert (user.check("q"), user.length("q")) == (False, 0)


def test_a_full_queue_takes_no_more() -> None:
    """The error names the limit; nothing is dropped."""
    user = User(Cluster(queue_items=2))
    user.push("q", b"1")
    user.push("q", b"2")
    refused = user.push("q", b"3").error
    assert isinstance(refused, StoreFullError)
    assert (refused.limit, user.length("q")) == ("queue_items", 2)


def test_what_is_put_back_finds_room_in_a_queue_that_is_full_again() -> None:
    """Others may have filled it meanwhile, or all the names that there may be: the item would be lost."""
    user = User(Cluster(queue_items=1, keys=1))
    user.push("q", b"1")
    first = item(user.pop("q"))
    user.push("q", b"2")
    assert user.say(PutBack, first[0], "q", body=(first[1],)).answer == b""
    popped = [item(user.pop("q")) for _ in range(2)]
    assert [value for _, value in popped] == [b"1", b"2"]
    user.push("other", b"3")
    assert user.say(PutBack, popped[0][0], "q", body=(b"1",)).answer == b""
    assert isinstance(user.push("q", b"4").error, StoreFullError)


@pytest.mark.parametrize("how", ["cancelled", "over"])
def test_a_queue_for_which_nobody_waits_any_more_is_gone(how: str) -> None:
    """No name of it is kept."""
    user = User(Cluster())
    pop = user.pop("q")
    if how == "cancelled":
        user.cancel(pop)
    else:
        user.end()
    assert user.cluster.is_empty
    assert len(user.cluster.engine._groups.common.keys.queues) == 0
