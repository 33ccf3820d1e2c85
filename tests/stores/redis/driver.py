"""The engine and its port to Redis, told the same things: what they answer must be the same.

The port runs as it is, on a real server, but for its clock and its limits: a test sets both.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgpack
import redis

from aiopg._core.engine import Engine, Events
from aiopg._core.key_messages import ListKeys, Lock, Unlock
from aiopg._core.limits import Limits
from aiopg._core.messages import Answer, Cancel, Command, Event, Failed, Join, Withdrawn
from aiopg.stores.redis._script import load_script
from aiopg.stores.redis._wording import pack_head, word

__all__ = ["Both", "Lua", "Told", "make_script", "worded"]

GRACE_MS = 10**9


def make_script(limits: Mapping[str, int]) -> bytes:
    """The port's text as a script, whose clock is a key of the room, and which keeps these limits."""
    text = load_script(functions=False).load[-1].decode()
    text, found = re.subn(r'call\("TIME"\)', 'cmsgpack.unpack(call("GET", prefix .. ":clock"))', text)
    assert found == 1, found
    for name, value in limits.items():
        text, found = re.subn(rf"(?m)^(\s*{name} = )[^,]+,", rf"\g<1>{value},", text)
        assert found == 1, name
    return text.encode()


def worded(commands: Iterable[Command]) -> list[bytes]:
    """The arguments of a batch of commands: the head and the body of each."""
    return [part for head, body, _ in map(word, commands) for part in (head, b"".join(body))]


class Told(NamedTuple):
    """One event as the port told it."""

    number: int
    call: int
    kind: int
    receipt: int
    body: bytes
    mark: int = 0


class Lua:
    """A room of the port."""

    def __init__(self, client: redis.Redis, name: str, script: bytes) -> None:
        self.prefix = f"aiopg:{{{name}}}"
        self.client = client
        self._sha = client.script_load(script)
        self._sent: dict[str, int] = defaultdict(int)
        self.marks: dict[tuple[str, int], int] = {}
        self.due = -1
        """Milliseconds from the last call until the room wants another one."""

    def set_clock(self, now: float) -> None:
        whole, part = divmod(round(now * 1e6), 10**6)
        self.client.set(f"{self.prefix}:clock", msgpack.packb([str(whole), str(part)]))

    def call(self, *arguments: Any) -> Any:
        """One call of the script."""
        return self.client.evalsha(self._sha, 1, self.prefix, *arguments)

    def run(self, sid: str, commands: Iterable[Command], received: int) -> list[Told]:
        """A batch of commands of a session: all its events behind `received`."""
        mark = self.marks.get((sid, received), 0)
        header = [self._sent[sid] + 1, received, GRACE_MS, f"holder of {sid[:4]}", not self._sent[sid], mark]
        arguments = worded(commands)
        self._sent[sid] += len(arguments) // 2
        state, *reply = self.call("run", sid, pack_head(header), *arguments)
        assert state == b"ok", (state, reply)
        applied, last, self.due, *events = reply
        told = [Told(*event) for event in events]
        assert applied == self._sent[sid]
        assert [event.number for event in told] == list(range(received + 1, last + 1))
        self.marks |= {(sid, event.number): event.mark for event in told}
        return told

    def end(self, sid: str, reason: str) -> None:
        assert self.call("end", sid, reason) == [b"ok"]

    def names(self) -> list[bytes]:
        """Names of all that the room has on the server."""
        clock = f"{self.prefix}:clock".encode()
        return [key for key in self.client.keys(f"{self.prefix}*") if key != clock]

    def describe(self) -> Any:
        return msgpack.unpackb(self.call("describe"), strict_map_key=False)


class Both:
    """One room: every input goes to both, and what comes of it is compared, session by session, call by call."""

    def __init__(self, lua: Lua, limits: Limits) -> None:
        self.engine = Engine(limits, {})
        self.lua = lua
        self.now = 1_800_000_000.0
        self.sessions: dict[str, int] = {}
        """Those that live, and up to which event they have acknowledged theirs."""
        self.heard: dict[str, list[Event]] = defaultdict(list)
        """The engine's events, by session, from the first on."""
        self.asked: dict[tuple[str, int], Command] = {}
        self.numbers: dict[type[Command], dict[int, int]] = {Lock: {}, Join: {}}
        """The port's numbers of locks and of lives, by the engine's."""
        self.pass_time(0.0)

    def open(self, sid: str) -> None:
        """A session begins."""
        self.sessions[sid] = 0
        self._compare(self._timer())

    def pass_time(self, seconds: float) -> None:
        """Let time go by. What is past its end by then ends with the next input."""
        self.now += seconds
        self.lua.set_clock(self.now)

    def say(self, sid: str, *commands: Command, acknowledged: int | None = None) -> list[Event]:
        """Commands of a session, in one batch, behind the acknowledgement of its events up to a number.

        Returns the session's events of it.
        """
        known = len(self.heard[sid])
        events = self._timer()
        before = self.sessions[sid]
        after = self.sessions[sid] = before if acknowledged is None else max(before, acknowledged)
        for event in self.heard[sid][before:after]:
            if isinstance(event, Answer) and event.receipt:
                events += self.engine.confirm(sid, event.call)
        for command in commands:
            if not isinstance(command, Cancel):  # it has no event of its own
                self.asked[sid, command.call] = command
            events += self.engine.apply(sid, command, self.now)
        self.lua.run(sid, [self._as_lua(command) for command in commands], after)
        self._compare(events)
        return self.heard[sid][known:]

    def end(self, sid: str, reason: str) -> None:
        """A session is over."""
        events = self._timer()
        del self.sessions[sid]
        events += self.engine.end_session(sid, reason)
        self.lua.end(sid, reason)
        self._compare(events)

    # --------------------------------------------------------------------------------------------------- inside

    def _timer(self) -> Events:
        return self.engine.handle_timer(self.now)

    def _compare(self, events: Events) -> None:
        """What each session has heard since the last input."""
        expected = defaultdict(list)
        for session, event in events:
            expected[str(session)].append(event)
        for sid, acknowledged in self.sessions.items():
            known = len(self.heard[sid])
            told = self.lua.run(sid, [], acknowledged)[known - acknowledged :]
            heard = expected[sid]
            said = f"{heard}\nby the engine, and by the port\n{told}"
            # The order in which several calls of one session end at one moment is nobody's to rely on.
            by_call = {event.call: event for event in told}
            assert sorted(event.call for event in told) == sorted(event.call for event in heard), said
            for event in heard:
                self._check(sid, event, by_call[event.call], said)
            order = {event.call: event for event in heard}
            self.heard[sid] += [order[event.call] for event in told]

    def _check(self, sid: str, event: Event, told: Told, said: str) -> None:
        assert (Answer, Failed, Withdrawn)[told.kind] is type(event), said
        assert bool(told.receipt) == bool(isinstance(event, Answer) and event.receipt), said
        body, command = b"".join(event.body), self.asked[sid, event.call]
        if type(command) in self.numbers and isinstance(event, Answer):
            numbers, its, ours = self.numbers[type(command)], msgpack.unpackb(body), msgpack.unpackb(told.body)
            assert numbers.setdefault(its, ours) == ours, said
            in_order = [numbers[number] for number in sorted(numbers)]
            assert in_order == sorted(set(in_order)), said
        elif body != told.body:
            assert _meant(command, body) == _meant(command, told.body), said

    def _as_lua(self, command: Command) -> Command:
        if isinstance(command, Unlock):
            return command._replace(number=self.numbers[Lock].get(command.number, command.number))
        return command


def _meant(command: Command, body: bytes) -> object:
    """What a body says, where it can be said in several ways."""
    value = msgpack.unpackb(body, strict_map_key=False, unicode_errors="surrogatepass")
    return sorted(value) if isinstance(command, ListKeys) and value[:1] != ["PayloadTooLargeError"] else value
