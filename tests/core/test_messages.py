"""Messages: the closed set, and the small values in bodies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopg import errors
from aiopg._core import messages
from aiopg._core.messages import (
    KIND_OF,
    Acknowledge,
    Answer,
    Arrive,
    Cancel,
    Goodbye,
    Join,
    Message,
    Needs,
    Open,
    Opened,
    Put,
    Take,
    decode_message,
    pack_error,
    pack_value,
    unpack_error,
    unpack_value,
)
from aiopg.errors import AiopgError, CollectiveMismatchError, PeerLostError, ProtocolError, UsageError

EXAMPLES: list[Message] = [
    Open(b"id", 7, ()),
    Opened(b"id", 7, 100, 4711, ()),
    Acknowledge(()),
    Goodbye("bye", ()),
    Join(1, 2, "group", 0, 4, 3600.0, "pid 1", ()),
    Put(1, 2, 3, "tag", (b"body",)),
    Put(1, 2, 3, -5, (b"body",)),
    Take(1, 2, 3, 0, ()),
    Arrive(1, 2, 0, 9, "reduce", 0, "sum", Needs.ALL, 1, (b"part",)),
    Cancel(1, ()),
    Answer(1, True, (b"result",)),
]


def head_of(message: Message) -> list[Any]:
    """The head of the frame that carries it."""
    return [1, 0, KIND_OF[type(message)], *message[:-1]]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_a_message_is_decoded_as_it_was(message: Message) -> None:
    """Kind and fields say it all."""
    assert decode_message(head_of(message), message.body) == message


def test_every_message_has_a_kind_and_kinds_are_unique() -> None:
    """The set is closed: each class of it stands in the table once, with a type for each field."""
    for kind, (cls, fields) in messages._WIRE.items():
        assert messages.KIND_OF[cls] == kind
        assert len(fields) + 1 == len(cls._fields)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_a_field_too_many_too_few_or_of_another_type_is_refused(message: Message) -> None:
    """Also bool for int, int for float, and bytes for str: the types are exact."""
    head = head_of(message)
    wrong = [[*head, 0], *([head[:-1]] if len(head) > 3 else [])]
    wrong += [[*head[:i], other, *head[i + 1 :]] for i in range(3, len(head)) for other in (None, [1], 2 + 0j)]
    for damaged in wrong:
        with pytest.raises(ProtocolError, match="wrong number or types"):
            decode_message(damaged, message.body)
    with pytest.raises(ProtocolError, match="wrong number or types"):
        decode_message([1, 0, KIND_OF[Cancel], True], ())


@pytest.mark.parametrize("head", [[], [1], [1, 0], [1, 0, 99], [1, 0, "10"], [1, 0, True], [1, 0, [3]], [1, 0, None]])
def test_an_unknown_kind_is_refused(head: list[Any]) -> None:
    """Whatever stands in its place."""
    with pytest.raises(ProtocolError, match="no message has kind"):
        decode_message(head, ())


def test_the_refusal_of_a_kind_is_short() -> None:
    """It is sent back in a Goodbye, whose own head must not be too long."""
    with pytest.raises(ProtocolError) as caught:
        decode_message([1, 0, b"\x00" * 4000], ())
    assert len(caught.value.reason) < 200


ERRORS = [
    PeerLostError("g", [1, 2], "it left"),
    CollectiveMismatchError("g", "t", 4, {0: "barrier()", 1: "gather(root=0)"}),
    UsageError("no"),
    errors.GroupTimeoutError("recv", "g", 0, 1, [0], [1], 2.5),
    errors.DataExpiredError("g", "a message"),
    errors.StoreFullError("groups", 5, "somebody"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_an_error_arrives_as_it_was(error: AiopgError) -> None:
    """Class, text and fields."""
    copy = unpack_error(pack_error(error))
    assert (type(copy), str(copy), copy.fields()) == (type(error), str(error), error.fields())


@pytest.mark.parametrize(
    "value",
    [
        5,
        "ab",
        [],
        ["UsageError"],
        ["NoSuchError", {}],
        [["UsageError"], {}],
        ["UsageError", {}],
        ["UsageError", {"message": "m", "more": 1}],
        ["UsageError", 5],
        ["CollectiveMismatchError", {"group": "g", "tag": 0, "seq": 1, "calls": 5}],
        ["PeerLostError", {"group": "g", "ranks": 5, "reason": ""}],
        ["GroupTimeoutError", dict.fromkeys(("op", "group", "tag", "seq", "arrived", "missing", "elapsed"), "x")],
    ],
)
def test_a_failure_that_names_no_error_is_refused(value: object) -> None:
    """A store that is wrong cannot make a member raise anything it likes."""
    with pytest.raises(ProtocolError, match="names no known error"):
        unpack_error(pack_value(value))


def test_text_that_is_no_text_is_told_as_it_was_given() -> None:
    """A name may come from the file system and hold halves of characters."""
    error = CollectiveMismatchError("g\udcff", "\udc80", 1, {0: "\ud800()"})
    assert unpack_error(pack_error(error)).fields() == error.fields()


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_value_or_a_protocol_error(data: bytes) -> None:
    """Also as an error."""
    for unpack in (unpack_value, unpack_error):
        try:
            unpack((data[:20], data[20:]))
        except ProtocolError:
            pass
