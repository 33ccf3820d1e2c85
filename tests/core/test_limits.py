"""Limits that cannot work are refused when they are made."""

from __future__ import annotations

from dataclasses import fields

import pytest

from aiopg._core.frames import JOIN_BELOW, RECEIVE_BUFFER
from aiopg._core.limits import GIB, HEAD_BYTES_MOST, MIB, Limits


def test_the_defaults_are_legal() -> None:
    """And the largest body is one payload and the table of a collective."""
    limits = Limits()
    assert limits.body_bytes == limits.payload_bytes + 4 * limits.world_size


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_is_over_0(name: str, value: int) -> None:
    """A bound of nothing would stall everything."""
    with pytest.raises(ValueError, match=f"{name} must be over 0"):
        Limits(**{name: value})


def test_what_a_session_keeps_is_under_what_a_store_keeps_for_it() -> None:
    """Small messages are limited by their number alone, and one payload may go past the bytes of the large ones."""
    limits = Limits()
    assert (limits.outbox_frames, limits.retained_bytes) == (4096, 64 * MIB)
    small = limits.outbox_frames * (8 + limits.head_bytes + JOIN_BELOW)
    assert small + limits.retained_bytes + limits.body_bytes < limits.output_bytes


def test_a_head_fits_the_receive_buffer() -> None:
    """Else a receiver could wait for ever for room to read into."""
    assert 8 + Limits(head_bytes=HEAD_BYTES_MOST).head_bytes < RECEIVE_BUFFER
    with pytest.raises(ValueError, match="head_bytes must be at most"):
        Limits(head_bytes=HEAD_BYTES_MOST + 1)


def test_a_body_fits_the_length_field() -> None:
    """A frame's body length is 32 bits."""
    Limits(payload_bytes=4 * GIB - 1 - 4 * 16384)
    with pytest.raises(ValueError, match="payload_bytes must be under 4 GiB"):
        Limits(payload_bytes=4 * GIB - 4 * 16384)
