"""Messages that come alone: read in one step, they are what `frames` and `wire` read in two, or are left to them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopg._core.frames import FrameReceiver, receive_buffer
from aiopg._core.limits import Limits
from aiopg._core.lone import KIND_PLACE, LONE_READERS, Lone
from aiopg._core.messages import COLLECTIVES, Answer, Arrive, Message, Needs, Put, Take
from aiopg._core.wire import KINDS, decode_message, encode_message
from aiopg.errors import ProtocolError

LIMITS = Limits()
STALE = b"\xa5"
"""What an earlier read left in the memory."""

I64 = st.integers(-(2**63), 2**63 - 1)
U64 = st.integers(0, 2**64 - 1)
BODIES = st.sampled_from([(), (b"x",), (b"y" * 300,)])
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Arrive, I64, I64, I64, I64, st.sampled_from(COLLECTIVES), I64, st.just(""), I64, I64, BODIES),
    st.builds(Answer, I64, st.booleans(), BODIES),
    st.builds(Put, I64, I64, I64, I64, BODIES),
    st.builds(Take, I64, I64, I64, I64, BODIES),
)


def in_one_step(data: bytes, most: int = LIMITS.body_bytes) -> Lone | None:
    """What a reader makes of a read that brought `data`; the memory behind it is not new."""
    buffer = receive_buffer()
    buffer[:] = STALE * len(buffer)
    buffer[: len(data)] = data
    read = LONE_READERS.get(buffer[KIND_PLACE])
    return None if read is None else read(buffer, len(data), most)


def in_two_steps(data: bytes) -> list[Lone]:
    """The same bytes by way of frames. Raises `ProtocolError`."""
    frames = FrameReceiver(LIMITS).receive_data(data)
    return [(frame[0], frame[1], decode_message(frame)) for frame in frames]


def frame(message: Message, seq: int = 1, ack: int = 0) -> bytes:
    """The bytes of a message's frame."""
    return b"".join(encode_message(seq, ack, message, LIMITS.head_bytes))


@given(MESSAGES, U64, U64)
def test_a_frequent_message_is_read_in_one_step(message: Message, seq: int, ack: int) -> None:
    """It is what was written; a message outside the stream is left to others."""
    assert in_one_step(frame(message, seq, ack)) == ((seq, ack, message) if seq else None)


@given(MESSAGES, st.data())
@settings(max_examples=400, deadline=None)
def test_other_bytes_are_read_alike_or_left_alone(message: Message, data: st.DataObject) -> None:
    """Bytes changed, cut or added: what is read in one step is what is read in two."""
    changed = bytearray(frame(message))
    for place in data.draw(st.lists(st.integers(0, min(len(changed), 90) - 1), max_size=3)):
        changed[place] = data.draw(st.integers(0, 255))
    given = bytes(changed[: data.draw(st.integers(1, len(changed)))]) + data.draw(st.binary(max_size=30))
    got = in_one_step(given)
    if got is not None:
        assert in_two_steps(given) == [got]


@pytest.mark.parametrize(
    "message",
    [
        Arrive(1, 1, "a tag", 1, "barrier", -1, "", Needs.ALL, 0),
        Arrive(1, 1, 0, 1, "all_reduce", -1, "sum", Needs.ALL, 0),
        Put(1, 1, 0, "a tag", (b"body",)),
        Take(1, 1, 0, "a tag"),
    ],
)
def test_a_message_with_a_text_is_left_to_others(message: Message) -> None:
    """Its head is longer."""
    assert in_one_step(frame(message)) is None
    assert in_two_steps(frame(message)) == [(1, 0, message)]


def test_two_frames_in_one_read_are_left_to_others() -> None:
    """And so is one that is not whole: by one byte, and by all but its beginning."""
    whole = frame(Answer(1, False, (b"body",)))
    assert in_one_step(whole + whole) is None
    assert in_one_step(whole[:-1]) is None
    assert in_one_step(whole[: KIND_PLACE + 1]) is None


@pytest.mark.parametrize(
    ("message", "place", "value"),
    [
        (Arrive(1, 1, 0, 1, "barrier", -1, "", Needs.ALL, 0), struct.calcsize(">IIQQBqqqq"), len(COLLECTIVES)),
        (Answer(1, True), struct.calcsize(">IIQQBq"), 2),
    ],
)
def test_a_number_that_is_not_allowed_is_left_to_be_refused(message: Message, place: int, value: int) -> None:
    """An op that there is not, and a bool that is neither."""
    wrong = bytearray(frame(message))
    wrong[place] = value
    assert in_one_step(bytes(wrong)) is None
    with pytest.raises(ProtocolError):
        in_two_steps(bytes(wrong))


def test_a_body_over_the_limit_is_left_to_be_refused() -> None:
    """The limit of who reads, which may have been lowered meanwhile."""
    put = frame(Put(1, 1, 0, 1, (bytes(100),)))
    assert in_one_step(put, 100) is not None
    assert in_one_step(put, 99) is None


def test_it_is_the_frequent_messages_that_are_read_so() -> None:
    """Those of every collective and of point-to-point messages."""
    assert LONE_READERS.keys() == {KINDS[kind] for kind in (Arrive, Answer, Put, Take)}
