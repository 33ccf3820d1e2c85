"""The engine in Lua does what the engine does: the same random commands have the same events, for every session."""

from __future__ import annotations

import itertools
import math
import os
import random
import re
from collections import Counter
from collections.abc import Iterator

import pytest
import redis

from aiopg._core.key_messages import STORE, AddKey, GetKeys, Lock, SetKeys
from aiopg._core.limits import Limits
from aiopg._core.messages import (
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
    Tag,
    Take,
    TakeBack,
    Vacate,
    Void,
    Watch,
)
from aiopg._core.parts import join_parts

from .conftest import OWN
from .driver import Lua, make_script
from .mirror import Mirror
from .servers import Server

SMALL = {
    "payload_bytes": 60,
    "group_bytes": 90,
    "group_messages": 5,
    "mailbox_messages": 3,
    "open_rounds": 3,
    "waiting_calls": 6,
    "name_bytes": 8,
    "tag_bytes": 8,
    "metadata_bytes": 6,
    "reason_bytes": 12,
    "world_size": 4,
    "groups": 3,
    "seats": 4,
}
"""Limits that random commands reach."""

TAGS: tuple[Tag, ...] = (0, 0, 0, 1, "t", "it's", -(2**60), 2**63 - 1, "x" * 9)
PROGRAM = ("barrier", "all_gather", "broadcast", "gather", "barrier", "scatter", "all_to_all", "last")
TTLS = (60.0, 60.0, 4.0, 1.0, math.inf)

STEPS = 6000 if os.environ.get("AIOPG_TEST_LONG") == "1" else 300

_rooms = itertools.count()


@pytest.fixture(params=[{}, SMALL], ids=["default limits", "small limits"])
def mirror(server: Server, request: pytest.FixtureRequest) -> Iterator[Mirror]:
    """The engine, and a room of the port that looks at each call for what has expired."""
    script, found = re.subn(rb"return now \+ math\.max\(", b"return now or math.max(", make_script(request.param))
    assert found == 1
    with redis.Redis(unix_socket_path=str(server.place / "socket")) as client:
        limits = Limits(**(OWN | {"group_bytes": 2**30} | request.param))
        yield Mirror(Lua(client, f"mirror-{next(_rooms)}", script), limits)


class Chaos:
    """Arbitrary commands of several sessions, most of them sensible."""

    def __init__(self, mirror: Mirror, seed: int) -> None:
        self.mirror = mirror
        self.chance = random.Random(seed)
        self.last_sid = 0
        self.last_call = 0
        self.last_seat: Counter[str] = Counter()
        self.next_number: Counter[Tag] = Counter()
        self.puts: list[tuple[str, int, Put]] = []
        self.silent: str | None = None
        self.kinds: Counter[str] = Counter()
        for _ in range(4):
            self.begin()

    def begin(self) -> None:
        """One session more."""
        self.last_sid += 1
        self.mirror.say(f"{self.last_sid:032x}")

    def step(self) -> None:
        """Some time goes by, and somebody says something."""
        chance, mirror = self.chance, self.mirror
        mirror.pass_time(chance.choice((0.0, 0.0, 0.0, 0.25, 0.5, 1.0)))
        if self.silent is None and chance.random() < 0.04:
            self.silent = chance.choice(list(mirror.sessions))
        elif chance.random() < 0.06:
            self.silent = None
        speaking = [sid for sid in mirror.sessions if sid != self.silent]
        sid = chance.choice(speaking)
        if chance.random() < 0.01:
            mirror.end(sid, "it is over")
        else:
            commands = [self.command(sid) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
            mirror.say(sid, *commands, acknowledges=chance.random() < 0.9)
        mirror.compare(*([self.silent] if self.silent else []))
        if chance.random() < 0.1:
            mirror.describe()
        if self.silent not in mirror.sessions:
            self.silent = None
        while len(mirror.sessions) < 4:
            self.begin()

    def command(self, sid: str) -> Command:
        chance = self.chance
        self.last_call += 1
        call = self.last_call
        is_seated = sid in self.mirror.engine._membership.seats
        if chance.random() < (0.06 if is_seated else 0.7):
            return self.of_joining(sid, call)
        often = (self.of_messages, self.of_messages, self.of_rounds, self.of_rounds, self.of_rounds, self.of_rounds)
        made = chance.choice((*often, self.of_calls, self.of_seats))(sid, call)
        self.kinds[type(made).__name__] += 1
        return made

    def _next_seat(self, sid: str) -> int:
        self.last_seat[sid] += 1
        return self.last_seat[sid]

    def of_joining(self, sid: str, call: int) -> Command:
        chance = self.chance
        seat = self._next_seat(sid) if chance.random() < 0.97 else 1
        ttl = chance.choice(TTLS) if chance.random() < 0.98 else chance.choice((0.0, -1.5, math.nan))
        holder = f"h{call}" if chance.random() < 0.98 else "a name that is long"
        name = "g" if chance.random() < 0.98 else chance.choice(("", "x" * 129, "g"))
        rank, world = self.free_rank()
        if rank < 0 or chance.random() < 0.1:
            least, most = chance.choice(((2, 3), (2, 3), (2, 3), (2, 3), (2, 3), (1, 1), (3, 2)))
            patience = chance.choice((0.0, 1.0, 2.0, -1.0))
            body = (b"m%d" % (call % 100),) if chance.random() < 0.95 else (b"very long",)
            return Enlist(call, seat, name, least, most, patience, ttl, holder, body)
        if chance.random() < 0.03:
            rank, world = chance.choice(((0, 0), (-1, 2), (2, 2), (1, 5), (0, 1), (1, 4)))
        return Join(call, seat, name, rank, world, ttl, holder, chance.random() < 0.05)

    def free_rank(self) -> tuple[int, int]:
        """One that a joiner may have, in a group of this world_size; mostly -1 where there is none."""
        chance = self.chance
        lives = self.mirror.engine._groups.lives("g")
        if not lives:
            world = chance.choice((1, 2, 2, 2, 3, 3, 4))
            return chance.randrange(world), world
        world = lives[-1].world_size
        free = [rank for rank in range(world) if rank not in lives[-1].seats] or [-1]
        return chance.choice(free if chance.random() < 0.8 else range(world)), world

    def seat(self, sid: str) -> tuple[int, int, int]:
        """Mostly a seat of a session, its rank, and the world_size."""
        chance = self.chance
        held = list(self.mirror.engine._membership.seats.get(sid, {}).values())
        if held and chance.random() < 0.97:
            one = chance.choice(held)
            return one.seat, one.rank, one.incarnation.world_size
        return chance.randint(1, max(self.last_seat[sid], 1)), 0, 2

    def body(self) -> tuple[bytes, ...]:
        chance = self.chance
        size = chance.choice((1, 3, 9, 20) if chance.random() < 0.97 else (61, 300))
        return (bytes(chance.choices(range(256), k=size)),)

    def of_messages(self, sid: str, call: int) -> Command:
        chance = self.chance
        seat, _, world = self.seat(sid)
        other = chance.randrange(world) if chance.random() < 0.97 else chance.choice((-1, 9, 2**40))
        tag = chance.choice(TAGS)
        kind = chance.random()
        if kind < 0.45:
            put = Put(call, seat, other, tag, self.body())
            self.puts.append((sid, seat, put))
            return put
        if kind < 0.85 or not self.puts:
            return Take(call, seat, other, tag)
        _, seat, put = chance.choice([one for one in self.puts[-9:] if one[0] == sid] or self.puts[-1:])
        return TakeBack(call, seat, put.dst, put.tag, put.call)

    def of_rounds(self, sid: str, call: int) -> Command:
        chance = self.chance
        seat, rank, world = self.seat(sid)
        tag, number = self.round(sid, seat, rank)
        op = PROGRAM[number % len(PROGRAM)] if chance.random() < 0.97 else chance.choice(PROGRAM)
        root, needs, pieces, detail = -1, Needs.ALL, 0, ""
        if op == "last":
            op, needs = "barrier", Needs.ALL_TOLD if rank == 0 else Needs.ALL
        elif op == "all_gather":
            pieces, detail = 1, chance.choice(("", "", "", "", "", "sum"))
        elif op == "all_to_all":
            pieces = world
        elif op != "barrier":
            root = number % max(world, 1) if chance.random() < 0.97 else chance.choice((-1, 7))
            at_root = rank == root
            if op == "broadcast":
                needs, pieces = (Needs.NOTHING, 1) if at_root else (Needs.ROOT, 0)
            elif op == "scatter":
                needs, pieces = Needs.ROOT, world if at_root else 0
            else:
                needs, pieces = Needs.ALL if at_root else Needs.NOTHING, 1
        if chance.random() < 0.01:
            needs, pieces = chance.choice((-1, 4, needs)), chance.choice((3, 9, pieces))
        body: tuple[bytes, ...] = ()
        if pieces == 1:
            body = self.body()
        elif pieces > 1:
            body = tuple(bytes(one) for one in join_parts([self.body()[0] for _ in range(pieces)]))
        return Arrive(call, seat, tag, number, op, root, detail, needs, pieces, body)

    def round(self, sid: str, seat: int, rank: int) -> tuple[Tag, int]:
        """One that is open and that the rank has not come to, or the next."""
        chance = self.chance
        held = self.mirror.engine._membership.seats.get(sid, {}).get(seat)
        if held is not None and chance.random() < 0.7:
            for key, round in held.incarnation.rounds._rounds.items():
                if rank not in round.arrivals:
                    return key
        tag = chance.choice((0, 0, 0, chance.choice(TAGS)))
        self.next_number[tag] += chance.random() < 0.95
        return tag, self.next_number[tag]

    def of_calls(self, sid: str, call: int) -> Command:
        chance = self.chance
        waiting = self._waiting(sid) or [call]
        kind = chance.random()
        if kind < 0.4:
            return Cancel(chance.choice(waiting))
        if kind < 0.65:
            return Inquire(call, chance.choice(waiting))
        if kind < 0.7:
            return Void(call)
        if kind < 0.75:
            return Status(call)
        seat, _, _ = self.seat(sid)
        if kind < 0.85:
            return Expire(call, seat)
        return Watch(call, seat, chance.choice((0, 1, 2, 3, 5, 9, 9, 9, -1)))

    def _waiting(self, sid: str) -> list[int]:
        """Calls of a session that have had no event."""
        return [one.call for one in self.mirror.engine._replies.waiting_of(sid)]

    def of_seats(self, sid: str, call: int) -> Command:
        chance = self.chance
        seat, _, _ = self.seat(sid)
        kind = chance.random()
        if kind < 0.15:
            return Leave(call, seat)
        if kind < 0.25:
            return Vacate(call, seat)
        if kind < 0.28:
            return Abort(call, seat, chance.choice(("tired", "it's", "ééééééééé", "")))
        if kind < 0.5:
            new = self._next_seat(sid)
            return Reform(call, seat, new, chance.choice(TTLS), f"h{call}", (b"r%d" % (call % 100),))
        where = seat if chance.random() < 0.8 else STORE
        if kind < 0.65:
            return Lock(call, where, chance.choice(("l", "k")))
        if kind < 0.8:
            return AddKey(call, where, call, chance.choice(("a", "b")))
        if kind < 0.9:
            return GetKeys(call, where, 1, join_parts([chance.choice((b"a", b"k"))]))
        lasting = chance.random() < 0.5
        return SetKeys(call, where, 1, chance.choice((math.inf, 2.0)), lasting, join_parts([b"k", self.body()[0]]))


def test_random_commands_have_the_same_events(mirror: Mirror) -> None:
    """Whatever members say, whoever falls silent, is lost, or ends: each hears of the port what the engine tells it.

    No key is kept for ever, and of a room that all have left nothing is kept but its numbers, its own keys, and why
    sessions are over.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chaos = Chaos(mirror, seed)
    for _ in range(STEPS):
        chaos.step()
    mirror.names()
    for sid in list(mirror.sessions):
        mirror.end(sid, "it is over")
    assert {name for name in mirror.names() if not name.startswith("k")} == {"room", "over"}
