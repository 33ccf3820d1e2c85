"""Messages: the closed set, and the small values in bodies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopg import errors
from aiopg._core.messages import (
    COMMANDS,
    Answer,
    Cancel,
    Failed,
    Join,
    Withdrawn,
    answer,
    pack_error,
    pack_value,
    unpack_error,
    unpack_value,
)
from aiopg.errors import AiopgError, CollectiveMismatchError, PeerLostError, ProtocolError, UsageError


def test_commands_and_events_name_their_call_first_and_carry_a_body_last() -> None:
    """Whoever answers or forwards one needs to know no more of it."""
    events: set[type[Any]] = {Answer, Failed, Withdrawn}
    commands: frozenset[type[Any]] = COMMANDS
    for cls in commands | events:
        assert (cls._fields[0], cls._fields[-1]) == ("call", "body")
        assert cls._field_defaults["body"] == ()
    assert {Cancel, Join} < commands
    assert not commands & events


def test_the_cheap_answer_is_an_answer() -> None:
    """Equal to one made by its constructor, and of its class."""
    made = answer(7, True, (b"body",))
    assert made == Answer(7, True, (b"body",))
    assert type(made) is Answer


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
