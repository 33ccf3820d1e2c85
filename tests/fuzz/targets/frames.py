"""Frames, the messages in them, and the session that numbers them: what a connection may bring once it is open.

The first byte of an input says how the rest is used: as what a connection brings, in how many pieces; or as the fields
of a message that is to be written and read again.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, TypeAlias, get_type_hints

from aiopg._core import frames, wire
from aiopg._core.frames import Body, FrameReceiver, Received, body_size
from aiopg._core.limits import Limits
from aiopg._core.lone import KIND_PLACE, LONE_READERS
from aiopg._core.messages import (
    COLLECTIVES,
    Acknowledge,
    Answer,
    Arrive,
    Cancel,
    Failed,
    Goodbye,
    Join,
    Message,
    Open,
    Opened,
    Put,
    Take,
    TakeBack,
    Void,
    Withdrawn,
    pack_error,
    pack_value,
    unpack_error,
    unpack_value,
)
from aiopg._core.session import Session
from aiopg._core.wire import decode_message, encode_message
from aiopg.errors import AiopgError, PeerLostError, ProtocolError, StoreFullError, UsageError
from tests.fuzz.target import PACKER, Target

__all__ = ["FramesTarget"]

LIMITS = Limits(head_bytes=200, payload_bytes=2000, world_size=1, outbox_frames=8, retained_bytes=50)
SMALL_BUFFER = 512
"""The reused buffer is made so small that a few hundred bytes reach every way through the receiver."""

SENT = 3
_LARGE: Body = (b"l" * (frames.JOIN_BELOW + 1),)

"""Messages of ours that the other end may acknowledge."""

_MESSAGE = 0xF0
_LARGE_BUFFER = 7
_CLASSES = [cls for cls, _ in wire._WIRE.values()]
_HINTS = {cls: list(get_type_hints(cls).items())[:-1] for cls in _CLASSES}
_ASIDES = (Acknowledge, Goodbye)
_PREFIX = struct.Struct(">IIQQB").pack
_MORE_THAN_A_HEAD = 200

Plain: TypeAlias = tuple[int, int, int, bytes, bytes]


class FramesTarget(Target):
    """What is read is the same however it is cut; what is a message is one in exactly one way."""

    name = "frames"
    tokens = (
        *(_PREFIX(17 + size, body, seq, 0, kind)[:25] for size in (0, 8, 9, 32) for body in (0, 5) for seq in (0, 1, 2)
          for kind in (3, 20, 30, 50)),
        *(_PREFIX(17, size, 1, 0, 40)[:8] for size in (1, 480, 487, 488, 600, 2000, 2004, 2005, 2**32 - 1)),
        *(b"\xc0", b"\x90", b"\x91", b"\x92\xc0\xa1t", b"\xdd\xff\xff\xff\xff", b"\xdf\0\0\0\1", b"\xa1\xff", b"\xc7"),
    )  # fmt: skip

    def seeds(self) -> list[bytes]:
        """Each message alone and all in a row, with texts and without; and fields for messages to be made of."""
        heads = [b"".join(encode_message(seq, 0, message, 200)) for seq, message in enumerate(_messages(), 1)]
        alone = [bytes((way,)) + _PREFIX(17, 0, 0, 1, 3) + head for head in heads for way in (0, 9)]
        large = [_PREFIX(25, size, 1, 0, 40) + bytes(8 + size) for size in (400, 480, 600, 1900)]
        rows = [b"".join(heads[start : start + 5]) for start in range(0, len(heads), 4)] + large + [large[2] + large[0]]
        made = [bytes((_MESSAGE, kind)) + bytes(range(40)) for kind in range(len(_CLASSES))]
        return alone + [bytes((way,)) + row for row in rows for way in (1, 7, 40)] + made

    def run(self, data: bytes) -> Iterable[Hashable]:
        """See the class."""
        if not data:
            return ()
        if data[0] >= _MESSAGE:
            return (_check_made(data[1:]),)
        whole, error = _received([data[1:]], data[0])
        pieces, error_of_pieces = _received(_cut(data[1:], data[0]), data[0])
        assert error == error_of_pieces
        # Of the read that ends in an error nothing is acted on.
        assert whole == pieces[: len(whole)] if error else whole == pieces
        _check_lone(data[1:], pieces)
        return [error and (error[:12], len(pieces)), *_check_messages(pieces)]

    def parse(self, data: bytes) -> object:
        """Frames and messages, and nothing else."""
        got, _ = _received([data[1:]], data[0] if data else 0)
        session = _session()
        for frame in got:
            try:
                session.receive(frame[0], frame[1])
                decode_message((*frame[:4], (frame[4],)))
            except ProtocolError:
                pass
        return None

    def memory(self, size: int) -> int:
        """The receiver's buffer, the one body under way at its full length, the frames, and small objects."""
        return 2 * frames.RECEIVE_BUFFER + LIMITS.body_bytes + 24 * size + PACKER + 48 * 1024


def _messages() -> Iterator[Message]:
    yield from (Open(b"", b"", 1, 0, 5.0, 4711, 99, 1, "boot"), Opened(b"i" * 16, b"s" * 32, 0, 2000, 1, 60.0))
    yield from (Goodbye(""), Goodbye("over"), Acknowledge(), Cancel(1), Void(2), Take(1, 1, 0, 5), Take(1, 1, 0, "t"))
    yield from (Join(1, 1, "group", 0, 2, 60.0, "pid 1"), Join(1, 1, "g", 1, 2, 1.0, "", True))
    yield from (
        Put(1, 1, 0, 7, (b"body",)),
        Put(1, 1, 0, "tag", (b"body",)),
        Put(1, 1, 0, ""),
        TakeBack(1, 1, 0, "", 4),
    )
    yield from (Arrive(1, 1, tag, 2, "reduce", 0, detail, 2, 1, (b"x",)) for tag in (0, "t") for detail in ("", "sum"))
    yield from (Answer(1, False, (b"answer",)), Answer(2, True), Withdrawn(3, pack_value((None, [1]))))
    yield from (Failed(1, pack_error(error)) for error in (UsageError("no"), PeerLostError("g", [1, 2], "gone")))
    yield Failed(1, pack_error(StoreFullError("groups", 3, "all")))


# ------------------------------------------------------------------------------------------------------- frames


def _received(chunks: list[bytes], way: int) -> tuple[list[Plain], str | None]:
    """Frames of these chunks, and the error that ends them."""
    before = frames.RECEIVE_BUFFER
    frames.RECEIVE_BUFFER = before if way & 7 == _LARGE_BUFFER else SMALL_BUFFER
    got: list[Received] = []
    try:
        receiver = FrameReceiver(LIMITS)
        for chunk in chunks:
            got += receiver.receive_data(chunk)
            assert len(receiver.window) > 0
    except ProtocolError as error:
        return _plain(got), error.reason
    finally:
        frames.RECEIVE_BUFFER = before
    return _plain(got), None


def _check_lone(data: bytes, frames: list[Plain]) -> None:
    """What is read as one message in one step is these frames."""
    buffer = memoryview(data + bytes(_MORE_THAN_A_HEAD))
    read = LONE_READERS.get(buffer[KIND_PLACE])
    if read is not None and (lone := read(buffer, len(data), LIMITS.body_bytes)) is not None:
        ((seq, ack, kind, fields, body),) = frames
        assert lone == (seq, ack, decode_message((seq, ack, kind, fields, (body,) if body else ())))


def _plain(got: list[Received]) -> list[Plain]:
    return [(seq, ack, kind, fields, b"".join(body)) for seq, ack, kind, fields, body in got]


def _cut(stream: bytes, way: int) -> list[bytes]:
    """The same bytes, one by one or in pieces of a few sizes."""
    size = (1, 2, 3, 8, 17, 25, 60, 200)[way >> 3 & 7] if len(stream) < 150 or way & 128 else 29 + way
    return [stream[start : start + size] for start in range(0, len(stream), size)]


# ------------------------------------------------------------------------------------------ messages and session


def _session() -> Session:
    session = Session(LIMITS)
    for number in range(SENT):
        session.send(Put(number, 1, 0, 0, _LARGE if number == 1 else ()))
    return session


def _check_messages(got: list[Plain]) -> list[Hashable]:
    """Give them to a session as a connection does; what they came to."""
    if not got:
        return []
    session = _session()
    came: list[Hashable] = []
    for frame in got:
        message = _decoded(frame)
        received, acknowledged = session.received, session.acknowledged
        try:
            is_new = session.receive(frame[0], frame[1])
        except ProtocolError as error:
            came.append(error.reason[:9])
            is_new = False
        assert session.received == received + (is_new and frame[0] != 0)
        assert acknowledged <= session.acknowledged <= session.sent == SENT
        assert len(session._outbox) == SENT - session.acknowledged
        assert session.retained == sum(body_size(sent) for sent in session._outbox if sent[1:])
        came.append((frame[2] if message else -1, is_new, _what(message)))
    return came


def _decoded(frame: Plain) -> Message | None:
    """The message of a frame, if it is one: then the frame is how that is written."""
    seq, ack, kind, fields, body = frame
    try:
        message = decode_message((seq, ack, kind, fields, (body,) if body else ()))
    except ProtocolError as error:
        _check_reason(error.reason)
        return None
    head = _PREFIX(17 + len(fields), len(body), seq, ack, kind) + fields
    again = b"".join(encode_message(seq, ack, message, LIMITS.head_bytes))
    assert again == head + body, f"{head + body!r} is read as {message!r}, which is written as {again!r}"
    return message


def _check_reason(reason: str) -> None:
    assert 0 < len(reason) < 300, "a reason that cannot be sent in a Goodbye"


def _what(message: Message | None) -> Hashable:
    """What a member makes of an event's body."""
    if not isinstance(message, Failed | Withdrawn):
        return None
    try:
        value = unpack_error(message.body) if isinstance(message, Failed) else unpack_value(message.body)
    except ProtocolError:
        return "no value"
    if isinstance(value, AiopgError):
        assert len(f"{value}{value!r}") > 0
    return type(value).__name__


# ------------------------------------------------------------------------------------------ messages that are made


def _check_made(data: bytes) -> Hashable:
    """A message of these bytes is read as it was written, or cannot be sent."""
    if not data:
        return None
    cls = _CLASSES[data[0] % len(_CLASSES)]
    message = cls(*_values(cls, data[1:]), ((b"body",) if data[0] & 128 else ()))
    try:
        head = b"".join(encode_message(1, 2, message, LIMITS.head_bytes))
    except UsageError as error:
        return cls.__name__, str(error)[-12:]
    (frame,) = FrameReceiver(LIMITS).receive_data(head)
    got = decode_message(frame)
    assert type(got) is cls
    # By their texts: a float that is no number is not equal to itself, and True is equal to 1.
    assert repr(got) == repr(message)
    return cls.__name__


def _values(cls: type[Any], data: bytes) -> Iterator[Any]:
    """A value for each field, of the type that it has, made of the next bytes."""
    place = 0
    for name, hint in _HINTS[cls]:
        piece = data[place : place + 9]
        place += 9
        number = int.from_bytes(piece[1:], signed=True)
        first = piece[0] if piece else 0
        if name == "op":
            yield COLLECTIVES[first % len(COLLECTIVES)]
        elif hint is int:
            yield number if first else number << 8
        elif hint is float:
            (value,) = struct.unpack(">d", piece[1:].ljust(8, b"\0"))
            yield value
        elif hint is bool:
            yield bool(first & 1)
        elif hint is bytes:
            yield piece * (first & 7)
        elif hint is str or first & 1:
            yield piece.decode("utf-8", ("ignore", "surrogateescape")[first == 1]) * (first >> 3)
        else:
            yield number
