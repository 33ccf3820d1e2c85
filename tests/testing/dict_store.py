"""A store with an engine of its own: dicts, in one event loop. Groups of fixed ranks and no keys.

It shares nothing with aiopg's engine, so that what passes on both is the contract and not one way to keep it. It is for
tests and for readers: rounds that are over stay until their group ends.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn, TypeVar

from aiopg import (
    CollectiveMismatchError,
    DataExpiredError,
    GroupAbortedError,
    GroupClosedError,
    PeerLostError,
    RankConflictError,
    WorldSizeMismatchError,
)
from aiopg.stores.base import (
    Body,
    Buffer,
    Call,
    Capabilities,
    Member,
    Needs,
    NumberUsedError,
    Place,
    StoreLink,
    Tag,
)
from aiopg.stores.keys import Keys

__all__ = ["DictLink", "World"]

T = TypeVar("T")

Facts = Callable[[], tuple[list[int], list[int]]]


class World:
    """What the links of one store share."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.numbers = itertools.count(1)
        self._waiting: list[asyncio.Future[None]] = []

    def changed(self) -> None:
        """Everybody who waits looks again."""
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)

    async def until(self, call: Call, look: Callable[[], T | None], facts: Facts) -> T:
        """What `look` finds, which is asked anew after every change. What it takes away is handed on in one step."""
        try:
            async with call.within_deadline():
                while (found := look()) is None:
                    turn = call.loop.create_future()
                    self._waiting.append(turn)
                    await turn
                return found
        except TimeoutError:
            raise call.withdrawn(*facts()) from None


class Box:
    """A mailbox: what is in it with the time when that expires, and who waits for it, in the order of their calls."""

    def __init__(self) -> None:
        self.mail: deque[tuple[float, Buffer]] = deque()
        self.line: deque[object] = deque()


class Arrival(NamedTuple):
    """One rank's part in a round."""

    signature: tuple[str, int, str]
    parts: list[Buffer]
    expires: float


class Round:
    """One collective call."""

    def __init__(self) -> None:
        self.arrivals: dict[int, Arrival] = {}
        self.withdrawn: set[int] = set()
        self.error: CollectiveMismatchError | None = None


class Life:
    """One incarnation of a group's name."""

    def __init__(self, name: str, number: int, world_size: int) -> None:
        self.name, self.number, self.world_size = name, number, world_size
        self.seats: dict[int, DictMember] = {}
        self.gone: dict[int, str] = {}
        self.formed = False
        self.boxes: dict[tuple[int, int, Tag], Box] = {}
        self.rounds: dict[tuple[Tag, int], Round] = {}
        self.happened: list[tuple[str, int, str]] = []
        self.aborted: tuple[int, str] | None = None

    def box(self, src: int, dst: int, tag: Tag) -> Box:
        """The mailbox of that address."""
        return self.boxes.setdefault((src, dst, tag), Box())

    def lost(self, ranks: Sequence[int]) -> PeerLostError | None:
        """The error of a call that needs these ranks, if one of them is gone."""
        gone = [rank for rank in ranks if rank in self.gone]
        return PeerLostError(self.name, gone, self.gone[gone[0]]) if gone else None


class DictMember(Member):
    """A seat in a life."""

    def __init__(self, world: World, life: Life, rank: int, ttl: float) -> None:
        self.world, self.life, self.rank, self.ttl = world, life, rank, ttl
        self.incarnation = life.number
        self.kept: dict[tuple[Tag, int], tuple[Arrival, Sequence[Buffer]]] = {}
        self.closed = False

    def check(self) -> None:
        """Raises what ended all calls of this member."""
        if self.closed:
            raise GroupClosedError(f"rank {self.rank} of group {self.life.name!r} has left")
        if self.life.aborted is not None:
            raise GroupAbortedError(self.life.name, *self.life.aborted)

    async def put(self, call: Call, dst: int, payload: Body) -> None:
        self.check()
        if (lost := self.life.lost([dst])) is not None:
            raise lost
        self.life.box(self.rank, dst, call.tag).mail.append((call.loop.time() + self.ttl, b"".join(payload)))
        self.world.changed()

    async def take(self, call: Call, src: int) -> Buffer:
        box, me = self.life.box(src, self.rank, call.tag), object()

        def look() -> Buffer | None:
            self.check()
            if box.line[0] is not me:
                return None
            if box.mail:
                expires, payload = box.mail.popleft()
                if expires <= call.loop.time():
                    raise DataExpiredError(self.life.name, f"message from rank {src}, tag {call.tag!r}")
                return payload
            if (lost := self.life.lost([src])) is not None:
                raise lost
            return None

        box.line.append(me)
        try:
            return await self.world.until(call, look, lambda: ([], [src]))
        finally:
            box.line.remove(me)
            self.world.changed()

    def give_back(self, src: int, tag: Tag, payload: Buffer) -> None:
        self.life.box(src, self.rank, tag).mail.appendleft((math.inf, payload))
        self.world.changed()

    async def round(self, call: Call, root: int, detail: str, parts: list[Buffer], needs: int) -> Sequence[Buffer]:
        self.check()
        key, waits = (call.tag, call.seq), needs != Needs.NOTHING
        mine = Arrival((call.op, root, detail), list(parts), math.inf if waits else call.loop.time() + self.ttl)
        if key in self.kept:
            kept, result = self.kept.pop(key)
            return result if kept[:2] == mine[:2] else _used()
        round = self.life.rounds.setdefault(key, Round())
        if self.rank in round.arrivals and round.arrivals[self.rank][:2] != mine[:2]:
            _used()
        round.arrivals[self.rank] = mine
        round.withdrawn.discard(self.rank)
        if len({arrival.signature for arrival in round.arrivals.values()}) > 1 and round.error is None:
            calls = {rank: str(arrival.signature) for rank, arrival in round.arrivals.items()}
            round.error = CollectiveMismatchError(self.life.name, call.tag, call.seq, calls)
        self.world.changed()
        needed = [] if not waits else [root] if needs == Needs.ROOT else list(range(self.life.world_size))

        def look() -> list[Buffer] | None:
            self.check()
            if round.error is not None:
                raise round.error
            missing = [rank for rank in needed if rank not in round.arrivals]
            if (lost := self.life.lost(missing)) is not None:
                raise lost
            if missing:
                return None
            given = [round.arrivals[rank] for rank in needed]
            if any(arrival.expires <= call.loop.time() for arrival in given):
                raise DataExpiredError(self.life.name, f"{call.op} number {call.seq}")
            return [part for arrival in given for part in self.part_of(arrival)]

        def facts() -> tuple[list[int], list[int]]:
            missing = [rank for rank in needed if rank not in round.arrivals]
            return sorted(round.arrivals), [rank for rank in missing if rank not in round.withdrawn] or missing

        try:
            return await self.world.until(call, look, facts)
        except BaseException:
            if any(rank not in round.arrivals for rank in needed) and round.error is None:
                del round.arrivals[self.rank]  # else it is decided: others may have their results by now
                round.withdrawn.add(self.rank)
            raise

    def part_of(self, arrival: Arrival) -> list[Buffer]:
        """What this rank gets of it."""
        return arrival.parts if len(arrival.parts) < 2 else [arrival.parts[self.rank]]

    def keep(self, call: Call, root: int, detail: str, parts: list[Buffer], result: Sequence[Buffer]) -> None:
        self.kept[call.tag, call.seq] = Arrival((call.op, root, detail), list(parts), math.inf), result

    async def expire(self, call: Call) -> int:
        self.check()
        now = call.loop.time()
        count = 0
        for box in self.life.boxes.values():
            for place, (expires, payload) in enumerate(box.mail):
                if expires <= now and payload:
                    box.mail[place] = expires, b""
                    count += 1
        return count

    async def abort(self, call: Call, reason: str) -> None:
        self.check()
        self.life.aborted = self.rank, reason
        self.life.happened.append(("aborted", self.rank, reason))
        self.world.changed()

    async def happenings(self, call: Call, after: int) -> list[tuple[str, int, str]]:
        def look() -> list[tuple[str, int, str]] | None:
            if self.closed:
                self.check()
            return self.life.happened[after:] or None

        return await self.world.until(call, look, lambda: ([], []))

    async def reform(self, call: Call, *, ttl: float, metadata: bytes) -> Place:
        raise NotImplementedError("no reform")

    async def leave(self, call: Call) -> None:
        self.go("left")

    def go(self, what: str) -> None:
        """The seat is empty from here on."""
        if self.closed:
            return
        self.closed = True
        self.life.gone[self.rank] = f"it {what}"
        self.life.happened.append((what, self.rank, f"it {what}"))
        if len(self.life.gone) == self.life.world_size:
            del self.world.lives[self.life.name]
        self.world.changed()


class DictLink(StoreLink):
    """A link to a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.members: list[DictMember] = []
        self.closed = False

    @property
    def url(self) -> str:
        return f"dict://{id(self.world)}"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            engine="dict", exactly_once=True, survives=(), keys=False, payload_bytes=2**30, death_seconds=0.0
        )

    async def join(self, call: Call, world_size: int, *, ttl: float, takeover: bool = False) -> Member:
        if takeover:
            raise NotImplementedError("no takeover")
        lives = self.world.lives
        seat: DictMember | None = None

        def look() -> DictMember | None:
            nonlocal seat
            if self.closed:
                raise GroupClosedError("the link to the store was closed")
            life = lives.get(call.group) or Life(call.group, next(self.world.numbers), world_size)
            if life.world_size != world_size:
                raise WorldSizeMismatchError(call.group, world_size, life.world_size)
            if seat is None and call.rank in life.gone:
                return None  # this life has to end
            if seat is None:
                if call.rank in life.seats:
                    raise RankConflictError(call.group, call.rank)
                lives[call.group] = life
                seat = life.seats[call.rank] = DictMember(self.world, life, call.rank, ttl)
                life.happened.append(("joined", call.rank, ""))
                life.formed = len(life.seats) == world_size
                self.world.changed()
            return seat if seat.life.formed else None

        def facts() -> tuple[list[int], list[int]]:
            here = sorted(seat.life.seats) if seat is not None else []
            return here, [rank for rank in range(world_size) if rank not in here]

        try:
            member = await self.world.until(call, look, facts)
        except BaseException:
            if seat is not None:
                self.take_back(seat)
            raise
        self.members.append(member)
        return member

    def take_back(self, seat: DictMember) -> None:
        """Nobody waits for this seat any more."""
        life = seat.life
        if life.formed:
            seat.go("left")
            return
        del life.seats[seat.rank]
        life.happened.remove(("joined", seat.rank, ""))
        if not life.seats:
            del self.world.lives[life.name]
        self.world.changed()

    async def enlist(
        self, call: Call, min_size: int, max_size: int, *, patience: float, ttl: float, metadata: bytes
    ) -> Place:
        raise NotImplementedError("no enlist")

    def keys(self, member: Member | None = None) -> Keys:
        raise NotImplementedError("no keys")

    async def status(self) -> dict[str, object]:
        return {"groups": sorted(self.world.lives)}

    async def close(self) -> None:
        self.closed = True
        for member in self.members:
            member.go("lost")
        self.world.changed()


def _used() -> NoReturn:
    raise NumberUsedError
