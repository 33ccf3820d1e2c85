"""A room of the port beside the engine: leases and time included.

Every call of the port is one input more of the engine, with what the port's own clock makes of it: whose lease is over,
who is away, who is back. What each session hears of the two must be the same.
"""

from __future__ import annotations

from typing import Any

import msgpack

from aiopg._core.engine import Engine, Events
from aiopg._core.key_messages import Lock
from aiopg._core.limits import Limits
from aiopg._core.messages import Answer, Cancel, Command, Event, Failed, Status, Withdrawn
from aiopg.stores.redis._wording import pack_head

from .driver import Lua, worded

__all__ = ["GRACE", "Mirror"]

GRACE = 8.0
"""Seconds; a power of two, as all times here, so that both count alike to the last bit."""

RENEWALS = 16
"""A lease is written anew when so small a part of it is over."""

START = 1_800_000_000.0


class _Session:
    """A session, as the port has it and as its owner has it."""

    def __init__(self, clock: float) -> None:
        self.seen = clock
        self.sent = 0
        self.received = 0
        self.mark = 0
        self.said = (0, 0)
        """What it acknowledged the last time: the number of an event, and its mark."""
        self.told: dict[int, list[Any]] = {}
        self.heard: dict[int, tuple[int, int, bytes]] = {}
        """By call, what the port told."""
        self.expected: dict[int, Event] = {}
        """By call, what the engine told."""
        self.receipts: dict[int, int] = {}
        """Calls whose answers ask for one, by the number of the event."""


class Mirror:
    """The engine, and a room of the port."""

    def __init__(self, lua: Lua, limits: Limits) -> None:
        self.engine = Engine(limits, {})
        self.lua = lua
        self.now = START
        self.clock = 0.0
        self._called_at = START
        self.sessions: dict[str, _Session] = {}
        self.asked: dict[tuple[str, int], Command] = {}
        lua.set_clock(self.now)
        # A room that is there already, whose incarnations are numbered as the engine's are.
        lua.client.hset(f"{lua.prefix}:room", mapping={"now": self.now, "clock": 0, "number": 0, "fresh": self.now})
        lua.client.expire(f"{lua.prefix}:room", 86400)

    def pass_time(self, seconds: float) -> None:
        """Let time go by; what is due by then comes with the next call."""
        self.now += seconds
        self.lua.set_clock(self.now)

    def say(self, sid: str, *commands: Command, acknowledges: bool = True) -> None:
        """A batch of a session, which begins with it if it is new. A session that was lost is told so."""
        session = self.sessions.get(sid)
        is_new = session is None
        self._enter(GRACE / 2)
        if not is_new and sid not in self.sessions:
            assert session is not None
            assert self._call(sid, session, (), False)[0] == b"lost"
            return
        if session is None:
            session = self.sessions[sid] = _Session(self.clock)
        elif self._is_away(session):
            self._expect(self.engine.back(sid))
        if is_new or self.clock - session.seen >= GRACE / RENEWALS:
            session.seen = self.clock
        self._note_away()
        if not acknowledges:
            self._rewind(session)
        for number in [number for number in session.receipts if number <= session.received]:
            self._expect(self.engine.confirm(sid, session.receipts.pop(number)))
        for command in commands:
            if not isinstance(command, Cancel):  # it has no event of its own
                self.asked[sid, command.call] = command
            self._expect(self.engine.apply(sid, command, self.now))
        state, applied, _last, _due, *events = self._call(sid, session, commands, is_new)
        assert (state, applied) == (b"ok", session.sent)
        self._hear(session, events)

    def end(self, sid: str, reason: str) -> None:
        """A session ends by itself."""
        self._enter(1.0)
        if self.sessions.pop(sid, None) is not None:
            self._expect(self.engine.end_session(sid, reason))
        assert self.lua.call("end", sid, reason) == [b"ok"]

    def describe(self) -> None:
        """Compare what both say of themselves."""
        self._enter(1.0)
        self._note_away()
        expected = self.engine.describe()
        assert _plain(msgpack.unpackb(self.lua.call("describe"), strict_map_key=False)) == _plain(expected)

    def names(self) -> set[str]:
        """What the room is kept in: the first word behind the prefix of each key. None is kept for ever."""
        names = set()
        for key in self.lua.client.scan_iter(f"{self.lua.prefix}:*", count=1000):
            name = key.decode().removeprefix(self.lua.prefix)
            if name != ":clock":
                assert self.lua.client.ttl(key) > 0, name
                names.add(name.split(":")[1])
        return names

    def compare(self, *silent: str) -> None:
        """All sessions but the silent ones hear what is there for them, and it must be the same as from the engine."""
        for _ in range(4):  # what one of them sets off by being heard of may be for one that was asked before
            for sid in [sid for sid in self.sessions if sid not in silent]:
                self.say(sid)
            heard = [one for sid, one in self.sessions.items() if sid not in silent]
            if all(one.heard.keys() == one.expected.keys() for one in heard):
                break
        for sid, session in self.sessions.items():
            if sid in silent:
                continue
            assert session.heard.keys() == session.expected.keys(), (sid, session.heard, session.expected)
            for call, (kind, receipt, body) in session.heard.items():
                self._check(sid, session.expected[call], kind, receipt, body)
            session.heard.clear()
            session.expected.clear()

    # --------------------------------------------------------------------------------------------------- inside

    def _enter(self, most: float) -> None:
        """What a call in the room sets off, whoever makes it."""
        self.clock += min(self.now - self._called_at, most)
        self._called_at = self.now
        for sid, session in sorted(self.sessions.items(), key=lambda item: (item[1].seen, item[0])):
            if session.seen + GRACE <= self.clock:
                del self.sessions[sid]
                unheard = self.clock - session.seen
                self._expect(self.engine.end_session(sid, f"nothing was heard of it for {unheard:.3g} s"))
        self._expect(self.engine.handle_timer(self.now))

    def _note_away(self) -> None:
        for sid, session in self.sessions.items():
            if self._is_away(session):
                self.engine.away(sid)

    def _is_away(self, session: _Session) -> bool:
        return self.clock - session.seen > GRACE / 2

    def _expect(self, events: Events) -> None:
        for sid, event in events:
            session = self.sessions.get(str(sid))
            if session is not None:
                assert event.call not in session.expected, event
                session.expected[event.call] = event

    def _call(self, sid: str, session: _Session, commands: tuple[Command, ...], opening: bool) -> list[Any]:
        header = [session.sent + 1, session.received, int(GRACE * 1000), "a holder", opening, session.mark]
        session.sent += len(commands)
        reply: list[Any] = self.lua.call("run", sid, pack_head(header), *worded(commands))
        return reply

    def _rewind(self, session: _Session) -> None:
        """Have the session say again what it said of its events the last time."""
        session.received, session.mark = session.said

    def _hear(self, session: _Session, events: list[Any]) -> None:
        session.said = (session.received, session.mark)
        assert [event[0] for event in events] == list(range(session.received + 1, session.received + len(events) + 1))
        for event in events:
            number, call, kind, receipt, body, mark = event
            session.received, session.mark = number, mark
            if number in session.told:
                assert session.told[number] == event  # it was not acknowledged, and is told again as it was
                continue
            session.told[number] = event
            session.heard[call] = (kind, receipt, body)
            if receipt:
                session.receipts[number] = call

    def _check(self, sid: str, event: Event, kind: int, receipt: int, body: bytes) -> None:
        command, expected = self.asked[sid, event.call], b"".join(event.body)
        said = (command, event, (kind, receipt, body))
        assert (Answer, Failed, Withdrawn)[kind] is type(event), said
        assert bool(receipt) == (isinstance(event, Answer) and event.receipt), said
        if expected == body or (isinstance(command, Lock) and isinstance(event, Answer)):
            return  # the numbers of locks are the port's own
        ours, its = (msgpack.unpackb(one, strict_map_key=False) for one in (expected, body))
        if isinstance(command, Status):
            ours, its = _plain(ours), _plain(its)
        assert ours == its, said


def _plain(described: dict[str, Any]) -> Any:
    """A description without what only one of the two tells: limits, and for how long things have been as they are."""
    plain = msgpack.unpackb(msgpack.packb(described), strict_map_key=False)  # a list and a tuple are one
    plain.pop("limits", None)
    for group in plain["groups"]:
        group.pop("since", None)
        for round in group["rounds"]:
            round.pop("since", None)
    return plain
