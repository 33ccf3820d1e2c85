"""Commands and events as the server's script has them: heads in MessagePack, bodies as they are."""

from __future__ import annotations

from typing import Any

import msgpack

from aiopg._core.frames import Body, Buffer
from aiopg._core.key_messages import AddKey
from aiopg._core.messages import Command, Event, Failed, Withdrawn, answer
from aiopg._core.wire import KINDS
from aiopg.errors import ProtocolError, UsageError

__all__ = ["Number", "Worded", "as_event", "pack_head", "word"]

EXACT = 2**53
"""Larger integers are no longer themselves in the script's language."""

Worded = tuple[bytes, Body, int]
"""A command: its head, its body, and the bytes of both."""

Number = tuple[int, int]
"""An event's number and mark: the number counts them, the mark tells it from another one that, after the server lost
writes, has the same number."""


def word(command: Command) -> Worded:
    """A command as the script reads it. Raises `UsageError` for one that cannot be sent."""
    fields: list[Any] = list(command[:-1])
    body: Body = command[-1]
    kind = type(command)
    if kind is AddKey:
        fields[2] = str(fields[2])
    try:
        head = pack_head([KINDS[kind], *[_exact(value) if type(value) is int else value for value in fields]])
    except (ValueError, OverflowError) as error:
        raise UsageError(f"a {kind.__name__} cannot be sent: {error}") from error
    return head, body, len(head) + sum(map(len, body))


def pack_head(value: object) -> bytes:
    """A head's bytes. Texts may be in it that are no proper ones."""
    packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return packed


def _exact(value: int) -> object:
    return value if -EXACT <= value <= EXACT else [value >> 32, value & 0xFFFFFFFF]


def as_event(told: list[Any]) -> tuple[Number, Event]:
    """An event that was told in a reply, or published. Raises `ProtocolError`."""
    try:
        number, call, kind, receipt, data, mark = told
        body: tuple[Buffer, ...] = (data,) if data else ()
        if kind == 0:
            return (number, mark), answer(call, bool(receipt), body)
        return (number, mark), _KINDS[kind](call, body)
    except (ValueError, TypeError, KeyError) as error:
        raise ProtocolError(f"the server told an event that is none: {told!r:.200}") from error


_KINDS: dict[int, type[Failed] | type[Withdrawn]] = {1: Failed, 2: Withdrawn}
