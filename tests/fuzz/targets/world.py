"""An exchange, the sessions that do to it what an input says, and a group that must not notice.

An input is read in steps of six bytes: what, which session, and four that say the rest. Numbers, tags, bodies and names
come from small tables, so that steps meet one another; a session's calls are numbered as they should be, mostly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from aiopg._core.exchange import Exchange, Line
from aiopg._core.frames import Body, Buffer
from aiopg._core.key_messages import (
    STORE,
    AddKey,
    AppendKey,
    CheckKeys,
    CompareSet,
    CountKeys,
    DeleteKeys,
    Follow,
    GetKeys,
    ListKeys,
    Lock,
    Meet,
    Pop,
    Push,
    PutBack,
    QueueLength,
    SetKeys,
    Unlock,
    WaitKeys,
)
from aiopg._core.limits import Limits
from aiopg._core.messages import (
    COLLECTIVES,
    Abort,
    Acknowledge,
    Answer,
    Arrive,
    Cancel,
    Enlist,
    Expire,
    Goodbye,
    Inquire,
    Join,
    Leave,
    Message,
    Needs,
    Opened,
    Put,
    Reform,
    Status,
    Tag,
    Take,
    TakeBack,
    Trace,
    Vacate,
    Void,
    Watch,
)
from aiopg._core.parts import join_parts
from aiopg._core.recorder import Recorder
from aiopg.errors import ProtocolError

__all__ = ["ABOUT", "LOW", "STEP", "Calm", "Carrier", "World"]

STEP = 6
ABOUT = {"pid": 1}
LOW = Limits(
    waiting_calls=3, groups=4, seats=3, mailbox_messages=2, group_messages=3, open_rounds=2, outbox_frames=5,
    group_bytes=200_000, store_bytes=250_000, world_size=8, tag_bytes=8, name_bytes=8, reason_bytes=16, sessions=6,
    keys=3, key_bytes=8, value_bytes=100_000, keys_per_call=3, queue_items=2, kept_changes=4, kept_changes_bytes=80_000,
)  # fmt: skip
HIGH = Limits()

HOSTILE = 3
"""Sessions at a time."""
CALM = (b"c" * 16, b"d" * 16)
NUMBERS = (0, 1, 2, 3, -1, 2**63 - 1, -(2**63), 2**31)
TAGS: tuple[Tag, ...] = (0, 0, 0, 1, "t", "", "x" * 9, -(2**63))
GROUPS = ("g0", "g0", "g0", "g1", "g1", "calm", "", "x" * 9)
BODIES: tuple[Body, ...] = ((), (b"b",), (b"bo", b"dy"), (b"", b""), (b"l" * 70_000,), (b"L" * 150_000,), (b"",), ())
PROGRAM = ("barrier", "all_gather", "broadcast", "gather", "scatter", "all_to_all")
TTLS = (60.0, 60.0, 60.0, 0.3, 5.0, 1e300, float("inf"), 0.0)
SIZES = (2, 2, 2, 3, 3, 1, 8, 9)
SECONDS = (0.0, 0.0, 0.1, 0.5, 1.0, 5.0, 60.0, 1e9)
KEYS = ("k", "k", "q", "n", "kk", "", "x" * 9, "\u00e9")
MANY = (1, 1, 2, 3, 4, 0, -1, 2**40)
FROM_A_STORE: tuple[Message, ...] = (
    Answer(1, True), Opened(b"", b"", 0, 0, 0, 0.0), Acknowledge(), Goodbye("over"),
)  # fmt: skip
MOST_STEPS = 24
"""Of one input, but for one step that is repeated 10,000 times."""


class Carrier:
    """Takes what a session is told."""

    def __init__(self) -> None:
        self.count = 0
        self.last: Buffer = b""
        self.told: list[bytes] | None = None
        """Everything, where it is to be kept."""

    def write(self, buffers: tuple[Buffer, ...]) -> None:
        """See `exchange.Carrier`."""
        self.count += 1
        self.last = buffers[0]
        if self.told is not None:
            self.told.append(b"".join(buffers))

    def watch_receipts(self) -> None:
        """See `exchange.Carrier`."""


class Calm:
    """Two members of a group of their own, who do the same things in every run."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.carrier = Carrier()
        self.carrier.told = []
        exchange.engine.observe(Recorder(64, 0.0))
        self._lines = [exchange.open(id, b"s" * 32, 5.0, [], ("calm",)) for id in CALM]
        self._turn = 0
        for rank, line in enumerate(self._lines):
            line.carrier = self.carrier
            self._say(line, Join(1, 1, "calm", rank, 2, 1e12, f"calm {rank}"))

    def step(self, now: float) -> None:
        """The next thing that they do."""
        self._turn += 1
        turn, (one, two) = self._turn, self._lines
        for line, message in (
            (one, Put(10 * turn, 1, 1, "calm", (b"body",))),
            (two, Take(10 * turn, 1, 0, "calm")),
            (one, Arrive(10 * turn + 1, 1, 0, turn, "barrier", -1, "", 3, 0)),
            (two, Arrive(10 * turn + 1, 1, 0, turn, "barrier", -1, "", 2, 0)),
        ):
            self._say(line, message, now)
        for line in self._lines:
            streams = line.streams
            streams.receive(streams.received + 1, streams.sent)
            if held := self._exchange.receipts_held(line):
                self._exchange.confirm(line, held)

    def _say(self, line: Line, message: Message, now: float = 0.0) -> None:
        self._exchange.command(line, message, now)

    def describe(self) -> list[object]:
        """How their group looks from outside."""
        described: Any = self._exchange.engine.describe(("calm",))
        for group in described["groups"]:
            del group["since"], group["silent"]  # ages, and the turns come at other times where others are about
        return [described["groups"], described["rounds"], described["bytes"], described["members"]]

    def end(self) -> None:
        """They are gone."""
        for line in self._lines:
            self._exchange.end(line, "over")


_Step: TypeAlias = Callable[["World", Line, int, int, int, int], Message | None]


def _seat(a: int) -> int:
    return 0 if a < 140 else 1 if a < 244 else a & 3


def _rank(b: int) -> int:
    return b & 1 if b < 224 else NUMBERS[b & 7]


def _tag(c: int) -> Tag:
    return 0 if c < 192 else TAGS[c & 7]


def _gives(op: str, is_root: bool, is_last: bool, size: int) -> tuple[int, int]:
    """What a rank needs of a collective, and how many parts it gives."""
    if op in ("gather", "reduce"):
        return Needs.ALL if is_root else Needs.NOTHING, 1
    if op in ("broadcast", "scatter"):
        gives = (1 if op == "broadcast" else size) if is_root else 0
        return Needs.NOTHING if is_root and op == "broadcast" else Needs.ROOT, gives
    if op == "barrier":
        return Needs.ALL_TOLD if is_last else Needs.ALL, 0
    return Needs.ALL, size if op == "all_to_all" else 1


class World:
    """One exchange under one input."""

    def __init__(self, limits: Limits, formed: int) -> None:
        """`formed`: as many groups, up to two, are there already."""
        self.exchange = Exchange(limits, ABOUT)
        self.now = 0.0
        self.calm = Calm(self.exchange)
        self.carrier = Carrier()
        self.commands: dict[bytes, int] = {}
        """Commands of each session that get an event."""
        self.calls: dict[bytes, int] = {}
        self.puts: list[int] = []
        self.arrived: dict[tuple[bytes, int, Tag], int] = {}
        self.lines = [self._open() for _ in range(HOSTILE)]
        for seat, size in ((0, 2), (1, 3))[:formed]:
            for line in self.lines[:size]:
                self.say(line, self._join(line, 180 * seat, 3 * seat, 0, 0))

    def _open(self) -> Line:
        id = bytes((1 + len(self.commands),)) * 16
        line = self.exchange.open(id, b"s" * 32, 5.0, [], ("g*",))
        line.carrier = self.carrier
        self.commands[id] = self.calls[id] = 0
        return line

    def message(self, what: int, who: int, a: int, b: int, c: int, d: int) -> tuple[Line, Message | None]:
        """Who says what in this step; None where something else happens in it, which then has happened."""
        line = self.lines[who % 3]
        return line, _STEPS[self.kind(what)](self, line, a, b, c, d)

    @staticmethod
    def kind(what: int) -> int:
        """Which of the steps this is."""
        return len(_STEPS) - 1 if what >= KEYS_FROM else what % (len(_STEPS) - 1)

    def say(self, line: Line, message: Message) -> bool:
        """One command; False if it is none, which ends the session."""
        try:
            self.exchange.command(line, message, self.now)
        except ProtocolError:
            assert message in FROM_A_STORE
            self._end(line)
            return False
        if type(message) is not Cancel:
            self.commands[line.id] += 1
        return True

    def end_overfull(self) -> None:
        """Sessions that took too little of what they were told are over: to be called after each step."""
        for line in self.exchange.take_overfull():
            self._end(line)

    # ---------------------------------------------------------------------------------------------- commands

    def _call(self, line: Line, d: int) -> int:
        """The next number of this session, seldom another."""
        self.calls[line.id] += 1
        last = self.calls[line.id]
        return last if d < 232 else NUMBERS[d & 7] if d < 240 else max(last - (d & 15), 0)

    def _join(self, line: Line, a: int, b: int, c: int, d: int) -> Message:
        size = SIZES[c >> 5] if c & 16 else 2 + (b & 7 > 2)
        rank = NUMBERS[c & 7] if c & 8 else self.lines.index(line) % size
        ttl = TTLS[a >> 4 & 7]
        return Join(self._call(line, d), _seat(a), GROUPS[b & 7], rank, size, ttl, "me", b > 224)

    def _leave(self, line: Line, a: int, b: int, c: int, d: int) -> Message:
        call, seat = self._call(line, d), _seat(a)
        if b & 24 == 24:
            group, said = GROUPS[c & 7], BODIES[b >> 5]
            if b & 1:
                return Enlist(call, seat, group, 2, SIZES[c >> 5], SECONDS[c >> 3 & 3], TTLS[a & 7], "me", said)
            return Reform(call, seat, NUMBERS[c & 3] + 2, TTLS[a & 7], "me", said)
        return (Leave, Vacate, Vacate, Expire)[b & 3](call, seat)

    def _abort(self, line: Line, a: int, b: int, c: int, d: int) -> Message:
        return Abort(self._call(line, d), _seat(a), ("enough", "", "\u00e9" * 40)[b % 3])

    def _put(self, line: Line, a: int, b: int, c: int, d: int) -> Message:
        call = self._call(line, d)
        self.puts.append(call)
        return Put(call, _seat(a), _rank(b), _tag(c), BODIES[b >> 4 & 7])

    def _take(self, line: Line, a: int, b: int, c: int, d: int) -> Message:
        return Take(self._call(line, d), _seat(a), _rank(b), _tag(c))

    def _take_back(self, line: Line, a: int, b: int, c: int, d: int) -> Message:
        put = NUMBERS[d & 7] if d > 224 or not self.puts else self.puts[-1 - d % min(len(self.puts), 3)]
        return TakeBack(self._call(line, c), _seat(a), _rank(b), _tag(c), put)

    def _arrive(self, line: Line, a: int, b: int, c: int, d: int) -> Message:
        """Mostly what the group's program has next, sometimes anything."""
        seat, tag, rank, size = _seat(a), _tag(c), self.lines.index(line), 2 + (_seat(a) == 1)
        key = (line.id, seat, tag)
        number = self.arrived.get(key, 0) + 1
        if d & 7:
            self.arrived[key] = number
        else:
            number = NUMBERS[d >> 3 & 7]
        root = number % size
        op = PROGRAM[number % len(PROGRAM)] if b < 224 else COLLECTIVES[b & 7] if b < 252 else "odd"
        needs, pieces = _gives(op, rank == root, rank == 0, size)
        if c & 31 == 31:
            needs, root, pieces = NUMBERS[a & 7], NUMBERS[b & 7], NUMBERS[d & 7]
        body: Body = join_parts([b"p" * part for part in range(size)]) if pieces == size else BODIES[b >> 3 & 7]
        detail = "sum" if b > 216 else ""
        return Arrive(self._call(line, d), seat, tag, number, op, root, detail, needs, pieces, body if pieces else ())

    def _cancel(self, line: Line, a: int, b: int, c: int, d: int) -> Message:
        about = NUMBERS[d & 7] if d > 224 else max(self.calls[line.id] - (d & 7), 0)
        return (Cancel(about), Cancel(about), Inquire(self._call(line, c), about), Void(about))[b & 3]

    def _other(self, line: Line, a: int, b: int, c: int, d: int) -> Message:
        if b > 250:
            return FROM_A_STORE[a & 3]
        if b & 3:
            return Watch(self._call(line, d), _seat(a), NUMBERS[c & 7])
        if b & 4:
            return Trace(self._call(line, d), NUMBERS[c & 7], NUMBERS[c >> 3 & 7], GROUPS[a & 7])
        return Status(self._call(line, d))

    def _keys(self, line: Line, a: int, b: int, c: int, d: int) -> Message:
        """One of the commands of key spaces, those of a group's mostly."""
        call, seat, key = self._call(line, d), STORE if a > 250 else _seat(a), KEYS[b & 7]
        body, number, bit = BODIES[c & 7], NUMBERS[c >> 4 & 7], bool(c & 8)
        many = MANY[b >> 3 & 7]
        kind = _KEY_COMMANDS[d % len(_KEY_COMMANDS)]
        if kind is SetKeys:
            items: list[Buffer] = [key.encode(), b"".join(body)] * min(max(many, 1), 4)
            return SetKeys(call, seat, many, TTLS[a & 7], bit, join_parts(items))
        if kind in (GetKeys, WaitKeys, CheckKeys, DeleteKeys):
            names: list[Buffer] = [KEYS[(b + more) & 7].encode() for more in range(min(max(many, 1), 4))]
            return kind(call, seat, many, join_parts(names) if bit else body)  # type: ignore[no-any-return]
        fields: dict[type[Any], tuple[object, ...]] = {
            AddKey: (number, key), AppendKey: (key, body), CompareSet: (bit, key, join_parts([b"b", b"".join(body)])),
            ListKeys: (key,), CountKeys: (key,), Push: (key, body), Pop: (bit, key), PutBack: (number, key, body),
            QueueLength: (key,), Meet: (number, key), Lock: (key,), Unlock: (number, key), Follow: (number, key),
        }  # fmt: skip
        return kind(call, seat, *fields[kind])  # type: ignore[no-any-return]

    # ------------------------------------------------------------------------------------ what else may happen

    def _road(self, line: Line, a: int, b: int, c: int, d: int) -> None:
        """Its connection is gone, or there again, in any order."""
        if a & 1:
            self.exchange.away(line)
            line.carrier = None
        else:
            line.carrier = self.carrier
            self.exchange.back(line)

    def _frame(self, line: Line, a: int, b: int, c: int, d: int) -> None:
        """A frame that says nothing, with any numbers; then the receipts of what it acknowledged."""
        streams = line.streams
        before = streams.sent, streams.received, streams.acknowledged
        seq = NUMBERS[a & 7] if a & 8 else streams.received + (a & 3)
        ack = NUMBERS[b & 7] if b & 8 else max(streams.sent - (b & 3), 0)
        try:
            streams.receive(seq, ack)
        except ProtocolError:
            assert seq > before[1] + 1 or ack > before[0]
        held = self.exchange.receipts_held(line)
        self.exchange.confirm(line, held if c & 1 else min(held, 1))

    def _time(self, line: Line, a: int, b: int, c: int, d: int) -> None:
        self.now += SECONDS[a & 7]
        if b & 1:
            self.exchange.handle_timer(self.now)

    def _over(self, line: Line, a: int, b: int, c: int, d: int) -> None:
        if a & 1 or not b:
            self._end(line)

    def _end(self, line: Line) -> None:
        """A session is over, twice, and its member opens another. Of no effect if it is over already."""
        self.exchange.end(line, "over")
        self.exchange.end(line, "over")
        if line in self.lines:
            self.lines[self.lines.index(line)] = self._open()


_STEPS: tuple[_Step, ...] = (
    *(World._join, World._join, World._leave, World._abort, World._put, World._put, World._put, World._take),
    *(World._take, World._take_back, World._arrive, World._arrive, World._arrive, World._arrive, World._arrive),
    *(World._cancel, World._cancel, World._other, World._road, World._frame, World._frame, World._time, World._over),
    World._keys,
)
KEYS_FROM = 9 * 23
"""Of the first byte of a step: from here on it is about keys."""

_KEY_COMMANDS: tuple[type[Any], ...] = (
    *(SetKeys, SetKeys, GetKeys, WaitKeys, CheckKeys, DeleteKeys, AddKey, AppendKey, CompareSet, ListKeys, CountKeys),
    *(Push, Push, Pop, Pop, PutBack, QueueLength, Meet, Meet, Lock, Lock, Unlock, Follow, Follow),
)
