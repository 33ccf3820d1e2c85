"""The inputs of an exchange as records of a journal, and back.

A record is `u32 head length | head | body`; the head is a MessagePack array that begins with the kind of the input, the
body is that of a command and empty for the others::

    0 open      session, secret, grace, process, scope
    1 back      session, attempt                4 confirm   session, count
    2 away      session                         5 end       session, reason
    3 command   session, acknowledgement, kind, fields of the head (see `wire`), now
    6 timer     now
    7 held      [session, count, session, count, ...]

Given to an exchange in their order they make it what it was. A command's record holds the acknowledgement that came
with it, so that a replay does not pile up what members had in hand long ago; it counts as received, as its frame did.
Acknowledgements that came by themselves are in no record, but those that count are told in a `held` before a snapshot
is made: else what idle members received last, and acknowledged, would be in every one.
"""

from __future__ import annotations

import math
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
    "encode_held",
    "encode_open",
    "encode_timer",
    "replay",
]

OPEN, BACK, AWAY, COMMAND, CONFIRM, END, TIMER, HELD = range(8)

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


def encode_held(exchange: Exchange) -> Body:
    """How many of its messages each member is known to hold."""
    held: list[object] = []
    for line in exchange.lines.values():
        if line.streams.acknowledged:
            held += (line.id, line.streams.acknowledged)
    return _record((HELD, held))


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
        exchange.handle_timer(_time(now))
        return _time(now)
    if kind == HELD:
        (held,) = fields
        _hold(exchange, held)
        return None
    session, *rest = fields
    if kind == OPEN:
        _open(exchange, _bytes(session), rest)
        return None
    line = exchange.lines[_bytes(session)]
    if kind == COMMAND:
        return _command(exchange, line, rest, body)
    if kind == BACK:
        (attempt,) = rest
        line.attempt = _int(attempt, line.attempt + 1)
        exchange.back(line)
    elif kind == AWAY:
        _nothing(rest)
        exchange.away(line)
    elif kind == CONFIRM:
        (count,) = rest
        exchange.confirm(line, _int(count, 1, len(line.receipts)))
    elif kind == END:
        (reason,) = rest
        exchange.end(line, _text(reason))
    else:
        raise ValueError(f"no input has kind {kind}")
    return None


def _open(exchange: Exchange, session: bytes, rest: list[object]) -> None:
    secret, grace, process, scope = rest
    if session in exchange.lines:
        raise ValueError(f"session {session.hex()} was opened already")
    if type(process) is not list or [type(part) for part in process] not in ([], [int, int, int, str]):
        raise TypeError(f"a process is nothing, or three integers and a text, not {process!r:.100}")
    if type(scope) is not list or not all(type(name) is str for name in scope):
        raise TypeError(f"a scope is texts, not {scope!r:.100}")
    exchange.open(session, _bytes(secret), _grace(grace), process, tuple(scope))


def _command(exchange: Exchange, line: Line, rest: list[object], body: Body) -> float:
    ack, kind, fields, now = rest
    line.streams.receive(line.streams.received + 1, _int(ack, 0))
    message = decode_message((0, 0, _int(kind, 0), _bytes(fields), body if body_size(body) else ()))
    exchange.command(line, message, _time(now))
    return _time(now)


def _hold(exchange: Exchange, held: object) -> None:
    if type(held) is not list:
        raise TypeError(f"a list was expected, not {held!r:.100}")
    for session, count in zip(held[::2], held[1::2], strict=True):
        streams = exchange.lines[_bytes(session)].streams
        streams.note_acknowledgement(_int(count, streams.acknowledged))


def _nothing(rest: list[object]) -> None:
    if rest:
        raise ValueError(f"nothing more was expected, not {rest!r:.100}")


def _bytes(value: object) -> bytes:
    if type(value) is not bytes:
        raise TypeError(f"bytes were expected, not {value!r:.100}")
    return value


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError(f"a text was expected, not {value!r:.100}")
    return value


def _int(value: object, least: int, most: float = math.inf) -> int:
    if type(value) is not int:
        raise TypeError(f"an integer was expected, not {value!r:.100}")
    if not least <= value <= most:
        raise ValueError(f"an integer from {least} to {most} was expected, not {value}")
    return value


def _time(value: object) -> float:
    if type(value) is not float or not math.isfinite(value):
        raise ValueError(f"a time was expected, not {value!r:.100}")
    return value


def _grace(value: object) -> float:
    if type(value) is not float or not value > 0:
        raise ValueError(f"seconds over 0 were expected, not {value!r:.100}")
    return value
