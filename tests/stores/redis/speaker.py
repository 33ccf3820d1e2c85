"""Sessions that speak to a room of the port one call at a time, and a room whose clock is set by hand."""

from __future__ import annotations

import itertools
from typing import Any

import msgpack

from aiopg._core.messages import Arrive, Command, Join, Needs, unpack_error
from aiopg.stores.redis._wording import pack_head

from .driver import Lua, worded

__all__ = ["GRACE", "Room", "Speaker", "error_of", "names"]

GRACE = 8.0
START = 1_800_000_000.0

names = itertools.count()


class Speaker:
    """A session of a room, one call at a time; what it does not say otherwise is as it ought to be."""

    def __init__(self, lua: Lua, number: int) -> None:
        self.lua = lua
        self.sid = f"{number:032x}"
        self.sent = 0
        self.received = (0, 0)
        self.opening = True

    def call(self, *commands: Command, **other: Any) -> list[Any]:
        """What the script answers. `first`, `received`, `mark`: said in the place of what is right."""
        header = [
            other.get("first", self.sent + 1),
            other.get("received", self.received[0]),
            other.get("grace", int(GRACE * 1000)),
            "a holder",
            self.opening,
            other.get("mark", self.received[1]),
        ]
        reply: list[Any] = self.lua.call("run", self.sid, pack_head(header), *worded(commands))
        return reply

    def say(self, *commands: Command) -> list[list[Any]]:
        """A good call: the events that it brings."""
        state, applied, last, self.lua.due, *events = self.call(*commands)
        self.sent += len(commands)
        self.opening = False
        assert (state, applied) == (b"ok", self.sent)
        if events:
            self.received = (events[-1][0], events[-1][5])
        assert self.received[0] == last
        return events


class Room:
    """A room, its clock, and sessions in it."""

    def __init__(self, lua: Lua) -> None:
        self.lua = lua
        self.now = START
        self.calls = itertools.count(1)
        lua.set_clock(self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.lua.set_clock(self.now)

    def speaker(self) -> Speaker:
        return Speaker(self.lua, next(names))

    def life(self) -> int:
        """Number of the group's first incarnation."""
        described = msgpack.unpackb(self.lua.call("describe"), strict_map_key=False)
        number: int = described["groups"][0]["incarnation"]
        return number

    def group(self, size: int, ttl: float = 3600.0) -> list[Speaker]:
        """So many sessions, each with a rank of one group, as seat 1; all have heard so."""
        members = [self.speaker() for _ in range(size)]
        for rank, member in enumerate(members):
            member.say(Join(next(self.calls), 1, "g", rank, size, ttl, f"holder {rank}"))
        for member in members:
            member.say()
        return members

    def barrier(self, number: int = 1, needs: int = Needs.ALL) -> Arrive:
        return Arrive(next(self.calls), 1, 0, number, "barrier", -1, "", needs, 0)


def error_of(event: list[Any]) -> Exception:
    assert event[2] == 1
    return unpack_error((event[4],))
