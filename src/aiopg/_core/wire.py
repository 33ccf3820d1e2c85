"""How a message is written in the head of a frame, and read from it.

A head is what `frames` puts before every message (sequence number, acknowledgement, kind) and then the message's
fields: first those of a fixed size in the order of the message, then, in one MessagePack array, its texts::

    int     8 bytes, signed, big-endian          bool    1 byte, 0 or 1          float   8 bytes, IEEE 754
    op      1 byte: its place in `COLLECTIVES`   tag     8 bytes like an int: the number, or 0 for a text tag
    texts   [str or bytes, ...] in the order of the message; nil stands for a tag that is a number.
            No array at all where every text is empty and every tag a number.

A message has one head, and no other bytes are read as it: what could be written in two ways (a bool of 2, a number
beside a text tag, an array that says nothing, a text in a longer form than it needs) is refused.

Fixed places and not one MessagePack array for all: a fixed field needs no check of its type, and with the caches cold
as they are after a switch of processes, packing, unpacking and checking a dozen small objects took a quarter of a
barrier's time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeAlias

import msgpack

from aiopg._core import key_messages as k
from aiopg._core import messages as m
from aiopg._core.frames import JOIN_BELOW, LENGTHS_BYTES, PREFIX_CODES, PREFIX_HEAD_BYTES, Body, Buffer, Received
from aiopg.errors import ProtocolError, UsageError

__all__ = [
    "DECODERS",
    "KINDS",
    "LEAN_ENCODERS",
    "UNREADABLE",
    "decode_message",
    "encode_fields",
    "encode_message",
    "layout",
    "unreadable",
]

_TAG = object()
_OP = object()
_CODES: dict[object, str] = {int: "q", bool: "?", float: "d", _TAG: "q", _OP: "B"}
_TEXT_TYPES: dict[object, tuple[type, ...]] = {str: (str,), bytes: (bytes,), _TAG: (str, type(None))}

_WIRE: dict[int, tuple[type[Any], tuple[object, ...]]] = {
    1: (m.Open, (bytes, bytes, int, int, float, int, int, int, str)),
    2: (m.Opened, (bytes, bytes, int, int, int, float)),
    3: (m.Acknowledge, ()),
    4: (m.Goodbye, (str,)),
    10: (m.Join, (int, int, str, int, int, float, str, bool)),
    11: (m.Leave, (int, int)),
    12: (m.Abort, (int, int, str)),
    13: (m.Vacate, (int, int)),
    14: (m.Enlist, (int, int, str, int, int, float, float, str)),
    15: (m.Reform, (int, int, int, float, str)),
    20: (m.Put, (int, int, int, _TAG)),
    21: (m.TakeBack, (int, int, int, _TAG, int)),
    22: (m.Take, (int, int, int, _TAG)),
    30: (m.Arrive, (int, int, _TAG, int, _OP, int, str, int, int)),
    40: (m.Cancel, (int,)),
    41: (m.Inquire, (int, int)),
    42: (m.Expire, (int, int)),
    43: (m.Status, (int,)),
    44: (m.Watch, (int, int, int)),
    45: (m.Void, (int,)),
    46: (m.Trace, (int, int, int, str)),
    50: (m.Answer, (int, bool)),
    51: (m.Failed, (int,)),
    52: (m.Withdrawn, (int,)),
    60: (k.SetKeys, (int, int, int, float, bool)),
    61: (k.GetKeys, (int, int, int)),
    62: (k.WaitKeys, (int, int, int)),
    63: (k.CheckKeys, (int, int, int)),
    64: (k.AddKey, (int, int, int, str)),
    65: (k.AppendKey, (int, int, str)),
    66: (k.CompareSet, (int, int, bool, str)),
    67: (k.DeleteKeys, (int, int, int)),
    68: (k.ListKeys, (int, int, str)),
    69: (k.CountKeys, (int, int, str)),
    70: (k.Push, (int, int, str)),
    71: (k.Pop, (int, int, bool, str)),
    72: (k.PutBack, (int, int, int, str)),
    73: (k.QueueLength, (int, int, str)),
    74: (k.Meet, (int, int, int, str)),
    75: (k.Lock, (int, int, str)),
    76: (k.Unlock, (int, int, int, str)),
    77: (k.Follow, (int, int, int, str)),
}
KINDS: dict[type[Any], int] = {cls: kind for kind, (cls, _) in _WIRE.items()}
"""The number by which each message is known, whoever carries it."""
_OP_NUMBER = {op: number for number, op in enumerate(m.COLLECTIVES)}

_PREFIX_BYTES = struct.calcsize(PREFIX_CODES)
"""The kind is the last of them."""

_new = tuple.__new__  # a NamedTuple's own constructor is a Python function that does no more

_Encode: TypeAlias = Callable[[int, int, int, Any], bytes]
"""(sequence number, acknowledgement, body length, message) -> lengths and head."""
_Decode: TypeAlias = Callable[[bytes, Body], m.Message]
"""(fields of the head, body) -> message."""


def encode_message(seq: int, ack: int, message: m.Message, head_bytes: int) -> tuple[Buffer, ...]:
    """The buffers of the frame that carries a message, in order; one single buffer where its body is small.

    Raises `UsageError` if a field cannot be sent: text that is no proper text, an integer of more than 64 bits, texts
    that make the head longer than `head_bytes`.
    """
    body: Body = message[-1]
    if not body:
        size = 0
    elif len(body) == 1:
        size = len(body[0])
    else:
        size = sum(map(len, body))
    try:
        head = _ENCODE[type(message)](seq, ack, size, message)
    except (ValueError, OverflowError, KeyError, struct.error) as error:
        raise UsageError(f"a {type(message).__name__} cannot be sent: {error}") from error
    if len(head) > head_bytes + LENGTHS_BYTES:
        raise UsageError(
            f"a {type(message).__name__} with names and texts of {len(head)} bytes cannot be sent; "
            f"{head_bytes} are allowed"
        )
    if not size:
        return (head,)
    if size > JOIN_BELOW:
        return (head, *body)
    return (head + body[0],) if len(body) == 1 else (b"".join((head, *body)),)


def encode_fields(message: m.Message, head_bytes: int) -> tuple[int, bytes]:
    """Kind and fields of a message's head, for who carries it in no frame. Raises as `encode_message`."""
    (frame,) = encode_message(0, 0, message._replace(body=()), head_bytes)
    return frame[_PREFIX_BYTES - 1], bytes(frame[_PREFIX_BYTES:])


def layout(cls: type[Any]) -> str:
    """The fields of a message that have a fixed size, in the order of its head, for `struct`."""
    return _codes(_WIRE[KINDS[cls]][1])


def decode_message(received: Received) -> m.Message:
    """The message of a frame. Raises `ProtocolError` if its head is none that `encode_message` makes."""
    _, _, kind, fields, body = received
    try:
        return DECODERS[kind](fields, body)
    except UNREADABLE as error:
        raise unreadable(kind, fields, error) from None


def unreadable(kind: int, fields: bytes, error: Exception) -> ProtocolError:
    """What is to be raised when a decoder raised one of `UNREADABLE`."""
    if kind not in _WIRE:
        return ProtocolError(f"no message has kind {kind}")
    return ProtocolError(f"a head of {len(fields)} bytes is none of a {_WIRE[kind][0].__name__}: {error}")


# ---------------------------------------------------------------------------------- one codec for each message


def _plain(kind: int, cls: type[Any], fields: tuple[object, ...]) -> tuple[_Encode, _Decode]:
    """For messages that have no texts."""
    pack, unpack, size = _structs(fields)

    def encode(seq: int, ack: int, body: int, message: Any) -> bytes:
        return pack(size, body, seq, ack, kind, *message[:-1])

    def decode(head: bytes, body: Body) -> m.Message:
        message: m.Message = _new(cls, (*unpack(head), body))
        return message

    bools = _places_of_bools(fields)
    return encode, _with_bools(cls, bools, decode) if bools else decode


def _with_bools(cls: type[Any], bools: list[int], decode: _Decode) -> _Decode:
    """The same with its bools looked at."""

    def decode_checked(head: bytes, body: Body) -> m.Message:
        message = decode(head, body)
        if any(head[place] > 1 for place in bools):
            raise _no_bool(cls)
        return message

    return decode_checked


def _with_texts(kind: int, cls: type[Any], fields: tuple[object, ...]) -> tuple[_Encode, _Decode]:
    """For messages with texts, and tags that may be such."""
    pack, unpack, size = _structs(fields)
    fixed = size - PREFIX_HEAD_BYTES
    types = [_TEXT_TYPES[field] for field in fields if field in _TEXT_TYPES]
    empty = [_EMPTY[field] for field in fields if field in _TEXT_TYPES]
    bools = _places_of_bools(fields)

    def encode(seq: int, ack: int, body: int, message: Any) -> bytes:
        numbers: list[Any] = []
        texts: list[Any] = []
        for value, field in zip(message, fields, strict=False):
            if field is _TAG:
                is_number = type(value) is int
                numbers.append(value if is_number else 0)
                texts.append(None if is_number else value)
            elif field is _OP:
                numbers.append(_OP_NUMBER[value])
            else:
                (numbers if field in _CODES else texts).append(value)
        packed = b"" if texts == empty else msgpack.packb(texts)
        return pack(size + len(packed), body, seq, ack, kind, *numbers) + packed

    def decode(head: bytes, body: Body) -> m.Message:
        numbers = iter(unpack(head[:fixed]))
        packed = head[fixed:]
        texts = iter(_unpack_texts(cls, types, packed, empty) if packed else empty)
        if any(head[place] > 1 for place in bools):
            raise _no_bool(cls)
        values: list[Any] = []
        for field in fields:
            if field is _TAG:
                number, text = next(numbers), next(texts)
                if number and text is not None:
                    raise ProtocolError(f"a tag of a {cls.__name__} is a number and a text")
                values.append(number if text is None else text)
            elif field is _OP:
                values.append(m.COLLECTIVES[next(numbers)])
            else:
                values.append(next(numbers if field in _CODES else texts))
        message: m.Message = _new(cls, (*values, body))
        return message

    return encode, decode


def _tagged(kind: int, cls: type[Any], fields: tuple[object, ...]) -> tuple[_Encode, _Decode]:
    """For messages whose only text is a tag: as `_with_texts`, and short where the tag is a number, as it mostly is."""
    encode_any, decode_any = _with_texts(kind, cls, fields)
    encode_plain, decode_plain = _plain(kind, cls, fields)
    place, fixed = fields.index(_TAG), _structs(fields)[2] - PREFIX_HEAD_BYTES

    def encode(seq: int, ack: int, body: int, message: Any) -> bytes:
        return (encode_plain if type(message[place]) is int else encode_any)(seq, ack, body, message)

    def decode(head: bytes, body: Body) -> m.Message:
        return (decode_plain if len(head) == fixed else decode_any)(head, body)

    return encode, decode


def _arrive(kind: int, cls: type[Any], fields: tuple[object, ...]) -> tuple[_Encode, _Decode]:
    """As `_with_texts`, and short where there is no text: the most frequent command there is."""
    encode_any, decode_any = _with_texts(kind, cls, fields)
    pack, unpack, size = _structs(fields)
    fixed = size - PREFIX_HEAD_BYTES

    def encode_lean(seq: int, ack: int, message: m.Arrive) -> bytes | None:
        call, seat, tag, number, op, root, detail, needs, pieces, body = message
        if detail or type(tag) is not int or len(body) > 1 or (body and len(body[0]) > JOIN_BELOW):
            return None
        try:
            given = len(body[0]) if body else 0
            head = pack(size, given, seq, ack, kind, call, seat, tag, number, _OP_NUMBER[op], root, needs, pieces)
        except (KeyError, struct.error):
            return None
        return head + body[0] if body else head

    def decode(head: bytes, body: Body) -> m.Message:
        if len(head) != fixed:
            return decode_any(head, body)
        call, seat, tag, number, op, root, needs, pieces = unpack(head)
        return _new(m.Arrive, (call, seat, tag, number, m.COLLECTIVES[op], root, "", needs, pieces, body))

    LEAN_ENCODERS[cls] = encode_lean
    return encode_any, decode


def _answer(kind: int, cls: type[Any], fields: tuple[object, ...]) -> tuple[_Encode, _Decode]:
    """As `_plain`, with its bool looked at: the most frequent event there is."""
    encode, _ = _plain(kind, cls, fields)
    pack, unpack, size = _structs(fields)
    (place,) = _places_of_bools(fields)

    def encode_lean(seq: int, ack: int, message: m.Answer) -> bytes | None:
        call, receipt, body = message
        if not body:
            return pack(size, 0, seq, ack, kind, call, receipt)
        if len(body) > 1 or len(body[0]) > JOIN_BELOW:
            return None
        return pack(size, len(body[0]), seq, ack, kind, call, receipt) + body[0]

    def decode(head: bytes, body: Body) -> m.Message:
        call, receipt = unpack(head)
        if receipt and head[place] != 1:
            raise _no_bool(cls)
        return _new(m.Answer, (call, receipt, body))

    LEAN_ENCODERS[cls] = encode_lean
    return encode, decode


def _mail(kind: int, cls: type[Any], fields: tuple[object, ...]) -> tuple[_Encode, _Decode]:
    """As `_tagged`, for a message that is put in a mailbox, or asked for."""
    encode, decode = _tagged(kind, cls, fields)
    pack, _, size = _structs(fields)

    def encode_lean(seq: int, ack: int, message: m.Put | m.Take) -> bytes | None:
        call, seat, other, tag, body = message
        if type(tag) is not int or len(body) > 1 or (body and len(body[0]) > JOIN_BELOW):
            return None
        try:
            head = pack(size, len(body[0]) if body else 0, seq, ack, kind, call, seat, other, tag)
        except struct.error:
            return None
        return head + body[0] if body else head

    LEAN_ENCODERS[cls] = encode_lean
    return encode, decode


_EMPTY: dict[object, object] = {str: "", bytes: b"", _TAG: None}


def _codes(fields: tuple[object, ...]) -> str:
    return "".join(_CODES[field] for field in fields if field in _CODES)


def _structs(fields: tuple[object, ...]) -> tuple[Callable[..., bytes], Callable[[bytes], tuple[Any, ...]], int]:
    """What packs lengths and head without texts, what unpacks the fixed fields, and the size of that head."""
    codes = _codes(fields)
    fixed = struct.Struct(">" + codes)
    return struct.Struct(PREFIX_CODES + codes).pack, fixed.unpack, PREFIX_HEAD_BYTES + fixed.size


def _places_of_bools(fields: tuple[object, ...]) -> list[int]:
    codes = _codes(fields)
    return [struct.calcsize(">" + codes[:place]) for place, code in enumerate(codes) if code == "?"]


def _no_bool(cls: type[Any]) -> ProtocolError:
    return ProtocolError(f"a bool of a {cls.__name__} is neither 0 nor 1")


def _unpack_texts(cls: type[Any], wanted: list[tuple[type, ...]], packed: bytes, empty: list[object]) -> list[Any]:
    try:
        # Without limits, arrays in arrays that lie about their lengths get memory for a thousand times their bytes.
        texts = msgpack.unpackb(packed, max_array_len=len(wanted), max_map_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise ProtocolError(f"texts of a {cls.__name__} are not MessagePack: {error}") from error
    if type(texts) is not list or len(texts) != len(wanted):
        raise ProtocolError(f"a {cls.__name__} has {len(wanted)} texts in an array")
    if any(type(text) not in types for text, types in zip(texts, wanted, strict=True)):
        raise ProtocolError(f"texts of a {cls.__name__} have the wrong types")
    if texts == empty or msgpack.packb(texts) != packed:
        raise ProtocolError(f"texts of a {cls.__name__} are written in another way than they are to be")
    return texts


def _codec(kind: int, cls: type[Any], fields: tuple[object, ...]) -> tuple[_Encode, _Decode]:
    texts = [field for field in fields if field in _TEXT_TYPES]
    own = {m.Arrive: _arrive, m.Answer: _answer, m.Put: _mail, m.Take: _mail}.get(cls)
    make = own or (_plain if not texts else _tagged if texts == [_TAG] else _with_texts)
    return make(kind, cls, fields)


_ENCODE: dict[type[Any], _Encode] = {}
LEAN_ENCODERS: dict[type[Any], Callable[[int, int, Any], bytes | None]] = {}
"""`encode_message` in one step, for the messages that cannot pay for more: (sequence number, acknowledgement, message)
-> the frame. None: this one is not short, or wrong, and `encode_message` is to see to it."""
DECODERS: dict[int, _Decode] = {}
"""`decode_message` in parts, for who cannot pay for a call more: by kind; each may raise `UNREADABLE` too."""
UNREADABLE = (KeyError, struct.error, IndexError)
for _kind, (_cls, _fields) in _WIRE.items():
    _ENCODE[_cls], DECODERS[_kind] = _codec(_kind, _cls, _fields)
