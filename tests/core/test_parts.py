"""Parts: several payloads in one body."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopg._core.frames import Buffer, body_size
from aiopg._core.parts import JOIN_BELOW, join_parts, pack_parts, split_parts
from aiopg.errors import ProtocolError


@given(st.lists(st.binary(max_size=50), max_size=20))
@settings(max_examples=200, deadline=None)
def test_parts_come_out_as_they_went_in(parts: list[Buffer]) -> None:
    """Empty ones too, from a body in pieces and from one buffer."""
    assert split_parts(join_parts(parts), len(parts)) == parts
    assert split_parts(pack_parts(parts), len(parts)) == parts


def test_large_parts_are_not_copied() -> None:
    """A large answer is its parts themselves; a small one is a single buffer."""
    large = b"l" * JOIN_BELOW
    assert pack_parts([large, b"s"])[1] is large
    assert body_size(pack_parts([large, b"s"])) == 8 + JOIN_BELOW + 1
    assert len(pack_parts([b"a", b"b"])) == 1
    assert split_parts(pack_parts([large, b"s"]), 2) == [large, b"s"]


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00" * 7, b"\x00\x00\x00\x01" * 2, b"\x00\x00\x00\x00" * 2 + b"x", b"\xff\xff\xff\xff" * 2 + b"xx"],
)
def test_a_table_that_does_not_fit_its_parts_is_refused(body: bytes) -> None:
    """Too short for the table, parts missing, too much, lengths past everything."""
    with pytest.raises(ProtocolError, match="body of"):
        split_parts((body,), 2)
