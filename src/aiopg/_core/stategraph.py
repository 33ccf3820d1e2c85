"""Snapshots: the whole state of an exchange, or of a replica, as bytes, and back.

The state is a graph of a few kinds of objects that know one another both ways (a seat its incarnation, the incarnation
its seats). It is written as such, so that no state machine has to say twice what it consists of, and what it gains
later is in the snapshot by itself::

    u32 length of the graph | graph | payload bytes, one after another
    graph   MessagePack: [version, now, root, [node, ...]]
    node    [kind, content]: a list, tuple, deque, dict or set, an object of a class of `_CLASSES`, or an error
    value   None, bool, int, float, str as they are; [0, n] node n; [1, offset, length] bytes; [2] the store's limits

The set of classes is closed, and so is that of each one's attributes: a snapshot can make nothing but the parts of
such a state, and makes them whole. Payloads are not copied when it is written. What carries a session (`Line.carrier`)
is not part of the state.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeAlias

import msgpack

from aiopg import errors
from aiopg._core import (
    blobs,
    engine,
    exchange,
    groups,
    history,
    lobbies,
    mailboxes,
    membership,
    messages,
    replica,
    replies,
    round,
    rounds,
    session,
)
from aiopg._core.frames import Buffer
from aiopg._core.keys import changes, locks, meetings, queues, space, values, waits
from aiopg._core.limits import Limits
from aiopg._core.recorder import NOTHING, Recorder
from aiopg.errors import AiopgError, Outcome, ProtocolError, UsageError

__all__ = ["State", "VERSION", "dump", "load", "load_replica"]

State: TypeAlias = "exchange.Exchange | replica.Replica"

VERSION = 4
"""Of the graph's classes and their attributes. A snapshot of another version is refused, never guessed at."""

_CLASSES: tuple[type[Any], ...] = (
    exchange.Exchange, exchange.Line, session.Session, engine.Engine, replies.Replies,
    groups.Groups, groups.Incarnation, groups.Seat, groups.Queued, history.History, history._Watching,
    mailboxes.Mailboxes, mailboxes._Mailbox, mailboxes._Take, rounds.Rounds, round.Round, round.Arrival,
    membership.Membership, lobbies.Lobbies, lobbies._Lobby, lobbies._Applicant, groups.Common, space.Space,
    values.Values, values._Value, changes.Changes, changes._Follower,
    queues.Queues, queues._Queue, queues._Pop, waits.Waits, waits._Presence,
    meetings.Meetings, meetings._Meeting, meetings._Meet, locks.Locks, locks._Lock, locks._Asking,
    replica.Replica, replica.Attendance, blobs.Blob,
)  # fmt: skip
_TUPLES: tuple[type[Any], ...] = (mailboxes._Letter, round.Signature, messages.Join, changes._Change, queues._Item)
_ERRORS = {cls.__name__: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, AiopgError)}
_NOT_STATE: dict[type[Any], frozenset[str]] = {
    engine.Engine: frozenset({"_handlers", "_about", "_working_seat", "_recorder", "_sessions"}),
    groups.Groups: frozenset({"recorder"}),
    groups.Incarnation: frozenset({"trail"}),
    groups.Seat: frozenset({"joined", "heard"}),
    mailboxes.Mailboxes: frozenset({"trail"}),
    rounds.Rounds: frozenset({"trail"}),
    round.Arrival: frozenset({"at"}),
    round.Round: frozenset({"about"}),
    exchange.Line: frozenset({"carrier"}),
    session.Session: frozenset({"told", "_frames_limit", "_bytes_limit", "_head_bytes"}),
    replies.Replies: frozenset({"_waiting_calls"}),
}
"""What the program gives an object when it is loaded: the limits of this life, not those of the last, and its recorder.
"""

_LIST, _TUPLE, _DEQUE, _DICT, _SET, _ERROR, _OBJECT = range(7)
_FIRST_TUPLE = 1000
_SEQUENCES: dict[type[Any], int] = {list: _LIST, tuple: _TUPLE, deque: _DEQUE}
_NODE, _BYTES, _LIMITS = 0, 1, 2
_SENSELESS = (
    ValueError, TypeError, LookupError, AttributeError, RecursionError, struct.error, msgpack.UnpackException,
)  # fmt: skip
"""What damaged bytes make of a reader."""
_PLAIN = frozenset({type(None), bool, int, float, str})

_LENGTH = struct.Struct(">I")


def dump(state: State, now: float, met: list[blobs.Blob] | None = None) -> list[Buffer]:
    """The snapshot of a state at `now` (engine's time), in pieces; the payloads in it are those of the state.

    `met`: gets the references to payloads elsewhere that are part of it.
    """
    writer = _Writer()
    root = writer.value(state)
    writer.write_nodes()
    if met is not None:
        met += writer.met_blobs()
    graph = msgpack.packb([VERSION, now, root, writer.nodes], unicode_errors="surrogatepass")
    return [_LENGTH.pack(len(graph)) + graph, *writer.pieces]


def load(data: Buffer, limits: Limits, about: Mapping[str, object]) -> tuple[exchange.Exchange, float]:
    """The exchange of a snapshot, and the engine's time at which it was made.

    Raises `ProtocolError` for what is no snapshot, and `UsageError` for one of another version.
    """
    state, now = _load(data, limits, about)
    if not isinstance(state, exchange.Exchange):
        raise ProtocolError("not a snapshot of an exchange")
    return state, now


def load_replica(data: Buffer, limits: Limits, about: Mapping[str, object]) -> replica.Replica:
    """The replica of a snapshot. Raises as `load`."""
    state, _ = _load(data, limits, about)
    if not isinstance(state, replica.Replica):
        raise ProtocolError("not a snapshot of a replica")
    return state


def _load(data: Buffer, limits: Limits, about: Mapping[str, object]) -> tuple[object, float]:
    view = memoryview(data)
    try:
        (size,) = _LENGTH.unpack_from(view)
        graph = view[_LENGTH.size : _LENGTH.size + size]
        version, now, root, nodes = msgpack.unpackb(
            graph, strict_map_key=False, unicode_errors="surrogatepass", max_array_len=2**31
        )
        if version != VERSION:
            raise UsageError(f"the snapshot has version {version}; this aiopg reads version {VERSION}")
        state = _Reader(nodes, view[_LENGTH.size + size :], limits, about).read(root)
    except _SENSELESS as error:
        raise ProtocolError(f"not a snapshot: {error!r}") from error
    if type(now) is not float:
        raise ProtocolError("a snapshot of no time")
    return state, now


@cache
def _declared() -> dict[type[Any], list[str]]:
    """The attributes that an object of each class has, sorted: its slots, or what its `__init__` makes."""
    declared = {cls: [name for base in cls.__mro__ for name in getattr(base, "__slots__", ())] for cls in _CLASSES}
    limits = Limits()
    state, streams = exchange.Exchange(limits, {}), session.Session(limits)
    heart, life = state.engine, groups.Incarnation(state.engine._groups, "", 1, 1)
    of_life = (life, life.history, life.mailboxes, life.rounds)
    for sample in (state, streams, heart, heart._replies, heart._groups, heart._membership, *of_life):
        declared[type(sample)] = _attributes(sample)
    return {cls: sorted(set(names) - _NOT_STATE.get(cls, frozenset())) for cls, names in declared.items()}


def _attributes(value: object) -> list[str]:
    """Names of an object's attributes that are state, in a fixed order."""
    names = list(getattr(value, "__dict__", ()))
    for cls in reversed(type(value).__mro__):
        names += [name for name in getattr(cls, "__slots__", ()) if hasattr(value, name)]
    left_out = _NOT_STATE.get(type(value), frozenset())
    return [name for name in names if name not in left_out]


class _Writer:
    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.pieces: list[Buffer] = []
        self._bytes = 0
        self._numbers: dict[int, int] = {}
        self._objects: list[Any] = []  # by number; held, so that no id is used again

    def value(self, value: Any) -> Any:
        """A value as it stands in a node."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind in (bytes, bytearray, memoryview):
            place = [_BYTES, self._bytes, len(value)]
            self.pieces.append(value)
            self._bytes += len(value)
            return place
        if kind is Limits:
            return [_LIMITS]
        # A tuple is what is in it; whether two places have the same one says nothing, and is not the same in a replay.
        number = None if isinstance(value, tuple) else self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        return [_NODE, number]

    def met_blobs(self) -> list[blobs.Blob]:
        """The references to payloads elsewhere that are in the graph."""
        return [one for one in self._objects if type(one) is blobs.Blob]

    def write_nodes(self) -> None:
        """Write every object that was met, and those met by that."""
        while len(self.nodes) < len(self._objects):
            self.nodes.append(self._node(self._objects[len(self.nodes)]))

    def _node(self, value: Any) -> Any:
        kind = type(value)
        if kind in (list, tuple, deque):
            return [_SEQUENCES[kind], [self.value(item) for item in value]]
        if kind is dict:
            return [_DICT, [part for item in value.items() for part in map(self.value, item)]]
        if kind is set:
            return [_SET, [self.value(item) for item in sorted(value)]]
        if isinstance(value, AiopgError):
            return [_ERROR, [kind.__name__, value.outcome.value, self.value(messages.told_fields(value))]]
        if kind in _TUPLES:
            return [_FIRST_TUPLE + _TUPLES.index(kind), [self.value(item) for item in value]]
        names = _attributes(value)
        return [
            _OBJECT + _CLASSES.index(kind),
            [part for name in names for part in (name, self.value(getattr(value, name)))],
        ]


class _Reader:
    def __init__(self, nodes: list[Any], payloads: memoryview, limits: Limits, about: Mapping[str, object]) -> None:
        self._nodes = nodes
        self._payloads = payloads
        self._limits = limits
        self._about = about
        self._made: dict[int, Any] = {}
        self._unfilled: list[tuple[Any, int, list[Any]]] = []
        self._engines: list[engine.Engine] = []  # one, unless somebody wrote a snapshot by hand

    def read(self, root: Any) -> Any:
        """The object at the root, with all that belongs to it."""
        made = self.value(root)
        while self._unfilled:
            self._fill(*self._unfilled.pop())
        for one in self._engines:
            one.observe(Recorder())  # nobody hears yet what happens
        return made

    def value(self, value: Any) -> Any:
        if type(value) is not list:
            return value
        if value[0] == _LIMITS:
            return self._limits
        if value[0] == _BYTES:
            _, start, size = value
            if not 0 <= start <= start + size <= len(self._payloads):
                raise ValueError("bytes that are not there")
            return bytes(self._payloads[start : start + size])
        return self._node(value[1])

    def _node(self, number: int) -> Any:
        if number in self._made:
            return self._made[number]
        kind, content = self._nodes[number]
        if kind == _TUPLE or kind >= _FIRST_TUPLE:
            # It cannot be made before what is in it, and never contains itself but through an object that can.
            items = [self.value(item) for item in content]
            made: Any = tuple(items) if kind == _TUPLE else _TUPLES[kind - _FIRST_TUPLE](*items)
        elif kind == _ERROR:
            name, outcome, fields = content
            made = _ERRORS[name](**self._plain(fields))
            made.outcome = Outcome(outcome)
        else:
            makers: tuple[Any, ...] = (list, None, deque, dict, set)
            made = makers[kind]() if kind < len(makers) else object.__new__(_CLASSES[kind - _OBJECT])
            self._unfilled.append((made, kind, content))
        self._made[number] = made
        return made

    def _plain(self, place: Any) -> dict[str, Any]:
        """A dict of plain values that is needed whole at once: the fields of an error."""

        def whole(value: Any) -> Any:
            if type(value) is not list:
                return value
            kind, content = self._nodes[value[1]]
            items = [whole(item) for item in content]
            if kind == _DICT:
                return dict(zip(items[::2], items[1::2], strict=True))
            return items

        fields: dict[str, Any] = whole(place)
        return fields

    def _fill(self, made: Any, kind: int, content: list[Any]) -> None:
        if kind >= _OBJECT:
            if sorted(content[::2]) != _declared()[type(made)]:
                raise ValueError(f"{type(made).__name__} with other attributes than it has: {content[::2]!r:.500}")
            for name, value in zip(content[::2], content[1::2], strict=True):
                setattr(made, name, self.value(value))
            if isinstance(made, engine.Engine):
                made.complete(self._about)
                self._engines.append(made)
            elif isinstance(made, exchange.Line):
                made.carrier = None
            elif isinstance(made, session.Session):
                made.obey(self._limits)
                made.told = 0
            elif isinstance(made, replies.Replies):
                made.obey(self._limits.waiting_calls)
            elif isinstance(made, groups.Seat):
                made.joined = made.heard = math.nan
            elif isinstance(made, round.Arrival):
                made.at = math.nan
            elif isinstance(made, round.Round):
                made.about = NOTHING
        elif kind == _DICT:
            made.update(zip(map(self.value, content[::2]), map(self.value, content[1::2]), strict=True))
        elif kind == _SET:
            made.update(map(self.value, content))
        else:
            made.extend(map(self.value, content))
