"""The head of a frame: every message of the closed set is read as it was written, and nothing else is read."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any, get_args, get_type_hints

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiopg._core import key_messages, messages, wire
from aiopg._core.frames import JOIN_BELOW, Body, FrameReceiver, Received
from aiopg._core.key_messages import AddKey
from aiopg._core.limits import Limits
from aiopg._core.messages import (
    COLLECTIVES,
    Abort,
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
    Tag,
    Take,
    TakeBack,
)
from aiopg._core.session import Session
from aiopg._core.wire import decode_message, encode_message
from aiopg.errors import ProtocolError, UsageError

LIMITS = Limits()
CLASSES: list[type[Any]] = list(get_args(Message))
KIND_OF: dict[type[Any], int] = {cls: kind for kind, (cls, _) in wire._WIRE.items()}

INTS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from((-(2**63), -1, 0, 1, 2**63 - 1))
U64 = st.integers(0, 2**64 - 1)
TEXTS = st.text(max_size=40)
DRAWN: dict[object, st.SearchStrategy[Any]] = {
    int: INTS,
    str: TEXTS,
    bytes: st.binary(max_size=40),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    Tag: INTS | TEXTS | st.just(""),
    Body: st.lists(st.binary(max_size=50), max_size=3).map(tuple),
}


def drawn(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Messages of a class, with whatever its own annotations allow in their fields."""
    fields = {name: DRAWN[hint] for name, hint in get_type_hints(cls).items()}
    if cls is Arrive:
        fields["op"] = st.sampled_from(COLLECTIVES)
    return st.builds(cls, **fields)


MESSAGES = st.sampled_from(CLASSES).flatmap(drawn)


def framed(message: Message, seq: int = 1, ack: int = 0) -> Received:
    """The frame that carries a message, over the wire."""
    (frame,) = FrameReceiver(LIMITS).receive_data(b"".join(encode_message(seq, ack, message, LIMITS.head_bytes)))
    return frame


def fields_of(message: Message) -> bytes:
    """The message's part of its head."""
    return framed(message)[3]


def read(kind: int, fields: bytes) -> Message:
    """The message with such a head."""
    return decode_message((1, 0, kind, fields, ()))


def refused(kind: int, fields: bytes) -> None:
    """Such a head is no message, and the reason is fit to be sent back in a Goodbye."""
    with pytest.raises(ProtocolError) as caught:
        read(kind, fields)
    assert 0 < len(caught.value.reason) < 200


def check_read(kind: int, fields: bytes) -> None:
    """Whatever the head, it is refused, or a message of its kind with proper fields and no other head."""
    try:
        message = read(kind, fields)
    except ProtocolError:
        refused(kind, fields)
        return
    assert KIND_OF[type(message)] == kind
    assert len(message) == len(type(message)._fields)
    for value, hint in zip(message[:-1], get_type_hints(type(message)).values(), strict=False):
        assert type(value) in (hint, *get_args(hint))
    # By its text: a float that is no number is not equal to itself.
    assert repr(decode_message(framed(message))) == repr(message)
    assert fields_of(message) == fields


# ------------------------------------------------------------------------------------------- the closed set


@given(st.sampled_from((Arrive, Answer, Put, Take)).flatmap(drawn), U64, U64)
def test_the_short_way_writes_the_same_or_leaves_it_to_the_long_one(message: Message, seq: int, ack: int) -> None:
    """What is encoded in one step is, byte by byte, what `encode_message` makes of it."""
    frame = wire.LEAN_ENCODERS[type(message)](seq, ack, message)
    if frame is None:
        assert type(message) is not Answer or len(message.body) > 1
    else:
        assert (frame,) == encode_message(seq, ack, message, LIMITS.head_bytes)


@pytest.mark.parametrize(
    "message",
    [
        Arrive(2**63, 1, 0, 1, "barrier", -1, "", Needs.ALL, 0),
        Arrive(1, 1, 0, 1, "no such op", -1, "", Needs.ALL, 0),
        Arrive(1, 1, "a tag", 1, "barrier", -1, "", Needs.ALL, 0),
        Arrive(1, 1, 0, 1, "all_reduce", -1, "sum", Needs.ALL, 0),
        Arrive(1, 1, 0, 1, "all_gather", -1, "", Needs.ALL, 1, (bytes(JOIN_BELOW + 1),)),
        Answer(1, False, (bytes(JOIN_BELOW + 1),)),
        Put(2**63, 1, 0, 1),
        Put(1, 1, 0, "a tag", (b"body",)),
        Put(1, 1, 0, 1, (bytes(JOIN_BELOW + 1),)),
        Take(1, 1, 0, "a tag"),
    ],
)
def test_the_short_way_takes_no_more_than_it_can(message: Message) -> None:
    """Wrong numbers and ops, texts, and bodies that are not copied behind their heads."""
    assert wire.LEAN_ENCODERS[type(message)](1, 0, message) is None


def test_every_message_has_one_kind_and_one_type_for_each_field() -> None:
    """The set is closed: each class of it stands in the table once, with the types that it declares."""
    assert sorted(cls.__name__ for cls, _ in wire._WIRE.values()) == sorted(cls.__name__ for cls in CLASSES)
    assert len(KIND_OF) == len(wire._WIRE) == len(CLASSES)
    for kind, (cls, fields) in wire._WIRE.items():
        assert 0 < kind < 256
        *hints, body = get_type_hints(cls).items()
        assert body == ("body", Body)
        as_written = [wire._TAG if hint == Tag else wire._OP if name == "op" else hint for name, hint in hints]
        assert list(fields) == as_written
    assert len(set(COLLECTIVES)) == len(COLLECTIVES) < 256


@pytest.mark.parametrize("cls", CLASSES)
@given(data=st.data())
@settings(max_examples=60, deadline=None, print_blob=True)
def test_a_message_is_read_as_it_was_written(cls: type[Any], data: st.DataObject) -> None:
    """Kind and fields say it all, and types are exact: a text tag that is empty is not the number 0."""
    message = data.draw(drawn(cls))
    seq, ack = data.draw(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)))
    frame = framed(message, seq, ack)
    assert frame[:3] == (seq, ack, KIND_OF[cls])
    got = decode_message(frame)
    assert type(got) is cls
    assert got[:-1] == message[:-1]
    assert list(map(type, got[:-1])) == list(map(type, message[:-1]))
    assert b"".join(got.body) == b"".join(message.body)


@pytest.mark.parametrize("op", COLLECTIVES)
@pytest.mark.parametrize("tag", [0, -5, 2**63 - 1, -(2**63), "", "tag", "\N{SNOWMAN}\x00"])
@pytest.mark.parametrize("detail", ["", "sum"])
def test_an_arrival_is_read_as_it_was_with_every_operation(op: str, tag: Tag, detail: str) -> None:
    """With texts and without them: both ways of writing it."""
    message = Arrive(1, 2, tag, 9, op, -1, detail, Needs.ALL_TOLD, 1, (b"part",))
    assert decode_message(framed(message)) == message


@pytest.mark.parametrize("make", [lambda tag: Put(1, 2, 3, tag), lambda tag: TakeBack(1, 2, 3, tag, 4)])
@pytest.mark.parametrize("tag", [0, -1, "", "0", "tag"])
def test_a_tag_is_the_number_or_the_text_that_it_was(make: Any, tag: Tag) -> None:
    """Wherever in the message it stands."""
    got = decode_message(framed(make(tag)))
    assert got == make(tag)
    assert isinstance(got, Put | TakeBack)
    assert type(got.tag) is type(tag)


def test_heads_are_written_as_the_protocol_says() -> None:
    """Spelt out byte by byte: both ends of a connection may not be of the same release."""
    assert fields_of(Acknowledge()) == b""
    assert fields_of(Answer(-1, True)) == b"\xff" * 8 + b"\x01"
    plain = struct.pack(">4qB3q", 1, 2, -3, 4, 7, 5, 6, 7)
    assert fields_of(Arrive(1, 2, -3, 4, "reduce", 5, "", 6, 7)) == plain
    texts = struct.pack(">4qB3q", 1, 2, 0, 4, 0, 5, 6, 7) + msgpack.packb(["t", ""])
    assert fields_of(Arrive(1, 2, "t", 4, "barrier", 5, "", 6, 7)) == texts
    detail = struct.pack(">4qB3q", 1, 2, 3, 4, 6, 5, 6, 7) + msgpack.packb([None, "sum"])
    assert fields_of(Arrive(1, 2, 3, 4, "all_reduce", 5, "sum", 6, 7)) == detail
    assert fields_of(Put(1, 2, 3, 4)) == struct.pack(">4q", 1, 2, 3, 4)
    assert fields_of(Put(1, 2, 3, "")) == struct.pack(">4q", 1, 2, 3, 0) + msgpack.packb([""])
    join = struct.pack(">4qd?", 1, 2, 3, 4, 0.5, True) + msgpack.packb(["group", "holder"])
    assert fields_of(Join(1, 2, "group", 3, 4, 0.5, "holder", True)) == join
    assert fields_of(Opened(b"", b"", 1, 2, 3, 4.0)) == struct.pack(">3qd", 1, 2, 3, 4.0)
    assert fields_of(Opened(b"id", b"", 1, 2, 3, 4.0))[32:] == msgpack.packb([b"id", b""])


def test_a_frame_says_how_long_its_head_and_body_are() -> None:
    """Lengths, numbers and kind come first; the body last."""
    (buffer,) = encode_message(5, 6, Put(1, 2, 3, "tag", (b"bo", b"", b"dy")), LIMITS.head_bytes)
    fields = fields_of(Put(1, 2, 3, "tag"))
    assert buffer == struct.pack(">IIQQB", 17 + len(fields), 4, 5, 6, 20) + fields + b"body"


def test_a_small_frame_is_one_buffer() -> None:
    """One system call for a small message, no copy of a large one."""
    large, most = b"l" * (JOIN_BELOW + 1), b"m" * JOIN_BELOW
    small: list[Body] = [(), (b"",), (b"", b""), (b"a", b"b"), (most,), (most[1:], b"b")]
    for body in small:
        (buffer,) = encode_message(1, 0, Answer(1, False, body), LIMITS.head_bytes)
        assert type(buffer) is bytes
        assert buffer.endswith(b"".join(body))
    assert encode_message(1, 0, Answer(1, False, (large, b"b")), LIMITS.head_bytes)[1] is large
    assert len(encode_message(1, 0, Answer(1, False, (most, b"b")), LIMITS.head_bytes)) == 3


# ------------------------------------------------------------------------------------- what cannot be read


@given(MESSAGES, st.binary(min_size=1, max_size=9))
@settings(max_examples=150, deadline=None, print_blob=True)
def test_a_head_that_is_too_short_or_too_long_is_refused(message: Message, more: bytes) -> None:
    """At every length but its own, and that without any texts, which says that all are empty."""
    kind, fields = KIND_OF[type(message)], fields_of(message)
    fixed = wire._structs(wire._WIRE[kind][1])[2] - 17
    for length in range(len(fields)):
        if length != fixed:
            refused(kind, fields[:length])
    if len(fields) > fixed or kind not in WITH_TEXTS:
        refused(kind, fields + more)


WITH_TEXTS: dict[int, list[Any]] = {
    kind: [field for field in fields if field in (str, bytes, wire._TAG)]
    for kind, (_, fields) in wire._WIRE.items()
    if any(field in (str, bytes, wire._TAG) for field in fields)
}
"""Kinds of messages that have texts, or tags that may be such, with the types of those."""

NO_TEXTS = [
    *(b"\xc1", b"\x91", b"\x90\x90", b"\x05", b"\xc0", b"\x91\xa1\xff", b"\x81\x90\x01", b"\x80", b"\xd9"),
    *(b"\xdd\xff", b"\xdd\xff\xff\xff\xff", b"\x91\xc6\xff\xff\xff\xff", b"\x91" * 2000),
    *(b"\x91\xc7\x05\xff12345", b"\x91\xd7\xff" + b"\xff" * 8),
]


@pytest.mark.parametrize("packed", NO_TEXTS, ids=lambda packed: packed[:8].hex())
@pytest.mark.parametrize("kind", WITH_TEXTS)
def test_texts_that_are_no_array_are_refused(kind: int, packed: bytes) -> None:
    """Damage, an incomplete value, two values, a number, nil, no text, a list as a key, a map, depth, lying lengths."""
    fixed = wire._structs(wire._WIRE[kind][1])[2] - 17
    read(kind, bytes(fixed))
    refused(kind, bytes(fixed) + packed)


@pytest.mark.parametrize("kind", WITH_TEXTS)
def test_texts_of_another_number_or_type_are_refused(kind: int) -> None:
    """Also bytes for str, a number for a text tag, and nil for what is no tag: the types are exact."""
    head = bytes(wire._structs(wire._WIRE[kind][1])[2] - 17)
    types = WITH_TEXTS[kind]
    right: list[Any] = [b"b" if field is bytes else "t" for field in types]
    read(kind, head + msgpack.packb(right))
    for wrong in ([], right[:-1], [*right, "t"], [*right, None], [right], dict.fromkeys(right, 1)):
        refused(kind, head + msgpack.packb(wrong))
    for place, field in enumerate(types):
        others: list[Any] = [1, True, 1.5, ["t"], {}, "t" if field is bytes else b"t"]
        others += [] if field is wire._TAG else [None]
        for other in others:
            refused(kind, head + msgpack.packb([*right[:place], other, *right[place + 1 :]]))


@pytest.mark.parametrize("kind", WITH_TEXTS)
def test_an_array_that_says_nothing_is_refused(kind: int) -> None:
    """Empty texts and tags that are numbers are told by no array at all."""
    nothing = [wire._EMPTY[field] for field in WITH_TEXTS[kind]]
    refused(kind, bytes(wire._structs(wire._WIRE[kind][1])[2] - 17) + msgpack.packb(nothing))


@pytest.mark.parametrize("number", [1, -1, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("make", [lambda tag: Put(1, 2, 3, tag), lambda tag: TakeBack(1, 2, 3, tag, 4)])
def test_a_tag_that_is_a_number_and_a_text_is_refused(make: Any, number: int) -> None:
    """Where the text is the tag, the number is 0."""
    fields = fields_of(make("tag"))
    assert fields[24:32] == bytes(8)
    refused(KIND_OF[type(make(0))], fields[:24] + struct.pack(">q", number) + fields[32:])


@pytest.mark.parametrize("value", [2, 3, 128, 255])
def test_a_bool_is_0_or_1(value: int) -> None:
    """With texts and without them."""
    for message in (
        Answer(5, True),
        Join(1, 2, "group", 3, 4, 0.5, "holder", True),
        Join(1, 2, "", 3, 4, 0.5, "", True),
    ):
        fields = bytearray(fields_of(message))
        place = 8 if type(message) is Answer else 40
        assert fields[place] == 1
        fields[place] = value
        refused(KIND_OF[type(message)], bytes(fields))


@pytest.mark.parametrize(
    "packed", [b"\x91\xd9\x03tag", b"\x91\xda\0\x03tag", b"\xdc\0\x01\xa3tag", b"\x91\xdb\0\0\0\x03tag"]
)
def test_texts_in_a_longer_form_than_they_need_are_refused(packed: bytes) -> None:
    """MessagePack can write one thing in several ways, of which the shortest is taken."""
    read(KIND_OF[Put], bytes(32) + b"\x91\xa3tag")
    refused(KIND_OF[Put], bytes(32) + packed)


def test_a_head_that_lies_about_its_texts_gets_no_memory() -> None:
    """Arrays in arrays, each of which says that it has as many items as the head has bytes."""
    packed = b"\xdc\x0b\x00" * 1000
    refused(KIND_OF[Put], bytes(32) + packed)
    tracemalloc.start()
    try:
        refused(KIND_OF[Put], bytes(32) + packed)
        assert tracemalloc.get_traced_memory()[1] < 512 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", sorted(set(range(256)) - set(wire._WIRE)))
def test_an_unknown_kind_is_refused(kind: int) -> None:
    """Whatever stands behind it."""
    for fields in (b"", bytes(8), b"\x90", b"\x00" * 4000):
        with pytest.raises(ProtocolError, match=f"no message has kind {kind}$"):
            read(kind, fields)


@pytest.mark.parametrize("number", [len(COLLECTIVES), 127, 128, 255])
@pytest.mark.parametrize("tag", [0, "tag"])
def test_an_operation_of_no_name_is_refused(number: int, tag: Tag) -> None:
    """With texts and without them."""
    fields = bytearray(fields_of(Arrive(1, 2, tag, 4, COLLECTIVES[-1], 5, "", 6, 7)))
    assert fields[32] == len(COLLECTIVES) - 1
    fields[32] = number
    refused(KIND_OF[Arrive], bytes(fields))


@given(st.sampled_from(sorted(wire._WIRE)) | st.integers(0, 255), st.binary(max_size=120))
@settings(max_examples=1000, deadline=None, print_blob=True)
def test_any_bytes_are_a_message_or_a_protocol_error(kind: int, fields: bytes) -> None:
    """Nothing else is raised, and what is read is a proper message."""
    check_read(kind, fields)


@given(st.sampled_from(sorted(WITH_TEXTS)), st.binary(max_size=40), st.data())
@settings(max_examples=500, deadline=None, print_blob=True)
def test_any_bytes_for_texts_are_a_message_or_a_protocol_error(kind: int, packed: bytes, data: st.DataObject) -> None:
    """The same where the fixed fields are right: damage in MessagePack itself."""
    begin = data.draw(st.sampled_from((b"", bytes((0x90 + len(WITH_TEXTS[kind]),)), b"\x91", b"\x81")))
    check_read(kind, bytes(wire._structs(wire._WIRE[kind][1])[2] - 17) + begin + packed)


@given(MESSAGES, st.binary(max_size=12), st.data())
@settings(max_examples=1000, deadline=None, print_blob=True)
def test_a_damaged_head_is_a_message_or_a_protocol_error(message: Message, noise: bytes, data: st.DataObject) -> None:
    """Bytes put in, taken out or changed, at any place, and the kind as it was or another."""
    fields = fields_of(message)
    place = data.draw(st.integers(0, len(fields)))
    gone = data.draw(st.integers(0, len(noise) + 2))
    kind = data.draw(st.just(KIND_OF[type(message)]) | st.sampled_from(sorted(wire._WIRE)))
    check_read(kind, fields[:place] + noise + fields[place + gone :])


def test_every_changed_byte_of_a_head_is_a_message_or_a_protocol_error() -> None:
    """All the values that each byte can have, in a head with numbers, operation, and texts of both kinds."""
    fields = fields_of(Arrive(1, 2, "tag", 4, "reduce", 5, "sum", 6, 7))
    for place in range(len(fields)):
        for value in range(256):
            check_read(KIND_OF[Arrive], fields[:place] + bytes((value,)) + fields[place + 1 :])


# ------------------------------------------------------------------------------------- what cannot be sent

TOO_LARGE = (2**63, -(2**63) - 1, 2**64, 10**40)
CANNOT_BE_SENT: list[Message] = [
    *(Cancel(number) for number in TOO_LARGE),
    *(Put(1, 2, 3, number) for number in TOO_LARGE),
    *(Put(1, 2, number, "tag") for number in TOO_LARGE),
    *(Arrive(1, 2, number, 4, "reduce", 5, "", 6, 7) for number in TOO_LARGE),
    *(Arrive(1, 2, number, 4, "reduce", 5, "sum", 6, 7) for number in TOO_LARGE),
    *(Arrive(1, 2, 3, 4, "reduce", number, "", 6, 7) for number in TOO_LARGE),
    *(Open(b"", b"", 1, 2, 3.0, 4, number, 6, "boot") for number in TOO_LARGE),
    *(Arrive(1, 2, tag, 4, op, 5, "", 6, 7) for tag in (3, "tag") for op in ("", "Reduce", "no operation")),
    *(Put(1, 2, 3, text) for text in ("\udcff", "a\ud800b")),
    *(Arrive(1, 2, tag, 4, "reduce", 5, "\udcff", 6, 7) for tag in (3, "tag")),
    Take(1, 2, 3, "\udfff"),
    Goodbye("\udcff"),
    Join(1, 2, "group\udcff", 0, 4, 1.0, "holder"),
    Join(1, 2, "group", 0, 4, 1.0, "\udcff"),
    Put(1, 2, 3, "t" * 5000),
    Goodbye("r" * 5000),
    Abort(1, 2, "\N{SNOWMAN}" * 1400),
    Join(1, 2, "g" * 2500, 0, 4, 1.0, "h" * 2500),
    Opened(b"i" * 5000, b"", 1, 2, 3, 4.0),
]


@pytest.mark.parametrize("message", CANNOT_BE_SENT, ids=lambda message: f"{message!r:.50}")
def test_what_cannot_be_sent_is_a_usage_error_and_the_stream_goes_on(message: Message) -> None:
    """Texts that are no text, numbers over 64 bits, an operation that is none, texts that are too long."""
    session, receiver = Session(LIMITS), FrameReceiver(LIMITS)
    session.send(Cancel(1))
    with pytest.raises(UsageError, match=f"^a {type(message).__name__} "):
        session.send(message)
    session.send(Cancel(2))
    frames = [frame for buffers in session.resend(0) for frame in receiver.receive_data(b"".join(buffers))]
    assert [(frame[0], decode_message(frame)) for frame in frames] == [(1, Cancel(1)), (2, Cancel(2))]


def test_what_is_no_message_cannot_be_sent() -> None:
    """The set is closed at the sender too."""
    with pytest.raises(UsageError, match="a tuple cannot be sent"):
        encode_message(1, 0, (1, ()), LIMITS.head_bytes)  # type: ignore[arg-type]


def goodbye_with_a_head_of(size: int) -> Goodbye:
    """One whose head has `size` bytes (over 300, so that the length of its text has three bytes)."""
    message = Goodbye("r" * (size - 17 - 1 - 3))
    assert 17 + len(msgpack.packb([message.reason])) == size
    return message


def test_a_head_over_its_limit_is_never_sent() -> None:
    """A receiver with the same limit would end the connection."""
    with pytest.raises(UsageError, match="400 are allowed"):
        encode_message(1, 0, goodbye_with_a_head_of(401), 400)
    (data,) = encode_message(1, 0, goodbye_with_a_head_of(392), 400)
    assert len(FrameReceiver(Limits(head_bytes=400)).receive_data(data)) == 1


def test_the_longest_legal_head_can_be_sent() -> None:
    """The limit means the same at both ends: what a receiver takes, a sender sends."""
    (data,) = encode_message(1, 0, goodbye_with_a_head_of(400), 400)
    assert len(FrameReceiver(Limits(head_bytes=400)).receive_data(data)) == 1


def test_the_limits_of_a_store_leave_room_for_every_head() -> None:
    """Names, tags and reasons as long as `Limits` allows, in characters of several bytes, can all be sent."""
    name, tag, reason = ("\u00e9" * (size // 2) for size in (LIMITS.name_bytes, LIMITS.tag_bytes, LIMITS.reason_bytes))
    longest = 2**63 - 1
    for message in (
        Join(longest, longest, name, longest, longest, 1e308, "h" * 200, True),
        Abort(longest, longest, reason),
        TakeBack(longest, longest, longest, tag, longest),
        Arrive(longest, longest, tag, longest, "all_to_all", longest, reason, longest, longest),
        AddKey(longest, longest, longest, "\u00e9" * (LIMITS.key_bytes // 2)),
    ):
        assert decode_message(framed(message)) == message


def test_every_name_of_the_module_of_messages_is_there() -> None:
    """What the modules of messages offer, they have, and what is said in a session is among it."""
    for module in (messages, key_messages):
        assert set(module.__all__) <= set(dir(module))
    assert {cls.__name__ for cls in CLASSES} <= {*messages.__all__, *key_messages.__all__}
