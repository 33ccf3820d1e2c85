"""What is said inside a session: commands to a store, events from it. The set is closed.

A message is a NamedTuple whose last field is its body (opaque bytes, see `frames.Body`). On the wire its
other fields follow the frame's sequence number, acknowledgement and kind::

    head = [seq, ack, kind, field, field, ...]        seq 0: not part of the session's stream

Every command carries a `call` number chosen by its sender; each call gets exactly one event back
(`Answer`, `Failed` or `Withdrawn`) whatever happens, in any order between calls. `seat` names one membership
of the session, also chosen by the sender (a session can be in many groups).
"""

from __future__ import annotations

from itertools import product
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack

from aiopg import errors
from aiopg._core.frames import Body
from aiopg.errors import AiopgError, ProtocolError

__all__ = [
    "KIND_OF",
    "Abort",
    "Acknowledge",
    "Answer",
    "Arrive",
    "Cancel",
    "Command",
    "Event",
    "Expire",
    "Failed",
    "Goodbye",
    "Inquire",
    "Join",
    "Leave",
    "Message",
    "Needs",
    "Open",
    "Opened",
    "Put",
    "Status",
    "Tag",
    "Take",
    "TakeBack",
    "Vacate",
    "Withdrawn",
    "decode_message",
    "pack_error",
    "pack_value",
    "unpack_error",
    "unpack_value",
]

Tag: TypeAlias = int | str


class Needs:
    """What a rank waits for in a collective. Plain integers: they cross the wire in every arrival."""

    NOTHING: Final = 0
    """Nothing; it is answered on arrival (the source of a broadcast)."""
    ROOT: Final = 1
    """The root's part."""
    ALL: Final = 2
    """Every rank's arrival, and their parts."""
    ALL_TOLD: Final = 3
    """Every rank's arrival, and that every other rank has its answer in hand (who hosts the store leaves last)."""


# ------------------------------------------------------------------------------------ opening a connection


class Open(NamedTuple):
    """Client: open a session (`session` empty), or go on with one of which I hold all up to `received`."""

    session: bytes
    received: int
    body: Body = ()


class Opened(NamedTuple):
    """Server: this is your session; I hold all of it up to `received`; no payload over `payload_bytes`."""

    session: bytes
    received: int
    payload_bytes: int
    pid: int
    body: Body = ()


class Acknowledge(NamedTuple):
    """Either: nothing to say but the head's acknowledgement."""

    body: Body = ()


class Goodbye(NamedTuple):
    """Either: this session ends here, for the reason given."""

    reason: str
    body: Body = ()


# ------------------------------------------------------------------------------------------------ commands


class Join(NamedTuple):
    """Take `rank` of `group`. Answered when all `world_size` ranks are there, with the incarnation's number."""

    call: int
    seat: int
    group: str
    rank: int
    world_size: int
    ttl: float
    """Seconds after which what this member sent and nobody took expires."""
    holder: str
    """Who this is, for the error that a second taker of the rank gets."""
    body: Body = ()


class Leave(NamedTuple):
    """Give the seat up."""

    call: int
    seat: int
    body: Body = ()


class Vacate(NamedTuple):
    """Take a join back, whether it was answered or not: the seat is as if never taken, and others wait for it."""

    call: int
    seat: int
    body: Body = ()


class Abort(NamedTuple):
    """Fail every call on this group, now and later."""

    call: int
    seat: int
    reason: str
    body: Body = ()


class Put(NamedTuple):
    """Append the body to the mailbox (me, dst, tag). Answered when it is there or handed on."""

    call: int
    seat: int
    dst: int
    tag: Tag
    body: Body = ()


class TakeBack(NamedTuple):
    """Remove what call `put` put, if nobody took it. Answered with whether it had been taken."""

    call: int
    seat: int
    dst: int
    tag: Tag
    put: int
    body: Body = ()


class Take(NamedTuple):
    """Take the head of the mailbox (src, me, tag); waits for one."""

    call: int
    seat: int
    src: int
    tag: Tag
    body: Body = ()


class Arrive(NamedTuple):
    """Arrive at collective `number` of `tag`, giving `pieces` parts (none, one, or one for each rank)."""

    call: int
    seat: int
    tag: Tag
    number: int
    op: str
    root: int
    """-1 where the collective has none."""
    detail: str
    """What else must agree between the ranks, such as the reduce operation."""
    needs: int
    pieces: int
    body: Body = ()


class Cancel(NamedTuple):
    """Take the waiting `call` back. Its one event is then `Withdrawn`, unless it had one already."""

    call: int
    body: Body = ()


class Inquire(NamedTuple):
    """Ask whom the waiting call `about` waits for. Answered with (arrived, missing), or None if it waits no more."""

    call: int
    about: int
    body: Body = ()


class Expire(NamedTuple):
    """Drop what is past its time in this group now. Answered with how many payloads went."""

    call: int
    seat: int
    body: Body = ()


class Status(NamedTuple):
    """Ask for the state of the store. Answered with a map."""

    call: int
    body: Body = ()


# -------------------------------------------------------------------------------------------------- events


class Answer(NamedTuple):
    """The call is done; the body is its result."""

    call: int
    receipt: bool
    """Acknowledge at once: somebody waits to know that you have this."""
    body: Body = ()


class Failed(NamedTuple):
    """The call failed; the body is the error (`pack_error`)."""

    call: int
    body: Body = ()


class Withdrawn(NamedTuple):
    """The call was taken back and left no trace; the body says who had arrived and who was missing."""

    call: int
    body: Body = ()


Command: TypeAlias = Join | Leave | Vacate | Abort | Put | TakeBack | Take | Arrive | Cancel | Inquire | Expire | Status
Event: TypeAlias = Answer | Failed | Withdrawn
Message: TypeAlias = Command | Event | Open | Opened | Acknowledge | Goodbye

_TAG = (int, str)
_WIRE: dict[int, tuple[type[Any], tuple[Any, ...]]] = {
    1: (Open, (bytes, int)),
    2: (Opened, (bytes, int, int, int)),
    3: (Acknowledge, ()),
    4: (Goodbye, (str,)),
    10: (Join, (int, int, str, int, int, float, str)),
    11: (Leave, (int, int)),
    13: (Vacate, (int, int)),
    12: (Abort, (int, int, str)),
    20: (Put, (int, int, int, _TAG)),
    21: (TakeBack, (int, int, int, _TAG, int)),
    22: (Take, (int, int, int, _TAG)),
    30: (Arrive, (int, int, _TAG, int, str, int, str, int, int)),
    40: (Cancel, (int,)),
    41: (Inquire, (int, int)),
    42: (Expire, (int, int)),
    43: (Status, (int,)),
    50: (Answer, (int, bool)),
    51: (Failed, (int,)),
    52: (Withdrawn, (int,)),
}


def _spellings(fields: tuple[Any, ...]) -> frozenset[tuple[type, ...]]:
    """Every tuple of exact types that these fields may have."""
    return frozenset(product(*(f if isinstance(f, tuple) else (f,) for f in fields)))


# One comparison of tuples in C checks the types of all fields of a head.
_KINDS: dict[int, tuple[type[Any], frozenset[tuple[type, ...]]]] = {
    kind: (cls, _spellings(fields)) for kind, (cls, fields) in _WIRE.items()
}
KIND_OF: dict[type[Any], int] = {cls: kind for kind, (cls, _) in _WIRE.items()}
"""The number that stands for a message's class on the wire."""


_new = tuple.__new__  # a NamedTuple's own constructor is a Python function that does no more


def decode_message(head: list[Any], body: Body) -> Message:
    """The message of a frame. Raises `ProtocolError` if the kind is unknown or a field has another type."""
    kind = head[2] if len(head) > 2 else None
    known = _KINDS.get(kind) if type(kind) is int else None
    if known is None:
        raise ProtocolError(f"no message has kind {kind!r:.100}")
    cls, spellings = known
    fields = head[3:]
    if tuple(map(type, fields)) not in spellings:
        raise ProtocolError(f"fields of a {cls.__name__} have the wrong number or types")
    message: Message = _new(cls, (*fields, body))
    return message


# -------------------------------------------------------------------------------- small values in a body

_ERRORS = {
    name: cls
    for name in errors.__all__
    if isinstance(cls := getattr(errors, name), type) and issubclass(cls, AiopgError)
}


def pack_value(value: object) -> Body:
    """A body that holds one plain value of the protocol's own (never a user's object).

    Names and tags may be in it that are no proper text (file names can be such): they are told as they were given.
    """
    return (msgpack.packb(value, unicode_errors="surrogatepass"),)


def unpack_value(body: Body) -> Any:
    """The value of such a body. Raises `ProtocolError`."""
    try:
        return msgpack.unpackb(b"".join(body), strict_map_key=False, unicode_errors="surrogatepass")
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a value's bytes are not MessagePack: {error}") from error


def pack_error(error: AiopgError) -> Body:
    """A body that holds an error: its class's name and its fields."""
    return pack_value((type(error).__name__, error.fields()))


def unpack_error(body: Body) -> AiopgError:
    """A new error from such a body. Raises `ProtocolError` if it holds none."""
    value = unpack_value(body)
    try:
        name, fields = value
        return _ERRORS[name](**fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"a failure that names no known error: {value!r:.200}") from error
