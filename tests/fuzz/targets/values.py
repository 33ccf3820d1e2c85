"""Values that can be sent, made of bytes: the same for the same bytes, and all of a kind as soon as a byte says so."""

from __future__ import annotations

import ipaddress
import struct
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from zoneinfo import ZoneInfo

from tests.codec.types_for_tests import Colour, Frozen, Level, Mode, Peer, Point, Rights

__all__ = ["Maker"]

ZONES: tuple[tzinfo | None, ...] = (
    None, UTC, ZoneInfo("Europe/Berlin"), timezone(timedelta(hours=-3, minutes=-30)), timezone(timedelta(0), "Z"),
)  # fmt: skip
EDGES = (0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**30, 127, 128, -32, -33, 65536)


class Maker:
    """Takes one byte after another; when there are no more, zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0
        self._makes: tuple[Callable[[], object], ...] = (
            *(lambda: None, lambda: bool(self.byte() & 1), self.number, self.float, self.text, self.binary),
            *(lambda: bytearray(self.binary()), lambda: complex(self.float(), self.float()), self.moment),
            *(lambda: date.fromordinal(1 + self.wide() % 3652059), self.clock, self.span, self.decimal),
            *(lambda: uuid.UUID(bytes=self.take(16)), self.address, self.path),
            *(lambda: [*Colour, *Level, *Mode, Rights.READ, Rights(0), Rights(3)][self.byte() % 8],),
        )

    def byte(self) -> int:
        """The next byte."""
        self._place += 1
        return self._data[self._place - 1] if self._place <= len(self._data) else 0

    def take(self, size: int) -> bytes:
        """The next bytes."""
        self._place += size
        return self._data[self._place - size : self._place].ljust(size, b"\0")

    def wide(self) -> int:
        """Four bytes."""
        return int.from_bytes(self.take(4))

    def value(self, depth: int) -> object:
        """Any value, with containers inside one another to that depth."""
        kind = self.byte()
        if not depth or kind < 128:
            return self._makes[kind % len(self._makes)]()
        size = self.byte() & 3
        if kind < 150:
            return [self.value(depth - 1) for _ in range(size)]
        if kind < 170:
            return tuple(self.value(depth - 1) for _ in range(size))
        if kind < 200:
            return {self.key(): self.value(depth - 1) for _ in range(size)}
        if kind < 215:
            return {self.key() for _ in range(size)}
        if kind < 225:
            return frozenset(self.key() for _ in range(size))
        return Peer(self.text(), self.number(), self.value(depth - 1)) if kind < 245 else self.key()

    def key(self) -> object:
        """A value that can be a key, and is equal to itself."""
        kind = self.byte() % 8
        if kind == 0:
            return (self.number(), self.text())
        if kind == 1:
            return Frozen(tuple(self.take(self.byte() & 3)))
        if kind == 2:
            return Point(1.5, self.byte())
        return (self.text, self.number, self.binary, self.address, self.clock)[kind - 3]()

    def number(self) -> int:
        """Small, wide, or at an edge."""
        kind = self.byte()
        return (
            kind
            if kind < 100
            else EDGES[kind % len(EDGES)]
            if kind < 200
            else int.from_bytes(self.take(9), signed=True)
        )

    def float(self) -> float:
        """Any 64 bits."""
        (value,) = struct.unpack(">d", self.take(8))
        return float(value)

    def text(self) -> str:
        """Text, with lone surrogates at times."""
        size = self.byte()
        text = self.take(size & 15).decode("utf-8", "surrogateescape" if size & 16 else "replace")
        return text * 40 if size > 250 else text

    def binary(self) -> bytes:
        """Bytes."""
        size = self.byte()
        return self.take(size & 15) * (30 if size > 250 else 1)

    def moment(self) -> datetime:
        """A point in time, in any zone."""
        naive = datetime(1, 1, 1) + timedelta(days=self.wide() % 3652058, microseconds=self.wide())  # noqa: DTZ001
        return naive.replace(tzinfo=ZONES[self.byte() % len(ZONES)], fold=self.byte() & 1)

    def clock(self) -> time:
        """A time of the day."""
        hour, minute, second = self.take(3)
        return time(
            hour % 24, minute % 60, second % 60, self.wide() % 10**6, ZONES[self.byte() % 2], fold=self.byte() & 1
        )

    def span(self) -> timedelta:
        """A length of time."""
        return timedelta(int.from_bytes(self.take(3), signed=True), self.wide() % 86400, self.wide() % 10**6)

    def decimal(self) -> Decimal:
        """A decimal number, or one of those that are none."""
        kind = self.byte()
        if kind < 8:
            return Decimal(("Infinity", "-Infinity", "NaN", "NaN1", "-NaN5", "0E-5", "-0", "1E+999999")[kind])
        return Decimal((kind & 1, tuple(byte % 10 for byte in self.take(kind & 15)), self.byte() - 128))

    def address(self) -> object:
        """An address, a network or an interface."""
        kind, packed = self.byte() % 6, self.take(16)
        if kind < 2:
            return ipaddress.ip_address(packed[:4] if kind else packed)
        if kind < 4:
            return ipaddress.ip_network((packed[:4] if kind & 1 else packed, packed[4] % 33), strict=False)
        return ipaddress.ip_interface((packed[:4] if kind & 1 else packed, packed[4] % 33))

    def path(self) -> object:
        """A path of each kind."""
        kind = self.byte()
        text = "".join("abc/.:\\ "[byte & 7] for byte in self.take(kind & 7))
        return (Path, PurePosixPath, PureWindowsPath)[kind % 3](text)
