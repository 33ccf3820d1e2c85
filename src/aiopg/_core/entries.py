"""Entries of a room's log: what a session has to say, in batches, as bytes and back.

A log is one for all copies of a room's engine (`replica`), which each apply it from its beginning, or from a snapshot
on. An entry is `u32 head length | head | bytes`; the head is MessagePack::

    [version, now, date, [input, ...]] now: the room's time, as its sender knows it; date: what its calendar says
    [0, kind, fields, [piece, ...]]    a command: kind and fields of its head (see `wire`), and its body in pieces:
                                       a length, whose bytes are next behind the head, or [number, offset, length],
                                       which is a reference to what the sender has written elsewhere (`blobs`)
    [1, call]                          the sender has in hand what this call was answered with
    [2]                                the sender is there, though somebody thought it away
    [3, session, reason]               that session is over
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias, cast

import msgpack

from aiopg._core.blobs import Blob
from aiopg._core.frames import Body, Buffer, body_size
from aiopg._core.messages import COMMANDS, Command
from aiopg._core.wire import decode_message, encode_fields
from aiopg.errors import AiopgError, ProtocolError, UsageError

__all__ = [
    "Entry",
    "Gone",
    "Got",
    "Here",
    "Input",
    "Packed",
    "Said",
    "decode_entry",
    "encode_entry",
    "pack_input",
]

VERSION = 1

SAID, GOT, HERE, GONE = range(4)

_LENGTH = struct.Struct(">I")


class Said(NamedTuple):
    """The sender said a command."""

    command: Command


class Got(NamedTuple):
    """The sender has in hand what this call of it was answered with."""

    call: int


class Here(NamedTuple):
    """The sender is there."""


class Gone(NamedTuple):
    """A session is over."""

    session: bytes
    reason: str


Input: TypeAlias = Said | Got | Here | Gone


class Entry(NamedTuple):
    """One entry: the inputs are in the order in which they take effect."""

    now: float
    """The room's time, in seconds, as its sender knows it."""
    date: float
    """What its sender's calendar said, in seconds since 1970: all that tells how long nobody was in a room."""
    inputs: tuple[Input, ...]


class Packed(NamedTuple):
    """An input, ready to be put into an entry."""

    head: list[object]
    body: Body
    size: int
    """Bytes that it takes, at least nearly."""


def pack_input(one: Input, head_bytes: int) -> Packed:
    """Raises `UsageError` for a command that cannot be sent, as `wire.encode_message` does."""
    if isinstance(one, Got):
        return Packed([GOT, one.call], (), 10)
    if isinstance(one, Here):
        return Packed([HERE], (), 2)
    if isinstance(one, Gone):
        return Packed([GONE, one.session, one.reason], (), len(one.session) + 4 * len(one.reason) + 10)
    kind, fields = encode_fields(one.command, head_bytes)
    pieces: list[object] = []
    inline: list[Buffer] = []
    for piece in cast("tuple[Buffer | Blob, ...]", one.command.body):
        if isinstance(piece, Blob):
            pieces.append([piece.number, piece.offset, piece.length])
        else:
            pieces.append(len(piece))
            inline.append(piece)
    body = tuple(inline)
    return Packed([SAID, kind, fields, pieces], body, len(fields) + 12 * len(pieces) + body_size(body) + 10)


def encode_entry(now: float, date: float, inputs: Iterable[Packed]) -> bytes:
    """An entry of these inputs; for `now` and `date` see `Entry`."""
    heads: list[object] = []
    pieces: list[Buffer] = []
    for packed in inputs:
        heads.append(packed.head)
        pieces += packed.body
    head = msgpack.packb([VERSION, now, date, heads], unicode_errors="surrogatepass")
    return b"".join([_LENGTH.pack(len(head)), head, *pieces])


def decode_entry(data: bytes, sender: bytes) -> Entry:
    """The entry that session `sender` wrote.

    Raises `UsageError` for one of another version, and `ProtocolError` for what is no entry.
    """
    try:
        (size,) = _LENGTH.unpack_from(data)
        head = msgpack.unpackb(data[_LENGTH.size : _LENGTH.size + size], unicode_errors="surrogatepass")
        if head[0] != VERSION:
            raise UsageError(f"the entry has version {head[0]}; this aiopg reads version {VERSION}")
        _, now, date, heads = head
        for value in (now, date):
            if type(value) is not float or not math.isfinite(value):
                raise ValueError(f"a time was expected, not {value!r:.100}")
        tail = _Tail(data, _LENGTH.size + size)
        inputs = tuple(_unpack(head, tail, sender) for head in heads)
        tail.check_end()
    except (AiopgError, ValueError, TypeError, LookupError, struct.error, msgpack.UnpackException) as error:
        if isinstance(error, UsageError):
            raise
        raise ProtocolError(f"not an entry: {error!r}") from error
    return Entry(now, date, inputs)


class _Tail:
    """The bytes behind the head."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._start = start

    def take(self, size: int) -> bytes:
        end = self._start + size
        if not 0 <= size <= len(self._data) - self._start:
            raise ValueError(f"a piece of {size} bytes, of which not all are there")
        piece = self._data[self._start : end]
        self._start = end
        return piece

    def check_end(self) -> None:
        if self._start != len(self._data):
            raise ValueError(f"{len(self._data) - self._start} bytes too many")


def _unpack(head: list[object], tail: _Tail, sender: bytes) -> Input:
    match head:
        case [0, int(kind), bytes(fields), list(pieces)]:
            body = tuple(_piece(piece, tail, sender) for piece in pieces)
            command = decode_message((0, 0, kind, fields, body))
            if type(command) not in COMMANDS:
                raise ValueError(f"a {type(command).__name__} is no command")
            return Said(cast(Command, command))
        case [1, int(call)]:
            return Got(call)
        case [2]:
            return Here()
        case [3, bytes(session), str(reason)]:
            return Gone(session, reason)
    raise ValueError(f"no input begins {head!r:.100}")


def _piece(piece: object, tail: _Tail, sender: bytes) -> Buffer:
    match piece:
        case int(size):
            return tail.take(size)
        case [int(number), int(offset), int(length)] if number > 0 and offset >= 0 and length > 0:
            return cast(Buffer, Blob(sender, number, offset, length))
    raise ValueError(f"no piece of a body is {piece!r:.100}")
