"""Messages that come alone: what nearly every read brings is one small frame, whole, of one of four kinds.

Their frames are read here in one step, where `frames` and `wire` take two and make a frame and its fields in between:
between two switches of processes each of those costs. The layout is that of `wire`. Whatever is not just so (more or
less than one frame, another kind, a text, a number that is not allowed) is no message of this module, and nothing has
happened: those two see to it, and say what is wrong where something is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeAlias

from aiopg._core.frames import LENGTHS_BYTES, PREFIX_CODES
from aiopg._core.messages import COLLECTIVES, Answer, Arrive, Message, Put, Take
from aiopg._core.wire import KINDS, layout

__all__ = ["KIND_PLACE", "LONE_READERS", "Lone", "LoneReader"]

Lone: TypeAlias = tuple[int, int, Message]
"""Sequence number, which is not 0, acknowledgement, message."""

LoneReader: TypeAlias = Callable[[memoryview, int, int], Lone | None]
"""(memory that was read into, bytes that came, bytes that a body may have) -> the message, if they are one such."""

KIND_PLACE = struct.calcsize(PREFIX_CODES) - 1
"""Where in a frame its kind is."""

_new = tuple.__new__  # a NamedTuple's own constructor is a Python function that does no more


def _arrive() -> LoneReader:
    unpack, whole = _frame_of(Arrive)
    head_bytes, ops = whole - LENGTHS_BYTES, len(COLLECTIVES)

    def read(buffer: memoryview, count: int, most: int) -> Lone | None:
        head, size, seq, ack, _, call, seat, tag, number, op, root, needs, pieces = unpack(buffer)
        if head != head_bytes or whole + size != count or size > most or not seq or op >= ops:
            return None
        body = (buffer[whole:count].tobytes(),) if size else ()
        return seq, ack, _new(Arrive, (call, seat, tag, number, COLLECTIVES[op], root, "", needs, pieces, body))

    return read


def _answer() -> LoneReader:
    unpack, whole = _frame_of(Answer)
    head_bytes = whole - LENGTHS_BYTES

    def read(buffer: memoryview, count: int, most: int) -> Lone | None:
        head, size, seq, ack, _, call, receipt = unpack(buffer)
        if head != head_bytes or whole + size != count or size > most or not seq or buffer[whole - 1] > 1:
            return None
        body = (buffer[whole:count].tobytes(),) if size else ()
        return seq, ack, _new(Answer, (call, receipt, body))

    return read


def _mail(kind: type[Put] | type[Take]) -> LoneReader:
    unpack, whole = _frame_of(kind)
    head_bytes = whole - LENGTHS_BYTES

    def read(buffer: memoryview, count: int, most: int) -> Lone | None:
        head, size, seq, ack, _, call, seat, other, tag = unpack(buffer)
        if head != head_bytes or whole + size != count or size > most or not seq:
            return None
        body = (buffer[whole:count].tobytes(),) if size else ()
        return seq, ack, _new(kind, (call, seat, other, tag, body))

    return read


def _frame_of(kind: type[Message]) -> tuple[Callable[[memoryview], tuple[int, ...]], int]:
    """What unpacks the frame of a message without texts, but for its body, and the size of that."""
    frame = struct.Struct(PREFIX_CODES + layout(kind))
    return frame.unpack_from, frame.size


LONE_READERS: dict[int, LoneReader] = {
    KINDS[Arrive]: _arrive(),
    KINDS[Answer]: _answer(),
    KINDS[Put]: _mail(Put),
    KINDS[Take]: _mail(Take),
}
"""By kind. The memory must be larger than any head here."""
