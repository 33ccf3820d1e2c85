"""A store whose far end is an engine: on the other side of a connection, or right here in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

from aiopg._core.key_messages import STORE
from aiopg._core.messages import Command, Enlist, Join, Status, Trace, Vacate, unpack_value
from aiopg._core.recorder import HAPPENINGS_READ, Excerpt
from aiopg.stores._adrift import Adrift
from aiopg.stores._calls import Calls, Gate, Pending
from aiopg.stores._engine_keys import EngineKeys
from aiopg.stores._engine_member import EngineMember
from aiopg.stores._places import SEAT, holder, take_place
from aiopg.stores.base import Call, Member, Place, StoreLink
from aiopg.stores.keys import Keys

__all__ = ["EngineLink"]


class EngineLink(StoreLink):
    """The verbs of `StoreLink` as the engine's commands; subclasses carry the commands there and the events back."""

    def __init__(self, send: Callable[[Command], object], payload_bytes: int, gate: Gate | None = None) -> None:
        self._calls = Calls(send, gate)
        self._payload_bytes = payload_bytes
        self._seats = itertools.count(1)
        self._keys = EngineKeys(self._calls, STORE, Adrift(self._calls))

    async def join(self, call: Call, world_size: int, *, ttl: float, takeover: bool = False) -> Member:
        seat = next(self._seats)
        join = self._calls.submit(Join, seat, call.group, call.rank, world_size, float(ttl), holder(), takeover)
        incarnation: int = unpack_value(await self._calls.answer(call, join, lambda: self._vacate(join, seat)))
        return EngineMember(self._calls, self._seats, seat, call.rank, world_size, incarnation)

    def _vacate(self, join: Pending, seat: int) -> None:
        """Take a join back that nobody waits for any more, answered or not."""
        self._calls.recall(join)
        if not self._calls.is_lost:
            self._calls.submit(Vacate, seat)

    async def enlist(
        self, call: Call, min_size: int, max_size: int, *, patience: float, ttl: float, metadata: bytes
    ) -> Place:
        command = (Enlist, SEAT, call.group, min_size, max_size, float(patience), float(ttl))
        sit = partial(EngineMember, self._calls, self._seats)
        return await take_place(self._calls, self._seats, call, command, metadata, sit)

    def keys(self, member: Member | None = None) -> Keys:
        if member is None:
            return self._keys
        if not isinstance(member, EngineMember):
            raise TypeError(f"not a member of this link: {member!r}")
        return EngineKeys(self._calls, member.seat, member.adrift)

    async def status(self) -> dict[str, object]:
        status = self._calls.submit(Status)
        await status.wait_until(math.inf)
        described: dict[str, object] = unpack_value(status.result())
        return described

    async def trace(self, after: int = 0, most: int = HAPPENINGS_READ, group: str = "") -> Excerpt:
        trace = self._calls.submit(Trace, after, most, group)
        await trace.wait_until(math.inf)
        return Excerpt.of(unpack_value(trace.result()))
