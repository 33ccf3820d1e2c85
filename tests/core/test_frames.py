"""Frames: bytes in, whole frames out, whatever way the bytes are cut."""

from __future__ import annotations

import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopg._core.frames import JOIN_BELOW, RECEIVE_BUFFER, Body, Frame, FrameReceiver, body_size, encode_frame
from aiopg._core.limits import Limits
from aiopg.errors import ProtocolError

LIMITS = Limits(payload_bytes=1024 * 1024)


def wire(frames: list[tuple[list[Any], Body]]) -> bytes:
    """The bytes of these frames."""
    return b"".join(b"".join(encode_frame(msgpack.packb(head), body)) for head, body in frames)


def plain(frames: list[Frame]) -> list[tuple[list[Any], bytes]]:
    """Frames whose bodies can be compared."""
    return [(head, b"".join(body)) for head, body in frames]


def received(chunks: list[bytes], limits: Limits = LIMITS) -> list[tuple[list[Any], bytes]]:
    """What a receiver makes of chunks, one after another."""
    receiver = FrameReceiver(limits)
    return plain([frame for chunk in chunks for frame in receiver.receive_data(chunk)])


HEADS = st.lists(st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20) | st.binary(max_size=40), max_size=6)
BODIES = st.binary(max_size=200) | st.integers(0, 3 * RECEIVE_BUFFER).map(lambda size: b"\xa5" * size)
FRAMES = st.lists(st.tuples(HEADS, BODIES.map(lambda body: (body,) if body else ())), max_size=8)


@given(FRAMES, st.data())
@settings(max_examples=150, deadline=None, print_blob=True)
def test_any_split_of_the_bytes_gives_the_same_frames(
    frames: list[tuple[list[Any], Body]], data: st.DataObject
) -> None:
    """One chunk is the same as any other number of chunks."""
    stream = wire(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert received([stream]) == received(chunks) == plain(frames)


def test_byte_by_byte_gives_the_same_frames() -> None:
    """The smallest chunks there are, over small bodies, the reused buffer's edge, and a large one."""
    bodies = [b"", b"x", b"y" * 500, b"", b"e" * (RECEIVE_BUFFER - 20), b"l" * (RECEIVE_BUFFER + 1), b"z"]
    frames: list[tuple[list[Any], Body]] = [([i, "head"], (body,) if body else ()) for i, body in enumerate(bodies)]
    stream = wire(frames)
    assert received([stream[i : i + 1] for i in range(len(stream))]) == plain(frames)


def test_the_buffer_handed_out_is_never_empty() -> None:
    """A reader that fills only what it gets always gets on."""
    receiver, frames = FrameReceiver(LIMITS), []
    # A frame that fits the buffer, and not behind the one before it, must be moved to the front.
    stream = wire([([i], (b"b" * (10_000, 30_000, 16_000, 20_000, 100)[i % 5],)) for i in range(40)])
    while stream:
        buffer = receiver.get_buffer()
        assert len(buffer) > 0
        count = min(len(buffer), len(stream))
        buffer[:count], stream = stream[:count], stream[count:]
        frames += receiver.buffer_updated(count)
    assert [head for head, _ in frames] == [[i] for i in range(40)]


def test_a_small_frame_is_one_buffer() -> None:
    """One system call for a small message, no copy of a large one."""
    large = b"l" * (JOIN_BELOW + 1)
    assert len(encode_frame(b"\x90", ())) == len(encode_frame(b"\x90", (b"a", b"b"))) == 1
    assert encode_frame(b"\x90", (large, b"b"))[1] is large
    assert body_size((large, b"b")) == JOIN_BELOW + 2


def test_bodies_that_were_received_do_not_change() -> None:
    """What was handed on is not overwritten by what comes after it."""
    receiver = FrameReceiver(LIMITS)
    ((_, first),) = receiver.receive_data(wire([([1], (b"first",))]))
    ((_, large),) = receiver.receive_data(wire([([2], (b"L" * 2 * RECEIVE_BUFFER,))]))
    receiver.receive_data(wire([([3], (b"X" * 20000,))]) * 3)
    assert first == (b"first",)
    assert bytes(large[0]) == b"L" * 2 * RECEIVE_BUFFER
    assert isinstance(large[0], memoryview)
    assert large[0].readonly


@pytest.mark.parametrize("head_size", [0, LIMITS.head_bytes + 1, 2**32 - 1])
def test_a_head_of_a_wrong_length_is_refused_at_its_first_bytes(head_size: int) -> None:
    """The length is looked at before anything of that length is waited for."""
    with pytest.raises(ProtocolError, match="frame head of"):
        FrameReceiver(LIMITS).receive_data(struct.pack(">II", head_size, 0))


@pytest.mark.parametrize("size", [LIMITS.body_bytes + 1, 2**32 - 1])
def test_a_body_over_the_limit_is_refused_before_memory_is_taken_for_it(size: int) -> None:
    """Eight bytes decide; nothing of the size they claim is allocated."""
    receiver = FrameReceiver(LIMITS)
    with pytest.raises(ProtocolError, match="frame body of"):
        receiver.receive_data(struct.pack(">II", 3, size))
    assert len(receiver._body) == 0


def test_the_largest_legal_frame_passes() -> None:
    """The limit itself is legal, for the head and for the body."""
    limits = Limits(payload_bytes=100_000, world_size=4, head_bytes=64)
    head, body = ["h" * 60], b"b" * limits.body_bytes
    assert len(msgpack.packb(head)) == 63
    assert received([wire([(head, (body,))])], limits) == [(head, body)]


@pytest.mark.parametrize("head", [b"\xc1", b"\x91", b"\x90\x90", b"\x05", b"\x91\xa1\xff", b"\x81\x90\x01", b"\x80"])
@pytest.mark.parametrize("size", [0, 2 * RECEIVE_BUFFER])
def test_a_head_that_is_no_array_is_refused(head: bytes, size: int) -> None:
    """Damage, an incomplete value, two values, a number, no text, a list as a key, a map."""
    with pytest.raises(ProtocolError, match="frame head is"):
        FrameReceiver(LIMITS).receive_data(struct.pack(">II", len(head), size) + head)


@given(st.binary(max_size=400), st.data())
@settings(max_examples=400, deadline=None, print_blob=True)
def test_damage_is_a_protocol_error_or_another_frame(noise: bytes, data: st.DataObject) -> None:
    """A receiver raises nothing but `ProtocolError`, at whatever place its input is damaged."""
    stream = wire([([1, 2, 3, "text", b"bytes", 1.5], (b"body",)), ([4], ())])
    place = data.draw(st.integers(0, len(stream)))
    try:
        received([stream[:place] + noise + stream[place + len(noise) :]])
    except ProtocolError:
        pass
