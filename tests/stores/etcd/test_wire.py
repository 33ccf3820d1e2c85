"""The codec: what etcd sends is taken apart rightly, and what is no message is refused and breaks nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopg.errors import ProtocolError
from aiopg.stores.etcd._messages import Found, Span, Status, TxnResult, under
from aiopg.stores.etcd._watch import Told
from aiopg.stores.etcd._wire import Fields, flag, message, number, string, strings

FIELDS = st.integers(1, 2**29 - 1)


@given(FIELDS, st.integers(-(2**63), 2**63 - 1))
def test_numbers(field: int, value: int) -> None:
    """Every number of 64 bits is read as it was written, zero by not being there."""
    fields = Fields(number(field, value))
    assert fields.number(field) == value
    assert fields.unsigned(field) == value % 2**64
    assert fields.flag(field) is bool(value)
    assert Fields(flag(field, value != 0)).flag(field) is bool(value)


@given(FIELDS, st.lists(st.binary(max_size=300)))
def test_strings(field: int, values: list[bytes]) -> None:
    """Bytes are read as they were written, however many, and the last one where there is to be one."""
    fields = Fields(strings(field, values))
    assert fields.strings(field) == values
    assert fields.string(field) == (values[-1] if values else b"")
    assert fields.has(field) is bool(values)
    assert string(field, b"") == b""
    assert Fields(message(field, b"")).has(field)


def test_fields_that_nobody_knows_are_skipped() -> None:
    """Fields of every kind that there is may stand between those that we read."""
    fixed64, fixed32 = b"\x09" + bytes(8), b"\x15" + bytes(4)
    fields = Fields(fixed64 + number(7, 5) + fixed32 + string(9, b"x") + number(8, 6))
    assert (fields.number(7), fields.number(8), fields.number(1), fields.number(2)) == (5, 6, 0, 0)


@pytest.mark.parametrize(
    "data",
    [b"\x08", b"\x08\x80", b"\x0a\x05abc", b"\x09abc", b"\x0d", b"\x0b", b"\x0f", b"\x08" + b"\xff" * 10 + b"\x01"],
)
def test_what_is_no_message(data: bytes) -> None:
    """Bytes that end early, have a kind of field that there is not, or too long a number, are a ProtocolError."""
    with pytest.raises(ProtocolError, match="etcd sent"):
        Fields(data)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Whatever comes is read or refused."""
    for decode in (Found.decode, Told.decode, Status.decode, lambda data: TxnResult.decode(data, False)):
        try:
            decode(data)
        except ProtocolError:
            pass


@given(st.binary(min_size=1), st.binary())
def test_what_is_under_a_prefix(prefix: bytes, rest: bytes) -> None:
    """A span holds the keys that begin so, and no others."""
    if not prefix.strip(b"\xff"):
        with pytest.raises(ValueError, match="no prefix"):
            under(prefix)
        return
    span = under(prefix)
    assert span.key <= prefix + rest < span.end
    assert not span.end.startswith(prefix)
    assert span == Span(prefix, span.end)
