"""What is said inside a session: commands to a store, events from it. The set is closed.

A message is a NamedTuple whose last field is its body (opaque bytes, see `frames.Body`). `wire` says how the other
fields are written in a frame's head.

Every command carries a `call` number chosen by its sender; each call gets exactly one event back
(`Answer`, `Failed` or `Withdrawn`) whatever happens, in any order between calls. `seat` names one membership
of the session, also chosen by the sender (a session can be in many groups).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias, get_args

import msgpack

from aiopg import errors
from aiopg._core.frames import Body
from aiopg._core.key_messages import KeyCommand
from aiopg.errors import AiopgError, ProtocolError

__all__ = [
    "Abort",
    "Acknowledge",
    "COLLECTIVES",
    "COMMANDS",
    "Answer",
    "Arrive",
    "Cancel",
    "Command",
    "Enlist",
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
    "Reform",
    "Status",
    "Tag",
    "Take",
    "TakeBack",
    "Trace",
    "Vacate",
    "Void",
    "Watch",
    "Withdrawn",
    "answer",
    "pack_error",
    "pack_value",
    "told_fields",
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
    proof: bytes
    """That I know the session's secret (`handshake.resume_proof`); empty for a new session."""
    attempt: int
    """Number of this connection among those of its session, from 1: the store serves only the latest."""
    received: int
    grace: float
    """Seconds for which the session is to be kept while no connection carries it."""
    pid: int
    """This and the next three: the client's process, for a store on its own host (`processes.ProcessIdentity`)."""
    start_time: int
    pid_namespace: int
    boot_id: str
    body: Body = ()


class Opened(NamedTuple):
    """Server: this is your session; I hold all of it up to `received`; no payload over `payload_bytes`."""

    session: bytes
    secret: bytes
    """What the client proves the session with when it comes again; empty when it did."""
    received: int
    payload_bytes: int
    pid: int
    patience: float
    """Seconds for which it is worth trying to come again when the connection is lost."""
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
    takeover: bool = False
    """Whether a live holder of the rank is to be put out."""
    body: Body = ()


class Enlist(NamedTuple):
    """Take whatever rank of `group` there will be (see `lobbies`). Body: what this one says of itself.

    Answered with a place: rank and world_size as u32, the incarnation's number as i64, and what each rank said of
    itself, as parts.
    """

    call: int
    seat: int
    group: str
    least: int
    """So many are to come before the group forms ..."""
    most: int
    """... at once when these have, ..."""
    patience: float
    """... else so many seconds after the last of them."""
    ttl: float
    holder: str
    body: Body = ()


class Reform(NamedTuple):
    """Have the group of `seat` form anew of those who are left, and take `new_seat` in it. Answered as `Enlist`."""

    call: int
    seat: int
    new_seat: int
    ttl: float
    holder: str
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


class Void(NamedTuple):
    """Stands where a command stood that its caller gave up before the store had it. Its event is `Withdrawn`."""

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


class Watch(NamedTuple):
    """Ask for what happened to the members of this group after its first `after` happenings; waits for some.

    Answered with a list of (what, rank, text): "joined", "left", "lost" or "aborted", who, and what is said of it.
    """

    call: int
    seat: int
    after: int
    body: Body = ()


class Status(NamedTuple):
    """Ask for the state of the store. Answered with a map."""

    call: int
    body: Body = ()


class Trace(NamedTuple):
    """Ask what happened on the store (`recorder.Recorder.excerpt`). Answered with its `Excerpt.fields`.

    `epoch` is what the store's wall clock is ahead of its monotonic one, in seconds, or nil; `next` is to be given as
    `after` the next time.
    """

    call: int
    after: int
    most: int
    group: str
    """Empty: all of them."""
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
    """The call was taken back and left no trace.

    The body says who had arrived and who was missing: two lists of ranks, each nil where the store does not know.
    """

    call: int
    body: Body = ()


Command: TypeAlias = (
    Join
    | Enlist
    | Reform
    | Leave
    | Vacate
    | Abort
    | Put
    | TakeBack
    | Take
    | Arrive
    | Cancel
    | Void
    | Inquire
    | Expire
    | Watch
    | Status
    | Trace
    | KeyCommand
)
COMMANDS: Final = frozenset(get_args(Command))
Event: TypeAlias = Answer | Failed | Withdrawn
Message: TypeAlias = Command | Event | Open | Opened | Acknowledge | Goodbye

COLLECTIVES: Final = (
    "barrier", "broadcast", "all_gather", "gather", "scatter", "all_to_all", "all_reduce", "reduce",
)  # fmt: skip
"""The operations that an `Arrive` may name."""

_new = tuple.__new__  # a NamedTuple's own constructor is a Python function that does no more


def answer(call: int, receipt: bool, body: Body) -> Answer:
    """`Answer(call, receipt, body)`, at a third of the price: one of these is made for every call."""
    return _new(Answer, (call, receipt, body))


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


def pack_error(error: AiopgError, trace: Sequence[str] = ()) -> Body:
    """A body that holds an error: its class's name and its fields. `trace`: lines that it is to carry, if it can."""
    return pack_value((type(error).__name__, told_fields(error, trace)))


def told_fields(error: AiopgError, trace: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of an error as they are written: without a trace that says nothing. `trace`: see `pack_error`."""
    fields = error.fields()
    carried = fields.pop("trace", None)  # None: an error of a kind that carries none
    if carried is not None and (said := trace or carried):
        fields["trace"] = said
    return fields


def unpack_error(body: Body) -> AiopgError:
    """A new error from such a body. Raises `ProtocolError` if it holds none."""
    value = unpack_value(body)
    try:
        name, fields = value
        return _ERRORS[name](**fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"a failure that names no known error: {value!r:.200}") from error
