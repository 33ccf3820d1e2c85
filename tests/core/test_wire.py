"""Heads: every message crosses the wire as it was, and nothing else does."""

from __future__ import annotations

import struct
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopg._core import wire
from aiopg._core.frames import JOIN_BELOW, PREFIX_HEAD_BYTES, FrameReceiver, Received
from aiopg._core.limits import Limits
from aiopg._core.messages import (
    COLLECTIVES,
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
    TakeBack,
)
from aiopg._core.wire import decode_message, encode_message
from aiopg.errors import ProtocolError, UsageError

LIMITS = Limits()
KIND_OF = {cls: kind for kind, (cls, _) in wire._WIRE.items()}

EXAMPLES: list[Message] = [
    Open(b"id", b"proof", 2, 7, 60.0, 4711, 10**12, 4026531836, "boot"),
    Open(b"", b"", 1, 0, 0.5, 0, 0, 0, ""),
    Opened(b"id", b"secret", 7, 100, 4711, 5.0),
    Acknowledge(),
    Goodbye("bye"),
    Goodbye(""),
    Join(1, 2, "group", 0, 4, 3600.0, "pid 1", True),
    Put(1, 2, 3, "tag", (b"body",)),
    Put(1, 2, 3, -5, (b"body",)),
    Put(1, 2, 3, "", (b"body",)),
    Take(1, 2, 3, 0),
    TakeBack(1, 2, 3, "7", 9),
    Arrive(1, 2, 0, 9, "reduce", 0, "sum", Needs.ALL, 1, (b"part",)),
    Arrive(1, 2, -(2**63), 9, "barrier", -1, "", Needs.ALL_TOLD, 0),
    Arrive(1, 2, "", 9, "barrier", -1, "", Needs.ALL, 0),
    Arrive(1, 2, "tag", 9, "all_to_all", -1, "", Needs.ALL, 2, (b"ab", b"c")),
    Cancel(1),
    Answer(1, True, (b"result",)),
    Answer(1, False),
]

INTS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(max_size=40)  # without lone surrogates: those cannot be sent
VALUES: dict[object, st.SearchStrategy[Any]] = {
    int: INTS,
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    str: TEXTS,
    bytes: st.binary(max_size=40),
    wire._TAG: INTS | TEXTS | st.just(""),
    wire._OP: st.sampled_from(COLLECTIVES),
}
BODIES = st.just(()) | st.binary(min_size=1, max_size=50).map(lambda body: (body,))


def drawn(kind: int) -> st.SearchStrategy[Any]:
    """Messages of that kind with any fields it may have."""
    cls, fields = wire._WIRE[kind]
    return st.tuples(*(VALUES[field] for field in fields), BODIES).map(cls._make)


def sent(message: Message, seq: int = 1, ack: int = 0) -> Received:
    """The frame that a receiver makes of it."""
    (frame,) = FrameReceiver(LIMITS).receive_data(b"".join(encode_message(seq, ack, message, LIMITS.head_bytes)))
    return frame


def fixed_bytes(cls: type[Any]) -> int:
    """Bytes of the fields that have fixed places."""
    codes = [wire._CODES[field] for field in wire._WIRE[KIND_OF[cls]][1] if field in wire._CODES]
    return struct.calcsize(">" + "".join(codes))


def decoded(message: Message, fields: bytes) -> Message:
    """A message of the same kind, from other bytes."""
    return decode_message((1, 0, KIND_OF[type(message)], fields, message.body))


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_a_message_is_decoded_as_it_was(message: Message) -> None:
    """Kind and fields say it all; class and types are those that were sent."""
    copy = decode_message(sent(message))
    assert type(copy) is type(message)
    assert copy == message._replace(body=(b"".join(message.body),) if message.body else ())
    assert list(map(type, copy)) == list(map(type, message))


@pytest.mark.parametrize("kind", wire._WIRE, ids=lambda kind: wire._WIRE[kind][0].__name__)
@given(data=st.data(), seq=st.integers(0, 2**64 - 1), ack=st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None, print_blob=True)
def test_every_message_is_decoded_as_it_was(kind: int, data: st.DataObject, seq: int, ack: int) -> None:
    """Of each class, with any fields: 64-bit integers, tags that are numbers, texts or empty, any text, any bytes."""
    message = data.draw(drawn(kind))
    frame = sent(message, seq, ack)
    copy = decode_message(frame)
    assert frame[:3] == (seq, ack, kind)
    assert type(copy) is type(message)
    assert copy == message
    assert list(map(type, copy)) == list(map(type, message))


def test_every_message_has_a_kind_and_kinds_are_unique() -> None:
    """The set is closed: each class of it stands in the table once, with a type for each field."""
    classes = [cls for cls, _ in wire._WIRE.values()]
    assert len(classes) == len(set(classes))
    assert set(classes) == set(get_args(Message)) == set(wire._ENCODE)
    assert set(wire._DECODE) == set(wire._WIRE) <= set(range(256))
    for cls, fields in wire._WIRE.values():
        assert len(fields) + 1 == len(cls._fields)
        assert set(fields) <= set(VALUES)


def test_the_types_in_the_table_are_those_of_the_messages() -> None:
    """So a field that is moved in the one and not in the other is found."""
    names = {"Tag": wire._TAG, "int": int, "bool": bool, "float": float, "str": str, "bytes": bytes}
    for cls, fields in wire._WIRE.values():
        said = [cls.__annotations__[name].__forward_arg__ for name in cls._fields[:-1]]
        ops = [str if field is wire._OP else field for field in fields]
        assert [names[name] for name in said] == ops, cls


def test_a_small_message_is_one_buffer() -> None:
    """One system call for a small message, no copy of a large one."""
    large = b"l" * (JOIN_BELOW + 1)
    for body in ((), (b"a", b"b"), (b"",), (large[1:],)):
        assert len(encode_message(1, 0, Cancel(1, body), LIMITS.head_bytes)) == 1
    buffers = encode_message(1, 0, Cancel(1, (large, b"b")), LIMITS.head_bytes)
    assert buffers[1] is large
    assert buffers[2:] == (b"b",)
    assert struct.unpack_from(">II", buffers[0]) == (PREFIX_HEAD_BYTES + 8, JOIN_BELOW + 2)


def test_an_operation_has_the_number_of_its_place() -> None:
    """It is one byte on the wire, so the order of `COLLECTIVES` is a matter of the protocol."""
    for number, op in enumerate(COLLECTIVES):
        *_, fields, _ = sent(Arrive(1, 2, 3, 4, op, 0, "", Needs.ALL, 0))
        assert fields[4 * 8] == number


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_a_head_that_is_too_short_or_too_long_is_refused(message: Message) -> None:
    """Every beginning of it but the one that ends before the texts, and bytes behind it."""
    *_, fields, _ = sent(message)
    for count in range(len(fields)):
        if count != fixed_bytes(type(message)):
            with pytest.raises(ProtocolError, match=r"a head of|not MessagePack"):
                decoded(message, fields[:count])
    for more in (b"\x00", b"\x90", b"\xc1", bytes(8)):
        with pytest.raises(ProtocolError, match=type(message).__name__):
            decoded(message, fields + more)


@pytest.mark.parametrize("cls", [cls for cls, _ in wire._WIRE.values()], ids=lambda cls: cls.__name__)
def test_without_texts_all_are_empty_and_tags_are_numbers(cls: type[Any]) -> None:
    """The fixed fields alone are a whole message, of every class."""
    size = fixed_bytes(cls)
    message = decode_message((1, 0, KIND_OF[cls], bytes(size), ()))
    values = {wire._TAG: 0, wire._OP: COLLECTIVES[0], int: 0, bool: False, float: 0.0, str: "", bytes: b""}
    assert message == cls(*(values[field] for field in wire._WIRE[KIND_OF[cls]][1]))


@pytest.mark.parametrize("kind", sorted(set(range(256)) - set(wire._WIRE)))
def test_an_unknown_kind_is_refused(kind: int) -> None:
    """Whatever follows. The refusal is sent back in a Goodbye, whose own head must not be too long."""
    for fields in (b"", bytes(8), bytes(4000)):
        with pytest.raises(ProtocolError, match=f"no message has kind {kind}") as caught:
            decode_message((1, 0, kind, fields, ()))
        assert len(caught.value.reason) < 200


@pytest.mark.parametrize("number", [len(COLLECTIVES), 255])
@pytest.mark.parametrize("texts", [b"", msgpack.packb([None, "sum"])])
def test_an_unknown_operation_is_refused(number: int, texts: bytes) -> None:
    """With texts and without."""
    message = Arrive(1, 2, 3, 4, "barrier", -1, "", Needs.ALL, 0)
    *_, fields, _ = sent(message)
    with pytest.raises(ProtocolError, match="Arrive"):
        decoded(message, fields[:32] + bytes([number]) + fields[33:] + texts)


WITH_TEXTS = [Open(b"i", b"p", 1, 0, 1.0, 1, 1, 1, "b"), Goodbye("bye"), Put(1, 2, 3, "t"), Arrive(*EXAMPLES[12])]
NO_MESSAGEPACK = [b"\xc1", b"\x91", b"\x90\x90", b"\x91\xa1\xff", b"\x91\xa3\xed\xb3\xbf", b"\x81\x90\x01", b"\xdf" * 5]
NO_TEXTS: list[Any] = [5, None, "text", {}, {"a": 1}, [], [[]], [5], [None] * 5, [1.5, "a"], [True], ["a"] * 9]


@pytest.mark.parametrize("message", WITH_TEXTS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("packed", NO_MESSAGEPACK, ids=repr)
def test_texts_that_are_no_messagepack_are_refused(message: Message, packed: bytes) -> None:
    """Damage, an incomplete value, two values, no UTF-8, half a character, a list as a key, a map cut off."""
    *_, fields, _ = sent(message)
    with pytest.raises(ProtocolError, match=type(message).__name__) as caught:
        decoded(message, fields[: fixed_bytes(type(message))] + packed)
    assert len(caught.value.reason) < 200


@pytest.mark.parametrize("message", WITH_TEXTS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("texts", NO_TEXTS, ids=repr)
def test_texts_that_are_no_array_of_the_right_length_and_types_are_refused(message: Message, texts: Any) -> None:
    """Another value, none, too few, too many, others than text."""
    *_, fields, _ = sent(message)
    with pytest.raises(ProtocolError, match="texts"):
        decoded(message, fields[: fixed_bytes(type(message))] + msgpack.packb(texts))


@pytest.mark.parametrize("message", WITH_TEXTS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("other", [5, True, 1.5, [], ["a"], {}, msgpack.ExtType(1, b"a"), msgpack.Timestamp(1)])
def test_each_text_must_be_one(message: Message, other: Any) -> None:
    """Types are exact: one that is wrong among right ones is enough, also bytes for text and text for bytes."""
    *_, fields, _ = sent(message)
    start = fixed_bytes(type(message))
    texts = msgpack.unpackb(fields[start:])
    for place, text in enumerate(texts):
        no_tag = type(message) not in (Put, Arrive) or place
        wrong = [other, "a" if type(text) is bytes else b"a", *([None] if no_tag else [])]
        for value in wrong:
            packed = msgpack.packb([*texts[:place], value, *texts[place + 1 :]])
            with pytest.raises(ProtocolError, match="wrong types"):
                decoded(message, fields[:start] + packed)


@given(st.sampled_from([*wire._WIRE, 0, 255]), st.binary(max_size=150))
@settings(max_examples=500, deadline=None, print_blob=True)
def test_any_bytes_are_a_message_or_a_protocol_error(kind: int, fields: bytes) -> None:
    """Nothing else comes of them."""
    try:
        decode_message((1, 0, kind, fields, ()))
    except ProtocolError as error:
        assert len(error.reason) < 200  # noqa: PT017 (most of the bytes drawn are no message; some are)


@given(st.sampled_from(list(wire._WIRE)), st.data())
@settings(max_examples=500, deadline=None, print_blob=True)
def test_any_bytes_for_texts_are_a_message_or_a_protocol_error(kind: int, data: st.DataObject) -> None:
    """The fixed fields have the right length, so that it is the texts that are read."""
    cls, _ = wire._WIRE[kind]
    size = fixed_bytes(cls)
    values = st.none() | st.text(max_size=5) | st.binary(max_size=5) | st.integers(0, 9)
    packed = st.binary(max_size=20) | st.lists(values, max_size=5).map(msgpack.packb)
    fields = data.draw(st.binary(min_size=size, max_size=size)) + data.draw(packed)
    try:
        message = decode_message((1, 0, kind, fields, ()))
    except ProtocolError as error:
        assert len(error.reason) < 200  # noqa: PT017
    else:
        assert type(message) is cls


# --------------------------------------------------------------------------------------- what cannot be sent

UNSENDABLE: dict[str, Message] = {
    "half a character in a tag": Put(1, 2, 3, "\udcff"),
    "half a character in a name": Join(1, 2, "\ud800", 0, 4, 1.0, ""),
    "half a character in the detail": Arrive(1, 2, 3, 4, "barrier", -1, "\udcff", Needs.ALL, 0),
    "a call over 64 bits": Cancel(2**63),
    "a call under 64 bits": Cancel(-(2**63) - 1),
    "a tag over 64 bits": Put(1, 2, 3, 2**63),
    "a tag of an arrival over 64 bits": Arrive(1, 2, 2**63, 4, "barrier", -1, "", Needs.ALL, 0),
    "a number over 64 bits beside texts": Arrive(1, 2, "t", 2**64, "barrier", -1, "", Needs.ALL, 0),
    "an operation that is none": Arrive(1, 2, 3, 4, "dance", -1, "", Needs.ALL, 0),
    "an operation that is none beside texts": Arrive(1, 2, "t", 4, "dance", -1, "d", Needs.ALL, 0),
    "too long a tag": Put(1, 2, 3, "t" * LIMITS.head_bytes),
    "too long a reason": Goodbye("r" * LIMITS.head_bytes),
    "too many bytes": Open(b"i" * LIMITS.head_bytes, b"", 1, 0, 1.0, 1, 1, 1, ""),
}


@pytest.mark.parametrize("message", UNSENDABLE.values(), ids=UNSENDABLE.keys())
def test_what_cannot_be_sent_is_a_usage_error(message: Message) -> None:
    """It is the caller who can mend it, and the error says which message it was."""
    with pytest.raises(UsageError, match=rf"{type(message).__name__}.* cannot be sent"):
        encode_message(1, 0, message, LIMITS.head_bytes)


@given(st.integers(0, 2 * LIMITS.head_bytes))
@settings(max_examples=60, deadline=None, print_blob=True)
def test_a_head_is_sent_or_refused_by_its_sender(size: int) -> None:
    """Whatever its length: what a sender lets pass is legal for a receiver with the same limits."""
    try:
        buffers = encode_message(1, 0, Goodbye("r" * size), LIMITS.head_bytes)
    except UsageError:
        assert size > LIMITS.head_bytes - 50
    else:
        (frame,) = FrameReceiver(LIMITS).receive_data(b"".join(buffers))
        assert decode_message(frame) == Goodbye("r" * size)
