"""Records and snapshots: an exchange that is replayed, or loaded, is the exchange that it was."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from aiopg._core.exchange import Exchange, Line
from aiopg._core.frames import Body, FrameReceiver
from aiopg._core.limits import Limits
from aiopg._core.messages import (
    COLLECTIVES,
    Abort,
    Arrive,
    Cancel,
    Command,
    Expire,
    Inquire,
    Join,
    Leave,
    Needs,
    Put,
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
    encode_open,
    encode_timer,
    replay,
)
from aiopg._core.stategraph import VERSION, dump, load
from aiopg._core.wire import decode_message, encode_message
from aiopg.errors import ProtocolError

LIMITS = Limits(mailbox_messages=6, waiting_calls=8, open_rounds=4)
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
        if draw < 0.02:
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
            lambda: Join(call, seat, f"g{seat}", rank, 3, chance.choice((0.3, 50.0)), "me", chance.random() < 0.1),
            lambda: Join(call, seat, f"g{seat}", rank, 3, 50.0, "me"),
            lambda: Put(call, seat, peer, tag, body),
            lambda: Put(call, seat, peer, tag, body),
            lambda: Take(call, seat, peer, tag),
            lambda: TakeBack(call, seat, peer, tag, older),
            lambda: Cancel(older),
            lambda: Inquire(call, older),
            lambda: Watch(call, seat, chance.randrange(4)),
            lambda: Expire(call, seat),
            lambda: Status(call),
            *[lambda: self._arrive(line, call, seat, tag)] * 6,
        ]
        if chance.random() < 0.03:
            makes = [lambda: Leave(call, seat), lambda: Vacate(call, seat), lambda: Abort(call, seat, "enough")]
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


def whole(exchange: Exchange, now: float) -> bytes:
    """All of an exchange's state in one piece."""
    exchange.overfull.clear()  # whoever gives the inputs looks at it after each
    return b"".join(dump(exchange, now))


@pytest.mark.parametrize("turn", range(30))
def test_what_is_replayed_or_loaded_goes_on_as_the_live_one(turn: int) -> None:
    """From the beginning or from a snapshot at any point: the same outboxes, to the byte, and the same state."""
    seed = time.time_ns() % 2**32 + turn
    print(f"seed {seed}")
    live = Life(seed)
    snapshot_at = live.chance.randrange(350)
    for _ in range(snapshot_at):
        live.step()
    loaded, now = load(whole(live.exchange, live.now), LIMITS, ABOUT)
    assert now == live.now
    assert whole(loaded, now) == whole(live.exchange, live.now)
    seen = len(live.records)
    for _ in range(250):
        live.step()
    for record in live.records[seen:]:
        replay(loaded, record)
    again = Exchange(LIMITS, ABOUT)
    for record in live.records:
        replay(again, record)
    assert loaded.engine.describe() == live.exchange.engine.describe()
    assert loaded.engine.next_deadline() == live.exchange.engine.next_deadline()
    state = whole(live.exchange, live.now)
    assert whole(loaded, live.now) == state
    assert whole(again, live.now) == state
    for line in live.exchange.lines.values():
        other = loaded.lines[line.id].streams
        assert other.resend(other.acknowledged) == line.streams.resend(line.streams.acknowledged)


def test_the_random_life_is_rich() -> None:
    """What is to be kept was there: waiting calls, messages, open rounds, receipts, errors, and those who watch."""
    life = Life(7)
    most: dict[str, int] = {}
    for _ in range(3000):
        life.step()
        described: Any = life.exchange.engine.describe()
        engine: Any = life.exchange.engine
        counts = {
            "rounds": described["rounds"],
            "bytes": described["bytes"],
            "messages": sum(group["messages"] for group in described["groups"]),
            "waiting": len(engine._replies),
            "receipts": sum(len(line.receipts) for line in life.exchange.lines.values()),
            "watching": sum(len(incarnation.history.watching) for incarnation in engine._groups),
            "gone": sum(len(group["gone"]) for group in described["groups"]),
            "queued": len(engine._queue),
            "fenced": len(engine._fenced),
            "aborted": sum(group["state"] == "aborted" for group in described["groups"]),
            "retained": max(line.streams.sent - line.streams.acknowledged for line in life.exchange.lines.values()),
        }
        most = {name: max(most.get(name, 0), count) for name, count in counts.items()}
    assert all(most.values()), most


def test_damage_is_told() -> None:
    """Neither a damaged snapshot nor a senseless record raises anything but the documented error."""
    life = Life(3)
    for _ in range(200):
        life.step()
    good = whole(life.exchange, life.now)
    chance = random.Random(5)
    for _ in range(300):
        damaged = bytearray(good[: chance.randrange(len(good))] if chance.random() < 0.3 else good)
        for _ in range(chance.randrange(1, 4)):
            if damaged:
                damaged[chance.randrange(min(len(damaged), 4000))] = chance.randrange(256)
        try:
            load(bytes(damaged), LIMITS, ABOUT)
        except ProtocolError:
            pass
    for record in (b"", b"\0\0\0\1\x90", b"\0\0\0\2\x91\x09", b"".join(encode_away(b"nobody")), b"\xff" * 20):
        with pytest.raises(ProtocolError, match="cannot be replayed"):
            replay(life.exchange, record)
    other = good.replace(bytes([0x94, VERSION]), bytes([0x94, VERSION + 1]), 1)
    with pytest.raises(ProtocolError, match="version"):
        load(other, LIMITS, ABOUT)


def test_the_limits_are_those_of_the_life_that_loads() -> None:
    """A store that is started again with higher limits has them."""
    life = Life(11)
    for _ in range(50):
        life.step()
    higher = Limits(mailbox_messages=7, waiting_calls=70, outbox_frames=8000, retained_bytes=7)
    loaded: Any = load(whole(life.exchange, life.now), higher, ABOUT)[0]
    assert loaded.engine._replies._waiting_calls == 70
    assert {line.streams._frames_limit for line in loaded.lines.values()} == {8000}
    assert loaded.engine._groups.limits is higher
