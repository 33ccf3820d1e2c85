"""The inputs of an exchange as records of a journal, and back.

A record is `u32 head length | head | body`; the head is a MessagePack array that begins with the kind of the input, the
body is that of a command and empty for the others::

    0 open      session, secret, grace, process, scope
    1 back      session, attempt                4 confirm   session, count
    2 away      session                         5 end       session, reason
    3 command   session, acknowledgement, kind, fields of the head (see `wire`), now
    6 timer     now

Given to an exchange in their order they make it what it was. A command's record holds the acknowledgement that came
with it, so that a replay does not pile up what members had in hand long ago; it counts as received, as its frame did.
"""

from __future__ import annotations

import struct

import msgpack

from aiopg._core.exchange import Exchange, Line
from aiopg._core.frames import Body, body_size
from aiopg._core.scopes import Scope
from aiopg._core.wire import decode_message
from aiopg.errors import AiopgError, ProtocolError

__all__ = [
    "encode_away",
    "encode_back",
    "encode_command",
    "encode_confirm",
    "encode_end",
    "encode_open",
    "encode_timer",
    "replay",
]

OPEN, BACK, AWAY, COMMAND, CONFIRM, END, TIMER = range(7)

_LENGTH = struct.Struct(">I")


def encode_open(session: bytes, secret: bytes, grace: float, process: list[object], scope: Scope) -> Body:
    """`Exchange.open`."""
    return _record((OPEN, session, secret, grace, process, scope))


def encode_back(session: bytes, attempt: int) -> Body:
    """`Exchange.back`, by the connection with that number."""
    return _record((BACK, session, attempt))


def encode_away(session: bytes) -> Body:
    """`Exchange.away`."""
    return _record((AWAY, session))


def encode_command(session: bytes, ack: int, kind: int, fields: bytes, body: Body, now: float) -> Body:
    """`Exchange.command`, as it came in a frame."""
    return (*_record((COMMAND, session, ack, kind, fields, now)), *body)


def encode_confirm(session: bytes, count: int) -> Body:
    """`Exchange.confirm`."""
    return _record((CONFIRM, session, count))


def encode_end(session: bytes, reason: str) -> Body:
    """`Exchange.end`."""
    return _record((END, session, reason))


def encode_timer(now: float) -> Body:
    """`Exchange.handle_timer`."""
    return _record((TIMER, now))


def replay(exchange: Exchange, record: bytes) -> float | None:
    """Give a recorded input to an exchange; the engine's time that it says, None if it says none.

    Raises `ProtocolError` for a record that makes no sense here: a program error, or a journal put together by hand.
    """
    try:
        (size,) = _LENGTH.unpack_from(record)
        kind, *fields = msgpack.unpackb(record[_LENGTH.size : _LENGTH.size + size], unicode_errors="surrogatepass")
        body = record[_LENGTH.size + size :]
        return _apply(exchange, kind, fields, (body,) if body else ())
    except (AiopgError, ValueError, TypeError, LookupError, struct.error, msgpack.UnpackException) as error:
        raise ProtocolError(f"a record that cannot be replayed: {error!r}") from error


def _record(head: tuple[object, ...]) -> Body:
    packed = msgpack.packb(head, unicode_errors="surrogatepass")
    return (_LENGTH.pack(len(packed)) + packed,)


def _apply(exchange: Exchange, kind: int, fields: list[object], body: Body) -> float | None:
    if kind == TIMER:
        (now,) = fields
        exchange.handle_timer(_float(now))
        return _float(now)
    session, *rest = fields
    if kind == OPEN:
        secret, grace, process, scope = rest
        if type(process) is not list or type(scope) is not list or not all(type(name) is str for name in scope):
            raise TypeError(f"process and scope are lists, not {process!r:.100} and {scope!r:.100}")
        exchange.open(_bytes(session), _bytes(secret), _float(grace), process, tuple(scope))
        return None
    line = exchange.lines[_bytes(session)]
    if kind == COMMAND:
        return _command(exchange, line, rest, body)
    if kind == BACK:
        line.attempt = _int(rest[0])
        exchange.back(line)
    elif kind == AWAY:
        exchange.away(line)
    elif kind == CONFIRM:
        exchange.confirm(line, _int(rest[0]))
    elif kind == END:
        exchange.end(line, str(rest[0]))
    else:
        raise ValueError(f"no input has kind {kind}")
    return None


def _command(exchange: Exchange, line: Line, rest: list[object], body: Body) -> float:
    ack, kind, fields, now = rest
    line.streams.receive(line.streams.received + 1, _int(ack))
    message = decode_message((0, 0, _int(kind), _bytes(fields), body if body_size(body) else ()))
    exchange.command(line, message, _float(now))
    return _float(now)


def _bytes(value: object) -> bytes:
    if type(value) is not bytes:
        raise TypeError(f"bytes were expected, not {value!r:.100}")
    return value


def _int(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"an integer was expected, not {value!r:.100}")
    return value


def _float(value: object) -> float:
    if type(value) is not float:
        raise TypeError(f"seconds were expected, not {value!r:.100}")
    return value
