"""Replies: each call one event."""

from __future__ import annotations

import pytest

from aiopg._core.messages import Answer, Failed, Withdrawn
from aiopg._core.replies import Replies, Waiting
from aiopg.errors import PeerLostError, ProtocolError, StoreFullError


class Call(Waiting):
    """A call that waits for rank 1."""

    def facts(self) -> tuple[list[int], list[int]]:
        return [0], [1]

    def withdraw(self) -> bool:
        return True


def test_a_call_waits_until_it_is_ended() -> None:
    """By an answer, a failure or a withdrawal; then it is forgotten."""
    replies = Replies(10)
    calls = [Call("s", 1, number) for number in range(3)]
    for call in calls:
        replies.wait(call)
    assert replies.waiting_of("s") == calls
    replies.answer(calls[0], (b"x",))
    replies.fail([calls[1]], PeerLostError("g", [1], "it left"))
    replies.withdrawn(calls[2], calls[2].facts())
    events = replies.drain()
    assert [(session, type(event), event.call) for session, event in events] == [
        ("s", Answer, 0),
        ("s", Failed, 1),
        ("s", Withdrawn, 2),
    ]
    assert len(replies) == 0
    assert replies.drain() == []


def test_calls_of_one_seat_are_told_from_those_of_another() -> None:
    """A session may have many seats."""
    replies = Replies(10)
    first, second = Call("s", 1, 1), Call("s", 2, 2)
    replies.wait(first)
    replies.wait(second)
    assert replies.waiting_of("s", 2) == [second]
    assert replies.waiting_of("t") == []
    assert replies.waiting("s", 1) is first
    assert replies.waiting("t", 1) is None


def test_an_error_for_many_is_encoded_once() -> None:
    """All who fail for one reason share its bytes."""
    replies = Replies(10)
    calls = [Call(session, 1, 1) for session in "abc"]
    replies.fail(calls, PeerLostError("g", [1], "it left"))
    bodies = {id(event.body) for _, event in replies.drain()}
    assert len(bodies) == 1
    replies.fail([], PeerLostError("g", [1], "it left"))
    assert replies.drain() == []


def test_a_number_that_waits_cannot_be_used_again() -> None:
    """Nobody could tell the event of one from that of the other."""
    replies = Replies(10)
    replies.check("s", 1)
    replies.wait(Call("s", 1, 1))
    with pytest.raises(ProtocolError, match="call 1 was made again"):
        replies.check("s", 1)
    replies.check("t", 1)


def test_only_so_many_calls_of_a_session_wait() -> None:
    """The limit has a name."""
    replies = Replies(2)
    for number in (1, 2):
        replies.check("s", number)
        replies.wait(Call("s", 1, number))
    with pytest.raises(StoreFullError, match="waiting_calls = 2"):
        replies.check("s", 3)
    replies.check("t", 3)


def test_a_session_that_ended_is_told_nothing_more() -> None:
    """Neither what was about to be said, nor what comes to its calls later."""
    replies = Replies(10)
    waiting, receipted, other = Call("s", 1, 1), Call("s", 1, 2), Call("t", 1, 1)
    replies.wait(waiting)
    replies.answer_all([receipted], (), True)
    replies.answer(other)
    replies.end_session("s")
    assert [session for session, _ in replies.drain()] == ["t"]
    assert len(replies) == 0
