"""Frames: bytes in, whole frames out, whatever way the bytes are cut."""

from __future__ import annotations

import struct
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopg._core.frames import (
    PREFIX_HEAD_BYTES,
    RECEIVE_BUFFER,
    FrameReceiver,
    Received,
    body_size,
    receive_buffer,
)
from aiopg._core.limits import Limits
from aiopg.errors import ProtocolError

LIMITS = Limits(payload_bytes=1024 * 1024)
SMALL = Limits(payload_bytes=1000, world_size=1, head_bytes=64)

Plain: TypeAlias = tuple[int, int, int, bytes, bytes]
"""A frame whose body is one piece: sequence number, acknowledgement, kind, fields, body."""


def wire(*frames: Plain) -> bytes:
    """The bytes of these frames, made without the code under test."""
    return b"".join(
        struct.pack(">IIQQB", 17 + len(fields), len(body), seq, ack, kind) + fields + body
        for seq, ack, kind, fields, body in frames
    )


def plain(frames: list[Received]) -> list[Plain]:
    """Frames that can be compared, once their bodies are seen to be none or one piece, and their fields bytes."""
    for _, _, _, fields, body in frames:
        assert type(fields) is bytes
        assert body == () or (len(body) == 1 and len(body[0]) > 0)
    return [(seq, ack, kind, fields, b"".join(body)) for seq, ack, kind, fields, body in frames]


def received(chunks: list[bytes], limits: Limits = LIMITS) -> list[Plain]:
    """What a receiver makes of chunks, one after another."""
    receiver = FrameReceiver(limits)
    return plain([frame for chunk in chunks for frame in receiver.receive_data(chunk)])


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """`stream` in chunks that end at `places`, sorted."""
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


NUMBERS = st.integers(0, 2**64 - 1)
BODIES = st.binary(max_size=200) | st.integers(0, 3 * RECEIVE_BUFFER).map(lambda size: b"\xa5" * size)
FRAMES = st.lists(st.tuples(NUMBERS, NUMBERS, st.integers(0, 255), st.binary(max_size=200), BODIES), max_size=8)


@given(FRAMES, st.data())
@settings(max_examples=150, deadline=None, print_blob=True)
def test_any_split_of_the_bytes_gives_the_same_frames(frames: list[Plain], data: st.DataObject) -> None:
    """One chunk is the same as any other number of chunks."""
    stream = wire(*frames)
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    assert received([stream]) == received(cut(stream, places)) == frames


@given(FRAMES, st.data())
@settings(max_examples=200, deadline=None, print_blob=True)
def test_a_read_of_one_whole_frame_is_like_any_other(frames: list[Plain], data: st.DataObject) -> None:
    """Cuts at and around the ends of frames: reads of one whole frame, of its rest, of it and a piece of the next."""
    stream, ends = wire(*frames), [0]
    for frame in frames:
        ends.append(ends[-1] + len(wire(frame)))
    near = [st.sampled_from((0, -25, -24, -8, -1, 1, 7, 8, 9, 24, 25, 26)) for _ in ends]
    places = [end + offset for end, offset in zip(ends, data.draw(st.tuples(*near)), strict=True)]
    places = sorted(place for place in places if 0 <= place <= len(stream))
    assert received(cut(stream, ends[1:])) == received(cut(stream, places)) == frames


@pytest.mark.parametrize("before", [[], [b""], [b"x" * 300], [b"l" * (RECEIVE_BUFFER + 1)], [b"x", b"y" * 20_000]])
@pytest.mark.parametrize("size", [0, 1, 500])
def test_the_rest_of_a_frame_completes_it_at_whatever_byte_it_was_cut(before: list[bytes], size: int) -> None:
    """With and without frames before it in the same read, and the receiver is as good as new after it."""
    ahead = [(i, 0, 9, b"", body) for i, body in enumerate(before)]
    frame: Plain = (2**63, 2**64 - 1, 255, b"fields", b"b" * size)
    after: Plain = (7, 6, 5, b"", b"after")
    head, stream = wire(*ahead), wire(frame)
    for place in range(len(stream) + 1):
        receiver = FrameReceiver(LIMITS)
        whole = receiver.receive_data(head + stream[:place]) + receiver.receive_data(stream[place:])
        assert plain(whole) == [*ahead, frame]
        assert len(receiver.window) == RECEIVE_BUFFER
        assert plain(receiver.receive_data(wire(after))) == [after]


def test_byte_by_byte_gives_the_same_frames() -> None:
    """The smallest chunks there are, over small bodies, the reused buffer's edge, and a large one."""
    sizes = [0, 1, 500, 0, *(RECEIVE_BUFFER - 25 - 4 + more for more in (-1, 0, 1)), RECEIVE_BUFFER + 1, 1]
    frames: list[Plain] = [(i, i, i, b"head", bytes((i,)) * size) for i, size in enumerate(sizes)]
    stream = wire(*frames)
    assert received([stream[i : i + 1] for i in range(len(stream))]) == frames


def test_the_window_is_never_empty() -> None:
    """A reader that fills only what it gets always gets on."""
    receiver, frames = FrameReceiver(LIMITS), []
    # A frame that fits the buffer, and not behind the one before it, must be moved to the front.
    stream = wire(*((i, 0, 1, b"", b"b" * (10_000, 30_000, 16_000, 20_000, 100)[i % 5]) for i in range(40)))
    while stream:
        window = receiver.window
        assert len(window) > 0
        count = min(len(window), len(stream))
        window[:count], stream = stream[:count], stream[count:]
        frames += receiver.buffer_updated(count)
    assert [seq for seq, *_ in frames] == list(range(40))
    assert len(receiver.window) > 0


def test_a_body_in_pieces_is_as_large_as_they_are_together() -> None:
    """No piece, empty pieces, some."""
    assert [body_size(body) for body in ((), (b"",), (b"a", b"", memoryview(b"bc")))] == [0, 0, 3]


def test_what_was_received_does_not_change() -> None:
    """What was handed on, fields or body, is not overwritten by what comes after it."""
    receiver = FrameReceiver(LIMITS)
    ((*_, fields, first),) = receiver.receive_data(wire((1, 0, 1, b"fields", b"first")))
    both = receiver.receive_data(wire((2, 0, 1, b"two", b"second"), (3, 0, 1, b"three", b"third")))
    ((*_, large_fields, large),) = receiver.receive_data(wire((4, 0, 1, b"large", b"L" * 2 * RECEIVE_BUFFER)))
    receiver.receive_data(wire((5, 0, 1, b"X" * 30, b"X" * 20000)) * 3)
    assert (fields, first) == (b"fields", (b"first",))
    assert plain(both) == [(2, 0, 1, b"two", b"second"), (3, 0, 1, b"three", b"third")]
    assert large_fields == b"large"
    assert bytes(large[0]) == b"L" * 2 * RECEIVE_BUFFER
    assert isinstance(large[0], memoryview)
    assert large[0].readonly


BAD_LENGTHS = [
    *((head_size, 0, "frame head of") for head_size in (0, PREFIX_HEAD_BYTES - 1, LIMITS.head_bytes + 1, 2**32 - 1)),
    *((PREFIX_HEAD_BYTES, size, "frame body of") for size in (LIMITS.body_bytes + 1, 2**32 - 1)),
    (0, 2**32 - 1, "frame head of"),
]
BEFORE = [
    [],
    [wire((1, 0, 1, b"", b""))],
    [wire((1, 0, 1, b"fields", b"body")) * 3],
    [wire((1, 0, 1, b"", b"l" * 2 * RECEIVE_BUFFER))],
    [wire((1, 0, 1, b"", b"b" * 100)), wire((2, 0, 1, b"", b"h" * (RECEIVE_BUFFER // 2 + 100)))],
]


@pytest.mark.parametrize(("head_size", "size", "reason"), BAD_LENGTHS)
@pytest.mark.parametrize("before", BEFORE, ids=lambda before: f"after {sum(map(len, before))} bytes")
def test_a_length_that_is_not_allowed_is_refused_at_its_eighth_byte(
    head_size: int, size: int, reason: str, before: list[bytes]
) -> None:
    """Before anything of that length is waited for or allocated, whatever came before in the same read or others."""
    lengths = struct.pack(">II", head_size, size)
    together, apart, slow = (FrameReceiver(LIMITS) for _ in range(3))
    with pytest.raises(ProtocolError, match=reason):
        together.receive_data(b"".join(before) + lengths)
    for data in before:
        assert apart.receive_data(data)
    with pytest.raises(ProtocolError, match=reason):
        apart.receive_data(lengths)
    slow.receive_data(b"".join(before) + lengths[:7])
    with pytest.raises(ProtocolError, match=reason):
        slow.receive_data(lengths[7:])
    assert [len(receiver._body) for receiver in (together, apart, slow)] == [0, 0, 0]


@pytest.mark.parametrize("count", [8, 9, 24, 25, 26])
@pytest.mark.parametrize(("head_size", "size", "reason"), BAD_LENGTHS)
def test_a_length_that_is_not_allowed_is_refused_with_more_behind_it(
    head_size: int, size: int, reason: str, count: int
) -> None:
    """Also where the rest of the head's beginning comes in the same read."""
    data = struct.pack(">IIQQBB", head_size, size, 1, 0, 1, 0)[:count]
    for before in (b"", wire((1, 0, 1, b"", b"body"))):
        with pytest.raises(ProtocolError, match=reason):
            FrameReceiver(LIMITS).receive_data(before + data)


@pytest.mark.parametrize(
    ("head_size", "size", "reason"),
    [
        (16, 10, "frame head of"),
        (65, 0, "frame head of"),
        (65, SMALL.body_bytes + 1, "frame head of"),
        (17, SMALL.body_bytes + 1, "frame body of"),
        (64, 5000, "frame body of"),
    ],
)
def test_a_whole_frame_over_a_limit_is_refused_whatever_way_it_is_cut(head_size: int, size: int, reason: str) -> None:
    """Alone in one read and in several, behind another frame, before one, and after one in a read of its own."""
    stream = struct.pack(">II", head_size, size) + bytes(head_size + size)
    other = wire((1, 0, 1, b"", b""))
    ways = {
        "two reads": [stream[:8], stream[8:]],
        "behind": [other + stream],
        "before": [stream + other],
        "after": [other, stream],
        "alone": [stream],
    }
    said = {}
    for way, chunks in ways.items():
        try:
            received(chunks, SMALL)
            said[way] = "accepted"
        except ProtocolError as error:
            said[way] = error.reason[: len(reason)]
    assert said == dict.fromkeys(ways, reason)


def test_the_shortest_legal_frame_passes() -> None:
    """Neither fields nor body, and every number 0: alone, in two reads, and among others of its kind."""
    frame: Plain = (0, 0, 0, b"", b"")
    stream = wire(frame)
    assert len(stream) == 25
    assert received([stream]) == received([stream[:24], stream[24:]]) == [frame]
    assert received([stream * 3 + stream[:1], stream[1:]]) == [frame] * 4


@pytest.mark.parametrize("first", [0, 1, 8, 25, 40])
@pytest.mark.parametrize("second", [0, 1, 7, 8, 24, 25, 26, 30, 31])
def test_the_end_of_one_frame_and_the_beginning_of_the_next_come_together(first: int, second: int) -> None:
    """Three reads: some of a frame, its rest with some of the next, and the rest of that."""
    frames: list[Plain] = [(1, 2, 3, b"fields", b"body of the first"), (4, 5, 6, b"more", b"and another")]
    stream = wire(*frames)
    end = len(wire(frames[0]))
    assert received(cut(stream, [first, end + second])) == frames


@pytest.mark.parametrize("payload_bytes", [1000, 100_000])
def test_the_largest_legal_frame_passes(payload_bytes: int) -> None:
    """The limit itself is legal, for the head and for the body, in one read or in many."""
    limits = Limits(payload_bytes=payload_bytes, world_size=4, head_bytes=64)
    frame: Plain = (1, 2, 3, b"h" * (64 - PREFIX_HEAD_BYTES), b"b" * limits.body_bytes)
    stream = wire(frame)
    assert received([stream], limits) == received([stream[:30], stream[30:]], limits) == [frame]
    assert received([stream * 3], limits) == [frame] * 3


def test_the_longest_head_there_can_be_leaves_room_for_its_body() -> None:
    """The head's limit at its highest, and bodies around what then still fits the reused buffer."""
    limits = Limits(head_bytes=16 * 1024)
    room = RECEIVE_BUFFER - 8 - limits.head_bytes
    for size in (0, room - 1, room, room + 1):
        frame: Plain = (1, 0, 1, b"h" * (limits.head_bytes - PREFIX_HEAD_BYTES), b"b" * size)
        stream = wire(frame) * 2
        assert received([stream[i : i + 999] for i in range(0, len(stream), 999)], limits) == [frame] * 2


@given(st.binary(max_size=400), st.data())
@settings(max_examples=400, deadline=None, print_blob=True)
def test_damage_is_a_protocol_error_or_another_frame(noise: bytes, data: st.DataObject) -> None:
    """A receiver raises nothing but `ProtocolError`, at whatever place its input is damaged."""
    stream = wire((1, 2, 3, b"text and bytes", b"body"), (4, 0, 0, b"", b""))
    place = data.draw(st.integers(0, len(stream)))
    try:
        received([stream[:place] + noise + stream[place + len(noise) :]])
    except ProtocolError:
        pass


@given(st.lists(FRAMES, min_size=2, max_size=4), st.data())
@settings(max_examples=150, deadline=None, print_blob=True)
def test_receivers_may_read_into_the_same_memory(streams: list[list[Plain]], data: st.DataObject) -> None:
    """Chunks of several connections come in any order; what one has begun is not touched by the others."""
    shared = receive_buffer()
    receivers = [FrameReceiver(LIMITS, shared) for _ in streams]
    left = [wire(*frames) for frames in streams]
    got: list[list[Plain]] = [[] for _ in streams]
    while any(left):
        which = data.draw(st.sampled_from([which for which, stream in enumerate(left) if stream]))
        window = receivers[which].window
        count = data.draw(st.integers(1, min(len(left[which]), len(window))))
        window[:count], left[which] = left[which][:count], left[which][count:]
        got[which] += plain(receivers[which].buffer_updated(count))
        shared[:] = b"\xff" * len(shared)
    assert got == streams


def test_between_frames_a_receiver_holds_no_memory_of_its_own() -> None:
    """Also when it has been in the middle of a small frame, of a head, and of a large body."""
    shared = receive_buffer()
    receiver = FrameReceiver(LIMITS, shared)
    for size, first in ((300, 100), (300, 5), (2 * RECEIVE_BUFFER, 40), (2 * RECEIVE_BUFFER, 5)):
        stream = wire((1, 0, 1, b"", b"x" * size))
        assert receiver.receive_data(stream[:first]) == []
        assert receiver.window.obj is not shared.obj
        assert len(receiver.receive_data(stream[first:])) == 1
        assert receiver.window.obj is shared.obj
