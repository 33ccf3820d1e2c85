"""Protocol buffers by hand: as much of the format as etcd's messages need.

The messages are few and small (`_messages`), and this is less code than declaring them to the runtime of protobuf.
It also keeps that package out: programs pin many versions of it, and its one pool of names per process is a place where
two clients of etcd meet. What is read was sent by a store that we chose, but nothing here trusts it: lengths are
checked against what is there, and whatever is no message raises `ProtocolError`.

A message is fields, each a number and a value: a number (varint), or a string of bytes, which may be a message. Unknown
fields are skipped, and a field that is not there is zero or empty, as the format wants it.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiopg.errors import ProtocolError

__all__ = ["Fields", "flag", "message", "number", "string", "strings"]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""How a value is written. (3 and 4, groups, nobody uses any more.)"""

WRAP = 1 << 64
"""Negative numbers are written as if they were unsigned ones of 64 bits."""


def number(field: int, value: int) -> bytes:
    """An integer of up to 64 bits; nothing for 0."""
    return _varint(field << 3 | VARINT) + _varint(value % WRAP) if value else b""


def flag(field: int, value: bool) -> bytes:
    """A boolean; nothing for False."""
    return number(field, int(value))


def string(field: int, value: bytes) -> bytes:
    """Bytes or text; nothing for an empty one."""
    return message(field, value) if value else b""


def strings(field: int, values: Iterable[bytes]) -> bytes:
    """One field as often as there are values, empty ones too."""
    return b"".join(message(field, value) for value in values)


def message(field: int, value: bytes) -> bytes:
    """A message inside: there even if it is empty, since its being there says something."""
    return b"".join((_varint(field << 3 | BYTES), _varint(len(value)), value))


class Fields:
    """A message taken apart. Raises `ProtocolError` for bytes that are none."""

    __slots__ = ("_numbers", "_strings")

    def __init__(self, data: bytes) -> None:
        self._numbers: dict[int, int] = {}
        self._strings: dict[int, list[bytes]] = {}
        at, end = 0, len(data)
        while at < end:
            key, at = _read_varint(data, at)
            kind = key & 7
            if kind == VARINT:
                self._numbers[key >> 3], at = _read_varint(data, at)
                continue
            if kind == BYTES:
                size, at = _read_varint(data, at)
            elif kind == FIXED64:
                size = 8
            elif kind == FIXED32:
                size = 4
            else:
                raise ProtocolError(f"etcd sent a message with a field of kind {kind}, which there is not")
            if size > end - at:
                raise ProtocolError(f"etcd sent a message that ends {size - (end - at)} bytes early")
            if kind == BYTES:
                self._strings.setdefault(key >> 3, []).append(data[at : at + size])
            at += size

    def number(self, field: int) -> int:
        """An integer with a sign."""
        value = self._numbers.get(field, 0)
        return value if value < WRAP >> 1 else value - WRAP

    def unsigned(self, field: int) -> int:
        """An integer without a sign."""
        return self._numbers.get(field, 0)

    def flag(self, field: int) -> bool:
        """A boolean."""
        return bool(self._numbers.get(field, 0))

    def string(self, field: int) -> bytes:
        """Bytes, or a message inside."""
        values = self._strings.get(field)
        return values[-1] if values else b""

    def text(self, field: int) -> str:
        """Text; what is no UTF-8 in it is replaced."""
        return self.string(field).decode(errors="replace")

    def strings(self, field: int) -> list[bytes]:
        """All of a field that comes more than once."""
        return self._strings.get(field, [])

    def has(self, field: int) -> bool:
        """Whether a message inside is there, an empty one too."""
        return field in self._strings


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next thing begins."""
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value % WRAP, at
            shift += 7
            if shift > 63:
                raise ProtocolError("etcd sent a number of more than 64 bits")
    except IndexError:
        raise ProtocolError("etcd sent a message that ends within a number") from None
