"""Values that msgpack has no type for and that hold no others: what they look like as bytes.

The codes are part of the wire format: a code is never used again for something else.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Context, Decimal, InvalidOperation
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from uuid import UUID

from msgpack import ExtType

from aiopg.codec._zones import pack_zone, unpack_zone

__all__ = ["DECODERS", "ENCODERS", "MALFORMED", "Code", "encode_text"]


class Code(enum.IntEnum):
    """The extension codes, 0 to 127."""

    INT = 1
    TEXT = 2
    BYTEARRAY = 3
    COMPLEX = 4
    DATETIME = 5
    DATE = 6
    TIME = 7
    TIMEDELTA = 8
    DECIMAL = 9
    UUID = 10
    ADDRESS = 11
    PATH = 12
    MARK = 64


_COMPLEX = struct.Struct(">dd")
_DATETIME = struct.Struct(">HBBBBBIB")
_DATE = struct.Struct(">HBB")
_TIME = struct.Struct(">BBBIB")
_TIMEDELTA = struct.Struct(">iII")

# Not the caller's context: in that one the trap may be off, and nonsense would be read as nan.
_DECIMAL = Context(traps=[InvalidOperation])


def _encode_int(value: int) -> ExtType:
    return ExtType(Code.INT, value.to_bytes(value.bit_length() // 8 + 1, signed=True))


def encode_text(value: str) -> ExtType:
    """A str with lone surrogates, which UTF-8 proper cannot hold."""
    return ExtType(Code.TEXT, value.encode("utf-8", "surrogatepass"))


def _encode_datetime(value: datetime) -> ExtType:
    day = (value.year, value.month, value.day)
    clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return ExtType(Code.DATETIME, _DATETIME.pack(*day, *clock) + pack_zone(value.tzinfo))


def _encode_time(value: time) -> ExtType:
    clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return ExtType(Code.TIME, _TIME.pack(*clock) + pack_zone(value.tzinfo))


def _encode_path(kind: int) -> Callable[[PurePath], ExtType]:
    def encode(path: PurePath) -> ExtType:
        text = str(path)
        # Python 3.11 writes half a UNC path ("//a/") as the text of another path.
        if type(path)(text) != path:
            raise ValueError("a path made of its text would be another; send its parts")
        return ExtType(Code.PATH, bytes([kind]) + text.encode("utf-8", "surrogatepass"))

    return encode


def _encode_address(kind: int) -> Callable[[object], ExtType]:
    return lambda address: ExtType(Code.ADDRESS, bytes([kind]) + str(address).encode("ascii"))


# The index is on the wire.
_ADDRESSES = (IPv4Address, IPv6Address, IPv4Network, IPv6Network, IPv4Interface, IPv6Interface)
_PATHS = (Path, PurePosixPath, PureWindowsPath)

ENCODERS: dict[type, Callable[[Any], ExtType]] = {
    int: _encode_int,
    bytearray: lambda value: ExtType(Code.BYTEARRAY, bytes(value)),
    complex: lambda value: ExtType(Code.COMPLEX, _COMPLEX.pack(value.real, value.imag)),
    datetime: _encode_datetime,
    date: lambda value: ExtType(Code.DATE, _DATE.pack(value.year, value.month, value.day)),
    time: _encode_time,
    timedelta: lambda value: ExtType(Code.TIMEDELTA, _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)),
    Decimal: lambda value: ExtType(Code.DECIMAL, str(value).encode("ascii")),
    UUID: lambda value: ExtType(Code.UUID, value.bytes),
    PosixPath: _encode_path(0),
    WindowsPath: _encode_path(0),
    PurePosixPath: _encode_path(1),
    PureWindowsPath: _encode_path(2),
} | {cls: _encode_address(kind) for kind, cls in enumerate(_ADDRESSES)}
"""By exact type. They raise ValueError, with the reason, for a value that cannot be sent.

int: only those beyond 64 bits come here; msgpack holds the others.
"""


def _decode_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold = _DATETIME.unpack_from(data)
    zone = unpack_zone(data[_DATETIME.size :])
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _decode_time(data: bytes) -> time:
    hour, minute, second, microsecond, fold = _TIME.unpack_from(data)
    return time(hour, minute, second, microsecond, unpack_zone(data[_TIME.size :]), fold=fold)


def _decode_timedelta(data: bytes) -> timedelta:
    days, seconds, microseconds = _TIMEDELTA.unpack(data)
    if seconds >= 86400 or microseconds >= 1_000_000:
        raise ValueError("a timedelta with more than a day of seconds or a second of microseconds")
    return timedelta(days, seconds, microseconds)


def _decode_address(data: bytes) -> object:
    return _ADDRESSES[data[0]](data[1:].decode("ascii"))


def _decode_path(data: bytes) -> object:
    return _PATHS[data[0]](data[1:].decode("utf-8", "surrogatepass"))


DECODERS: dict[int, Callable[[bytes], object]] = {
    Code.INT: lambda data: int.from_bytes(data, signed=True),
    Code.TEXT: lambda data: data.decode("utf-8", "surrogatepass"),
    Code.BYTEARRAY: bytearray,
    Code.COMPLEX: lambda data: complex(*_COMPLEX.unpack(data)),
    Code.DATETIME: _decode_datetime,
    Code.DATE: lambda data: date(*_DATE.unpack(data)),
    Code.TIME: _decode_time,
    Code.TIMEDELTA: _decode_timedelta,
    Code.DECIMAL: lambda data: Decimal(data.decode("ascii"), _DECIMAL),
    Code.UUID: lambda data: UUID(bytes=data),
    Code.ADDRESS: _decode_address,
    Code.PATH: _decode_path,
}
"""By code. For bytes that are no such value they raise one of `MALFORMED`."""

MALFORMED = (ValueError, LookupError, OverflowError, InvalidOperation, struct.error)
