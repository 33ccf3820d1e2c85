"""Key spaces on Redis do what the engine's do: the same commands have the same answers, to every session."""

from __future__ import annotations

import itertools
import math
import os
import random
import struct
from collections import defaultdict
from typing import Any

import pytest

from aiopg._core.frames import Body
from aiopg._core.key_messages import (
    FROM_NOW,
    STORE,
    AddKey,
    AppendKey,
    CheckKeys,
    CompareSet,
    CountKeys,
    DeleteKeys,
    Follow,
    GetKeys,
    KeyCommand,
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
from aiopg._core.messages import Abort, Answer, Cancel, Command, Inquire, Join, Leave, unpack_value
from aiopg._core.parts import join_parts

from .driver import Both, Lua

SMALL: dict[str, int] = {
    "keys": 12,
    "key_bytes": 12,
    "value_bytes": 64,
    "payload_bytes": 100,
    "keys_per_call": 4,
    "queue_items": 4,
    "waiting_calls": 7,
    "kept_changes": 9,
    "kept_changes_bytes": 150,
    "world_size": 4,
}

NAMES = ("a", "b", "ab", "abc", "abd", "é", "éa", "日本", "q", "r")
TOGETHER = (("éa", "日本"), ("b", "abd"))
"""What several calls wait for."""

PREFIXES = ("", "a", "ab", "é", "z")
ODD_NAMES = ("", "x" * 13, "\0", "it's")
VALUES = (
    b"",
    b"0",
    b"7",
    b"-12",
    b"007",
    b"-0",
    b"\x00\xff",
    b"value",
    b"'",
    b"v" * 40,
    b"9223372036854775807",
    b"1.5",
)
ENDS = (str(2**63 - 1), str(-(2**63)), str(2**63 - 2), str(1 - 2**63))
AMOUNTS = (0, 1, -1, 10**10, -(10**10) - 7, 2**53, -(2**53) - 1, 2**62, 2**63 - 1, -(2**63))

LONGER = 20 if os.environ.get("AIOPG_TEST_LONG") else 1


class Chaos:
    """Arbitrary commands on keys by several sessions; most of them make sense."""

    def __init__(self, both: Both, seed: int) -> None:
        self.both = both
        self.chance = random.Random(seed)
        self.seat: dict[str, int] = defaultdict(lambda: STORE)
        self.last_call = 0
        self.last_value = 0
        self.noted: dict[str, int] = defaultdict(int)
        """Events of a session whose numbers are in what follows."""
        self.granted: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self.popped: dict[str, list[tuple[int, str, int, bytes]]] = defaultdict(list)
        self.revisions = [0]

    def step(self) -> None:
        chance, both = self.chance, self.both
        sid = chance.choice(list(both.sessions))
        both.pass_time(chance.choice((0.0, 0.0, 0.25, 1.0)))
        commands = [self.command(sid) for _ in range(chance.choice((1, 1, 1, 2, 4)))]
        both.say(sid, *commands, acknowledged=self.acknowledged(sid))
        for session in both.sessions:
            self.note(session)

    def acknowledged(self, sid: str) -> int:
        """Mostly all that came up to now."""
        behind = self.both.sessions[sid]
        came = len(self.both.heard[sid])
        return self.chance.choice((came, came, came, behind, self.chance.randint(behind, came)))

    def note(self, sid: str) -> None:
        """What a session may say again later: numbers of locks, of items, of revisions."""
        heard = self.both.heard[sid]
        for place in range(self.noted[sid], len(heard)):
            event, command = heard[place], self.both.asked[sid, heard[place].call]
            if not isinstance(event, Answer):
                continue
            if isinstance(command, Lock):
                self.granted[sid].append((command.key, unpack_value(event.body)))
            elif isinstance(command, Pop):
                body = b"".join(event.body)
                (number,) = struct.unpack_from(">q", body)
                self.popped[sid].append((place, command.key, number, body[8:]))
            elif isinstance(command, (SetKeys, Follow)):
                value = unpack_value(event.body)
                self.revisions.append(value if isinstance(value, int) else value[0])
        self.noted[sid] = len(heard)

    def name(self) -> str:
        chance = self.chance
        return chance.choice(NAMES) if chance.random() < 0.97 else chance.choice(ODD_NAMES)

    def value(self) -> bytes:
        chance = self.chance
        if chance.random() < 0.01:
            return b"x" * 65
        self.last_value += 1
        return chance.choice(VALUES) if chance.random() < 0.6 else b"%d" % self.last_value

    def names(self, each: int = 1) -> tuple[int, Body]:
        """So many names, each with a value or without one, as a body."""
        chance = self.chance
        many = chance.choice((1, 1, 2, 3, 4, 5, 0) if chance.random() < 0.1 else (1, 1, 2, 3))
        parts: list[Any] = []
        for _ in range(many):
            parts.append(self.name().encode())
            if each == 2:
                parts.append(self.value())
        return many, join_parts(parts)

    def command(self, sid: str) -> Command:
        chance, seat = self.chance, self.seat[sid]
        self.last_call += 1
        call = self.last_call
        if chance.random() < 0.12:
            about = chance.randint(max(call - 12, 1), call)
            return Cancel(about) if chance.random() < 0.6 else Inquire(call, about)
        make = chance.choice(
            (self.of_values, self.of_values, self.of_queues, self.of_queues, self.of_meetings, self.of_changes)
        )
        return make(sid, call, seat)

    def of_values(self, sid: str, call: int, seat: int) -> KeyCommand:
        chance = self.chance
        kind = chance.choice(
            (SetKeys, SetKeys, GetKeys, WaitKeys, CheckKeys, AddKey, AppendKey, CompareSet, DeleteKeys, ListKeys)
        )
        if kind is SetKeys:
            many, body = self.names(2)
            ttl = chance.choice((math.inf, math.inf, 0.5, 1.0, 3.0, 1e-12, 0.0 if chance.random() < 0.1 else 2.0))
            return SetKeys(call, seat, many, ttl, chance.random() < 0.7, body)
        if kind in (GetKeys, WaitKeys) and chance.random() < 0.4:
            together = chance.choice(TOGETHER)
            return kind(call, seat, len(together), join_parts([name.encode() for name in together]))
        if kind in (GetKeys, WaitKeys, CheckKeys, DeleteKeys):
            return kind(call, seat, *self.names())
        if kind is AddKey:
            return AddKey(call, seat, chance.choice(AMOUNTS), chance.choice(("n", "m", self.name())))
        if kind is AppendKey:
            return AppendKey(call, seat, self.name(), (self.value(),))
        if kind is CompareSet:
            body = join_parts([chance.choice(VALUES), self.value()])
            return CompareSet(call, seat, chance.random() < 0.4, self.name(), body)
        return chance.choice((ListKeys, CountKeys))(call, seat, chance.choice(PREFIXES))

    def of_queues(self, sid: str, call: int, seat: int) -> KeyCommand:
        chance = self.chance
        kind = chance.choice((Push, Push, Pop, Pop, PutBack, QueueLength))
        if kind is PutBack:
            mine = [item for item in self.popped[sid] if item[0] < self.both.sessions[sid]]
            if not mine:
                return PutBack(call, seat, 2**60, self.name(), (b"none",))
            self.popped[sid].remove(item := chance.choice(mine))
            return PutBack(call, seat, item[2], item[1], (item[3],))
        key = chance.choice(("q", "r", self.name()))
        if kind is Push:
            return Push(call, seat, key, (self.value(),))
        if kind is Pop:
            return Pop(call, seat, chance.random() < 0.6, key)
        return QueueLength(call, seat, key)

    def of_meetings(self, sid: str, call: int, seat: int) -> KeyCommand:
        chance = self.chance
        kind = chance.choice((Meet, Lock, Lock, Unlock))
        if kind is Meet:
            return Meet(call, seat, chance.choice((1, 2, 2, 2, 3, 5, 0)), chance.choice(("m", "n")))
        if kind is Lock:
            return Lock(call, seat, chance.choice(("l", "k", self.name())))
        whose = sid if chance.random() < 0.8 else chance.choice(list(self.both.sessions))
        key, number = chance.choice(self.granted[whose][-4:] or [("l", 2**60)])
        return Unlock(call, seat, number, key)

    def of_changes(self, sid: str, call: int, seat: int) -> KeyCommand:
        after = self.chance.choice((FROM_NOW, self.revisions[-1], self.revisions[-1], self.revisions[-1] - 3, 0, 2**60))
        return Follow(call, seat, after, self.chance.choice(PREFIXES))


def sid_of(number: int) -> str:
    return f"{number:032x}"


def spaces(described: dict[str, Any]) -> object:
    """What a store says of its key spaces."""
    return described["keys"], [group["keys"] for group in described["groups"]]


def check_described(both: Both) -> None:
    both.say(next(iter(both.sessions)))  # which ends what is past its time
    assert spaces(both.lua.describe()) == spaces(both.engine.describe())


def check_traces(lua: Lua) -> None:
    """Sessions that are over have left none of what they waited for, held or owned."""
    parts = {name.rpartition(b":")[2] for name in lua.names() if b":k:" in name}
    assert parts <= {b"counts", b"values", b"names", b"marks", b"ends", b"changes", b"queues", b"order", b"items"}
    assert lua.client.hlen(f"{lua.prefix}:k:items") == lua.client.zcard(f"{lua.prefix}:k:order")


with_any_limits = pytest.mark.parametrize("limits", [{}, SMALL], indirect=True, ids=["default limits", "small limits"])


@with_any_limits
def test_random_commands_have_the_same_answers(both: Both) -> None:
    """Whatever sessions say of keys, and whenever they end, each hears on Redis what it hears from the engine."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chaos = Chaos(both, seed)
    for number in range(3):
        both.open(sid_of(number))
    for number in range(3, 9):
        for _ in range(60 * LONGER):
            chaos.step()
        check_described(both)
        both.end(chaos.chance.choice(list(both.sessions)), "it is over")
        both.open(sid_of(number))
    for sid in list(both.sessions):
        both.end(sid, "it is over")
    check_traces(both.lua)


@with_any_limits
def test_random_commands_in_a_group_have_the_same_answers(both: Both) -> None:
    """So it is in the spaces of groups, which end when all members have left or are lost, or one aborts the group."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chaos = Chaos(both, seed)
    for life, end in enumerate(("leave", "abort", "end", "abort"), 1):
        sids = [sid_of(10 * life + rank) for rank in range(3)]
        for rank, sid in enumerate(sids):
            chaos.last_call += 1
            chaos.seat[sid] = life
            both.open(sid)
            both.say(sid, Join(chaos.last_call, life, "group", rank, 3, math.inf, f"rank {rank} of life {life}"))
        for step in range(50 * LONGER):
            chaos.step()
            if step == 35 and end == "end":
                both.end(sids[1], "it is over")
        check_described(both)
        if end == "abort":
            both.say(sids[0], Abort(chaos.last_call + 1, life, "it is enough"))
            chaos.last_call += 1
        for sid in set(sids) & set(both.sessions):
            if end == "leave":
                chaos.last_call += 1
                both.say(sid, Leave(chaos.last_call, life))
            both.end(sid, "it is over")
    assert not [key for key in both.lua.names() if b":k" in key], "of spaces that nobody can reach"


@pytest.mark.parametrize("held", ["0", "-0", "007", "9" * 19, "-" + "9" * 19, "10000000000", "-10000000001", *ENDS])
def test_sums_are_exact(both: Both, held: str) -> None:
    """`add` is exact up to both ends of 64 bits, past 2^53 too, and past the ends it is refused as the engine does."""
    both.open(sid := sid_of(1))
    amounts = (0, 1, -1, 9_999_999_999, -(10**10), 2**53 + 1, -(2**53) - 3, *map(int, ENDS))
    for number, amount in enumerate(amounts):
        both.say(
            sid,
            SetKeys(2 * number, STORE, 1, math.inf, True, join_parts([b"n", held.encode()])),
            AddKey(2 * number + 1, STORE, amount, "n"),
            GetKeys(2 * number + 100, STORE, 1, join_parts([b"n"])),
        )


def test_nothing_stays_for_ever(both: Both) -> None:
    """Every key of a room on the server has a time to live, whatever was done."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chaos = Chaos(both, seed)
    for number in range(3):
        both.open(sid_of(number))
    for _ in range(10):
        for _ in range(10):
            chaos.step()
        assert [key for key in both.lua.names() if both.lua.client.ttl(key) <= 0] == []


def test_a_room_wants_to_be_called_when_a_key_ends(both: Both) -> None:
    """Who follows a key hears of its end as soon as anybody calls after it; a reply says when that is due."""
    both.open(sid := sid_of(1))
    both.say(sid, SetKeys(1, STORE, 1, 2.5, True, join_parts([b"k", b""])), Follow(2, STORE, FROM_NOW, ""))
    assert both.lua.due == 2500
    both.pass_time(2.5)
    both.open(sid_of(2))
    (ended,) = both.heard[sid][-1:]
    assert ended.call == 2
    assert unpack_value(ended.body) == [2, [[2, 2, "k", None]]]


def cost(lua: Lua, sid: str, command: Command, received: int) -> int:
    """How many commands the script gives the server to carry this one out."""
    lua.client.config_resetstat()
    lua.run(sid, [command], received)
    stats: dict[str, Any] = lua.client.info("commandstats")
    own = {"cmdstat_evalsha", "cmdstat_config", "cmdstat_config|resetstat", "cmdstat_info"}
    return sum(stat["calls"] for name, stat in stats.items() if name not in own)


def test_the_cost_of_a_step_does_not_grow_with_those_who_wait(both: Both) -> None:
    """A key that many calls wait for, beside others, costs as much as if one did; so does one more at a meeting."""
    sid, lua, calls = sid_of(1), both.lua, itertools.count(1)
    costs = []
    for events, (first, waiting) in enumerate(((b"a", 1), (b"b", 1), (b"c", 200))):
        names = join_parts([first, b"never"])
        lua.run(sid, [GetKeys(next(calls), STORE, 2, names) for _ in range(waiting)], events)
        key = SetKeys(next(calls), STORE, 1, math.inf, True, join_parts([first, b""]))
        costs.append(cost(lua, sid, key, events))
    assert costs[1] == costs[2]
    costs = [cost(lua, sid, Meet(next(calls), STORE, 200, "m"), 3) for _ in range(100)]
    assert max(costs[1:]) == min(costs[1:])
