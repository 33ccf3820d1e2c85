"""A random life of an exchange, recorded as a server records it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from aiopg._core.exchange import Exchange, Line
from aiopg._core.frames import Body, FrameReceiver
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
    Arrive,
    Cancel,
    Command,
    Enlist,
    Expire,
    Inquire,
    Join,
    Leave,
    Needs,
    Put,
    Reform,
    Status,
    Take,
    TakeBack,
    Vacate,
    Watch,
)
from aiopg._core.parts import join_parts
from aiopg._core.records import (
    encode_away,
    encode_back,
    encode_command,
    encode_confirm,
    encode_end,
    encode_held,
    encode_open,
    encode_timer,
)
from aiopg._core.wire import decode_message, encode_message

LIMITS = Limits(mailbox_messages=6, waiting_calls=8, open_rounds=4, keys=3, queue_items=3, kept_changes=4)
ABOUT = {"pid": 1}
TAGS: list[int | str] = [0, "t"]


class Life:
    """One exchange under random inputs, each of which is recorded and then given, as a server does it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.exchange = Exchange(LIMITS, ABOUT)
        self.records: list[bytes] = []
        self.now = 100.0
        self._last = 0
        self._gone = 0
        self._numbers: dict[tuple[bytes, int, object], int] = {}

    def step(self) -> None:
        """One more input."""
        chance = self.chance
        self.now += chance.choice((0.0, 0.01, 0.5))
        lines = list(self.exchange.lines.values())
        if len(lines) < 3:
            self._gone += 1
            id = bytes([self._gone]) * 16
            self._record(encode_open(id, b"s" * 32, 5.0, [4711, 1, 2, "boot"], ("*",)))
            self.exchange.open(id, b"s" * 32, 5.0, [4711, 1, 2, "boot"])
            return
        line = chance.choice(lines)
        draw = chance.random()
        if draw < 0.01:
            for other in lines:
                streams = other.streams
                streams.note_acknowledgement(chance.randrange(streams.acknowledged, streams.sent + 1))
            self._record(encode_held(self.exchange))
        elif draw < 0.02:
            self._record(encode_away(line.id))
            self.exchange.away(line)
        elif draw < 0.04:
            line.attempt += 1
            self._record(encode_back(line.id, line.attempt))
            self.exchange.back(line)
        elif draw < 0.045:
            self._record(encode_end(line.id, "its process ended"))
            self.exchange.end(line, "its process ended")
        elif draw < 0.07:
            self._record(encode_timer(self.now))
            self.exchange.handle_timer(self.now)
        elif draw < 0.12:
            if count := self.exchange.receipts_held(line):
                self._record(encode_confirm(line.id, count))
                self.exchange.confirm(line, count)
        else:
            self._command(line, self._draw(line))

    def _record(self, record: Body) -> None:
        self.records.append(b"".join(record))

    def _command(self, line: Line, command: Command) -> None:
        streams = line.streams
        ack = self.chance.randrange(streams.acknowledged, streams.sent + 1)
        frame = FrameReceiver(LIMITS).receive_data(b"".join(encode_message(1, ack, command, 4096)))[0]
        _, _, kind, fields, body = frame
        streams.receive(streams.received + 1, ack)
        self._record(encode_command(line.id, ack, kind, fields, body, self.now))
        self.exchange.command(line, decode_message(frame), self.now)

    def _draw(self, line: Line) -> Command:
        chance = self.chance
        self._last += 1
        call, seat, tag, peer = self._last, chance.randrange(2), chance.choice(TAGS), chance.randrange(3)
        body = (chance.randbytes(chance.choice((0, 3, 40_000))),)
        older = chance.randrange(max(1, call - 12), call + 1)
        rank = list(self.exchange.lines).index(line.id)
        makes: list[Callable[[], Command]] = [
            lambda: Join(call, seat, f"g{seat}", rank, 3, chance.choice((0.3, 50.0)), "me", chance.random() < 0.3),
            lambda: Join(call, seat, f"g{seat}", rank, 3, 50.0, "me"),
            lambda: Put(call, seat, peer, tag, body),
            lambda: Put(call, seat, peer, tag, body),
            lambda: Take(call, seat, peer, tag),
            lambda: TakeBack(call, seat, peer, tag, older),
            lambda: Cancel(older),
            lambda: Inquire(call, older),
            lambda: Watch(call, seat, chance.randrange(4)),
            lambda: Expire(call, seat),
            lambda: Enlist(call, 5 + chance.randrange(2), "g9", 2, 3, 0.7, 50.0, "me", (b"said",)),
            lambda: Reform(call, chance.choice((seat, 5, 6)), 5 + chance.randrange(3), 50.0, "me"),
            lambda: Status(call),
            *[lambda: self._draw_keys(call, chance.choice((seat, seat, STORE)))] * 6,
            *[lambda: self._arrive(line, call, seat, tag)] * 6,
        ]
        if chance.random() < 0.03:
            makes = [lambda: Leave(call, seat), lambda: Vacate(call, seat), lambda: Abort(call, seat, "enough")]
        return chance.choice(makes)()

    def _draw_keys(self, call: int, seat: int) -> Command:
        chance = self.chance
        key, value = chance.choice(("a", "b", "n")), chance.choice((b"1", b"x" * 40_000, b""))
        names = join_parts([b"a", key.encode()])
        makes: list[Callable[[], Command]] = [
            lambda: SetKeys(
                call, seat, 1, chance.choice((0.3, math.inf)), chance.random() < 0.5, join_parts([key.encode(), value])
            ),
            lambda: chance.choice((GetKeys, WaitKeys, CheckKeys, DeleteKeys))(call, seat, 2, names),
            lambda: AddKey(call, seat, 5, "n"),
            lambda: AppendKey(call, seat, key, (value,)),
            lambda: CompareSet(call, seat, chance.random() < 0.5, key, join_parts([b"1", value])),
            lambda: chance.choice((ListKeys, CountKeys))(call, seat, chance.choice(("", "a"))),
            lambda: chance.choice((Push, Push, AppendKey))(call, seat, key, (value,)),
            lambda: Pop(call, seat, chance.random() < 0.7, key),
            lambda: PutBack(call, seat, chance.randrange(5), key, (value,)),
            lambda: QueueLength(call, seat, key),
            lambda: Meet(call, seat, chance.choice((2, 2, 3)), key),
            lambda: Lock(call, seat, key),
            lambda: Unlock(call, seat, chance.randrange(1, 6), key),
            lambda: Follow(call, seat, chance.choice((-1, 0, 3)), chance.choice(("", "a"))),
        ]
        return chance.choice(makes)()

    def _arrive(self, line: Line, call: int, seat: int, tag: Any) -> Arrive:
        number = self._numbers[line.id, seat, tag] = self._numbers.get((line.id, seat, tag), 0) + 1
        op = COLLECTIVES[number % 3] if self.chance.random() < 0.95 else "gather"
        rank = list(self.exchange.lines).index(line.id)
        if op == "broadcast":
            gives = rank == 0
            return Arrive(call, seat, tag, number, op, 0, "", Needs.NOTHING if gives else Needs.ROOT, gives, (b"b",))
        needs = Needs.ALL_TOLD if rank == 0 and op == "barrier" else Needs.ALL
        body = join_parts([b"x"] * 3) if self.chance.random() < 0.1 else (b"part",)
        pieces = 0 if op == "barrier" else 3 if len(body) > 1 else 1
        return Arrive(call, seat, tag, number, op, -1, "", needs, pieces, body if pieces else ())
